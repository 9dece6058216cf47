import time

import pytest
import torch
from torch import Tensor

from reslab.data.images import ImageSet
from reslab.data.load import load
from reslab.data.overlap import Overlap, describe_overlap, find_overlap

NONE = Overlap(exact=(), near=())


def as_set(images: Tensor) -> ImageSet:
    labels = torch.zeros(len(images), dtype=torch.int64)
    return ImageSet(images.clamp(0, 255).round().to(torch.uint8), labels, ("one", "two"), "made", "train")


def pictures(num: int, *, seed: int, channels: int = 3, size: int = 32) -> Tensor:
    """Random pictures, 0 to 255, smooth where they are large: what differs between photographs is coarse too."""
    side = max(8, size // 2)
    coarse = torch.rand(num, channels, side, side, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return (255 * smooth).round()


def noise(images: Tensor, deviation: float) -> Tensor:
    return deviation * torch.randn(images.shape, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("size", [8, 32])
def test_finds_planted_copies_and_nothing_else(channels: int, size: int) -> None:
    first = pictures(60, seed=1, channels=channels, size=size)
    copies = [first[4], first[9].flip(2), first[13] + 15, first[21] + noise(first[21], 4), 0.8 * first[30]]
    second = torch.cat([pictures(20, seed=2, channels=channels, size=size), torch.stack(copies)])
    overlap = find_overlap(as_set(first), as_set(second))
    assert overlap == Overlap(exact=((4, 20),), near=((9, 21), (13, 22), (21, 23), (30, 24)))


def test_finds_copies_of_low_quality() -> None:
    first = pictures(60, seed=1)
    coarse = torch.nn.functional.avg_pool2d(first[:5], 2).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    overlap = find_overlap(as_set(first), as_set(coarse + noise(coarse, 5)))
    assert overlap == Overlap(exact=(), near=tuple((place, place) for place in range(5)))


def test_finds_most_of_what_moved_a_little() -> None:
    """Noise moved by a pixel has nothing in common with itself, pixel by pixel."""
    first = 255 * torch.rand(40, 1, 32, 32, generator=torch.Generator().manual_seed(3))
    near = find_overlap(as_set(first), as_set(first.roll(1, dims=3))).near
    assert len(near) >= 20
    assert all(place == other for place, other in near)
    assert find_overlap(as_set(first), as_set(first.roll(8, dims=3))) == NONE


CHECKS = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * 2 - 1  # no low frequencies, which alone the hash sees
FAINT = 100 + 0.2 * pictures(20, seed=1, channels=1)
STARK = 35 + 180 * (pictures(20, seed=1, channels=1) > 127)


@pytest.mark.parametrize(
    ("first", "strength", "found"),
    [(FAINT, 3, 20), (FAINT, 15, 0), (STARK, 10, 20), (STARK, 30, 0)],
    ids=["faint-alike", "faint-uncorrelated", "stark-alike", "stark-different"],
)
def test_the_pixels_must_agree_where_the_hashes_do(first: Tensor, strength: int, found: int) -> None:
    near = find_overlap(as_set(first), as_set(first + strength * CHECKS)).near
    assert near == tuple((place, place) for place in range(found))


def test_a_larger_distance_finds_no_less_and_none_finds_nothing() -> None:
    first = pictures(60, seed=1)
    second = as_set(first + noise(first, 25))
    found = [set(find_overlap(as_set(first), second, max_distance=distance).near) for distance in (-1, 1, 4, 12)]
    assert not found[0]
    assert len(found[1]) < len(found[2]) < len(found[3])
    assert found[1] <= found[2] <= found[3] <= {(place, place) for place in range(60)}


def test_flat_images_are_only_exact_copies() -> None:
    levels = torch.arange(200).float()[:, None, None, None].expand(200, 1, 8, 8)
    first, second = as_set(levels), as_set(levels[:50] + 0.6 * (noise(levels[:50], 1) > 1))
    overlap = find_overlap(first, second)
    assert overlap.near == ()
    assert overlap.exact == ()
    faint = torch.randint(2, (20, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    assert find_overlap(as_set(100 + faint), as_set(120 + faint)) == NONE
    assert find_overlap(first, as_set(levels[:50])) == Overlap(exact=tuple((n, n) for n in range(50)), near=())


def test_repeated_images_are_all_named_but_not_in_every_combination() -> None:
    blank = torch.zeros(300, 1, 8, 8)
    exact = find_overlap(as_set(blank), as_set(blank[:200])).exact
    assert len(exact) == 300
    assert {place for place, _ in exact} == set(range(300))
    assert {place for _, place in exact} == set(range(200))
    picture = pictures(1, seed=1)
    near = find_overlap(as_set(picture.repeat(300, 1, 1, 1)), as_set((picture + 9).repeat(200, 1, 1, 1))).near
    assert len(near) <= 500
    assert {place for place, _ in near} == set(range(300))
    assert {place for _, place in near} == set(range(200))


def test_the_size_of_the_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first = pictures(30, seed=1)
    second = (first[:3] + 9).repeat(20, 1, 1, 1)
    whole = find_overlap(as_set(first), as_set(second))
    assert whole.near == tuple(sorted((place % 3, place) for place in range(60)))
    monkeypatch.setattr("reslab.data.overlap._BLOCK", 7 * 60)
    assert find_overlap(as_set(first), as_set(second)) == whole


def test_near_does_not_repeat_exact_ones() -> None:
    first = pictures(8, seed=1)
    symmetric = first + first.flip(3)
    twice = torch.cat([symmetric, symmetric]) / 2
    overlap = find_overlap(as_set(twice), as_set(twice))
    assert len(overlap.exact) == 16
    assert overlap.near == ()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pictures(5, seed=1), pictures(5, seed=2)),
        (pictures(5, seed=1, channels=1), pictures(5, seed=1, channels=1).repeat(1, 3, 1, 1)),
        (pictures(5, seed=1, size=8), pictures(5, seed=1, size=32)),
        (pictures(5, seed=1), pictures(5, seed=1)[:0]),
        (pictures(5, seed=1)[:0], pictures(5, seed=1)),
        (torch.zeros(5, 1, 8, 8), torch.ones(5, 1, 8, 8)),
    ],
    ids=["unrelated", "channels", "sizes", "empty-second", "empty-first", "flat"],
)
def test_nothing_in_common(first: Tensor, second: Tensor) -> None:
    assert find_overlap(as_set(first), as_set(second)) == NONE


def test_handwriting_alike_is_seldom_called_a_copy() -> None:
    train, test = (load("digits", split, image_size=8) for split in ("train", "test"))
    overlap = find_overlap(train, test)
    assert overlap.exact == ()
    assert len({place for _, place in overlap.near}) < 0.05 * len(test.images)
    assert find_overlap(train, train.subset(range(100))).exact == tuple((place, place) for place in range(100))


def test_is_fast() -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randint(256, (num, 3, 32, 32), generator=generator) for num in (5000, 2000))
    second[7] = first[4321].flip(2)
    images, others = as_set(first), as_set(second)
    started = time.process_time()
    overlap = find_overlap(images, others)
    assert time.process_time() - started < 5  # 0.4 s on one core of 2021
    assert overlap == Overlap(exact=(), near=((4321, 7),))


@pytest.mark.parametrize(
    ("overlap", "sentence"),
    [
        (NONE, "no image of old occurs in new"),
        (Overlap(((1, 2), (3, 4), (5, 6)), ((7, 8), (9, 9))), "3 images of old occur exactly in new, 2 more nearly"),
        (Overlap(((1, 2),), ()), "1 image of old occurs exactly in new"),
        (Overlap((), ((1, 2),)), "1 image of old occurs nearly in new"),
        (Overlap((), ((1, 2), (1, 3), (2, 3))), "2 images of old occur nearly in new"),
        (Overlap(((1, 2),), ((1, 3), (4, 3))), "1 image of old occurs exactly in new, 1 more nearly"),
        (Overlap(tuple((n, 0) for n in range(1234)), ()), "1,234 images of old occur exactly in new"),
    ],
)
def test_describes_in_one_line(overlap: Overlap, sentence: str) -> None:
    assert describe_overlap(overlap, first="old", second="new") == sentence

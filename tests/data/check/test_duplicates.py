import io
import time

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from reslab.data.check import duplicates
from reslab.data.check.duplicates import Overlap, describe_overlap, find_overlap, find_repeats
from reslab.data.images import ImageSet
from reslab.data.load import load

NONE = Overlap(exact=(), near=())


def as_set(images: Tensor) -> ImageSet:
    labels = torch.zeros(len(images), dtype=torch.int64)
    return ImageSet(images.clamp(0, 255).round().to(torch.uint8), labels, ("one", "two"), "made", "train")


def pictures(num: int, *, seed: int, channels: int = 3, size: int = 32) -> Tensor:
    """Random pictures, 0 to 255: like photographs, they have details of all sizes, the larger ones stronger."""
    generator = torch.Generator().manual_seed(seed)
    layers = [
        weight
        * torch.nn.functional.interpolate(
            torch.randn(num, channels, side, side, generator=generator), size=(size, size), mode="bilinear"
        )
        for side, weight in ((4, 40.0), (8, 30.0), (16, 20.0))
    ]
    return (128 + sum(layers, torch.zeros(()))).clamp(0, 255).round()


def altered(images: Tensor, how: str) -> Tensor:
    """Make copies of color images as people do."""
    return torch.stack([_alter(image, how) for image in images])


def _alter(image: Tensor, how: str) -> Tensor:
    picture = Image.fromarray(image.permute(1, 2, 0).byte().numpy())
    match how:
        case "mirrored":
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        case "cropped":
            picture = picture.resize((32, 32), Image.Resampling.BICUBIC, box=(5, 2, 31, 28))
        case "compressed":
            buffer = io.BytesIO()
            picture.save(buffer, format="JPEG", quality=50)
            picture = Image.open(buffer)
        case "brighter":
            picture = ImageEnhance.Brightness(picture).enhance(1.2)
        case "darker":
            picture = ImageEnhance.Brightness(picture).enhance(0.8)
        case "smaller":
            picture = picture.resize((16, 16), Image.Resampling.BILINEAR).resize((32, 32), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()


@pytest.mark.parametrize("how", ["mirrored", "cropped", "compressed", "brighter", "darker", "smaller"])
def test_finds_planted_copies_and_nothing_else(how: str) -> None:
    first = pictures(60, seed=1)
    second = torch.cat([pictures(40, seed=2), altered(first[10:30], how)])
    expected = tuple((10 + place, 40 + place) for place in range(20))
    assert find_overlap(as_set(first), as_set(second)) == Overlap(exact=(), near=expected)
    both = as_set(torch.cat([second, first]))
    assert find_repeats(both) == Overlap(exact=(), near=tuple((40 + place, 70 + place) for place in range(20)))


def test_what_is_cropped_further_is_no_copy() -> None:
    first = pictures(30, seed=1)
    assert find_overlap(as_set(first), as_set(first.roll((11, 9), dims=(2, 3)))) == NONE


def test_the_alignment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, whatever is nearest would be a copy."""
    first, second = as_set(pictures(60, seed=1)), as_set(pictures(60, seed=2))
    monkeypatch.setattr(duplicates, "LEAST_NEAR", 0.3)
    assert find_overlap(first, second) == NONE
    monkeypatch.setattr(duplicates, "LEAST_ROUGH", -1.0)
    monkeypatch.setattr(duplicates, "LEAST_ALIKE", -1.0)
    monkeypatch.setattr(duplicates, "LEAST_ALIKE_COARSE", -1.0)
    assert len(find_overlap(first, second).near) > 50


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("size", [20, 64])
def test_takes_any_channels_and_sizes(channels: int, size: int) -> None:
    first = pictures(30, seed=1, channels=channels, size=size)
    second = torch.stack([first[4], first[9].flip(2), first[13] + 15])
    assert find_overlap(as_set(first), as_set(second)) == Overlap(exact=((4, 0),), near=((9, 1), (13, 2)))


def test_flat_images_are_only_exact_copies() -> None:
    levels = torch.arange(200).float()[:, None, None, None].expand(200, 1, 8, 8)
    faint = torch.randint(2, (20, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    assert find_overlap(as_set(100 + faint), as_set(120 + faint)) == NONE
    assert find_overlap(as_set(levels), as_set(levels[:50])) == Overlap(tuple((n, n) for n in range(50)), ())
    assert find_repeats(as_set(levels)) == NONE


def test_repeated_images_are_all_named_but_not_in_every_combination() -> None:
    blank = torch.zeros(300, 1, 8, 8)
    exact = find_overlap(as_set(blank), as_set(blank[:200])).exact
    assert len(exact) == 300
    assert {place for place, _ in exact} == set(range(300))
    assert {place for _, place in exact} == set(range(200))
    assert find_repeats(as_set(blank)).exact == tuple((0, place) for place in range(1, 300))
    picture = pictures(1, seed=1)
    near = find_overlap(as_set(picture.repeat(30, 1, 1, 1)), as_set((picture + 9).repeat(20, 1, 1, 1))).near
    assert len(near) <= 50
    assert {place for place, _ in near} == set(range(30))
    assert {place for _, place in near} == set(range(20))


def test_near_does_not_repeat_exact_ones() -> None:
    first = pictures(8, seed=1)
    symmetric = (first + first.flip(3)) / 2
    assert find_repeats(as_set(torch.cat([symmetric, symmetric]))) == Overlap(tuple((n, 8 + n) for n in range(8)), ())


def test_the_size_of_the_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    first = pictures(30, seed=1)
    images = as_set(torch.cat([first, first[:3].flip(3)]))
    whole = find_repeats(images)
    assert whole.near == ((0, 30), (1, 31), (2, 32))
    for name, size in (("_ROWS", 7), ("_COLUMNS", 11), ("_PAIRS", 2)):
        monkeypatch.setattr(duplicates, name, size)
    assert find_repeats(images) == whole


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pictures(5, seed=1), pictures(5, seed=2)),
        (pictures(5, seed=1, channels=1), pictures(5, seed=1, channels=1).repeat(1, 3, 1, 1)),
        (pictures(5, seed=1), pictures(5, seed=1)[:0]),
        (pictures(5, seed=1)[:0], pictures(5, seed=1)),
        (torch.zeros(5, 1, 8, 8), torch.ones(5, 1, 8, 8)),
    ],
    ids=["unrelated", "channels", "empty-second", "empty-first", "flat"],
)
def test_nothing_in_common(first: Tensor, second: Tensor) -> None:
    assert find_overlap(as_set(first), as_set(second)) == NONE


def test_handwriting_alike_is_seldom_called_a_copy() -> None:
    train, test = (load("digits", split, image_size=32).subset(range(300)) for split in ("train", "test"))
    overlap = find_overlap(train, test)
    assert overlap.exact == ()
    assert len({place for _, place in overlap.near}) < 0.02 * len(test.images)


def test_is_fast_and_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randint(256, (num, 3, 32, 32), generator=generator) for num in (5000, 2000))
    second[7] = first[4321].flip(2)
    monkeypatch.setattr("reslab.data.progress.PATIENCE", 0.0)
    started = time.process_time()
    overlap = find_overlap(as_set(first), as_set(second))
    assert time.process_time() - started < 10  # 1.3 s on one core of 2023
    assert overlap == Overlap(exact=(), near=((4321, 7),))
    assert "looking for near duplicates: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overlap", "sentence"),
    [
        (NONE, "no image of old occurs in new"),
        (Overlap(((1, 2), (3, 4), (5, 6)), ((7, 8), (9, 9))), "3 images of old occur exactly in new, 2 more nearly"),
        (Overlap(((1, 2),), ()), "1 image of old occurs exactly in new"),
        (Overlap((), ((1, 2), (1, 3), (2, 3))), "2 images of old occur nearly in new"),
        (Overlap(tuple((n, 0) for n in range(1234)), ()), "1,234 images of old occur exactly in new"),
    ],
)
def test_describes_in_one_line(overlap: Overlap, sentence: str) -> None:
    assert describe_overlap(overlap, first="old", second="new") == sentence

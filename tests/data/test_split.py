import numpy as np
import pytest
import torch

from reslab.data.images import ImageSet
from reslab.data.load import load
from reslab.data.split import cut, cut_by_key, hold_out, limit
from reslab.errors import UserError


def make_set(counts: list[int], *, classes: str = "abcdefgh") -> ImageSet:
    """Every image carries its own number in its pixels."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    numbers = torch.arange(len(labels), dtype=torch.int64)
    images = torch.stack([numbers % 256, numbers // 256], dim=1).to(torch.uint8)[:, :, None, None]
    return ImageSet(images, labels, tuple(classes[: len(counts)]), "made", "train")


def held_places(images: ImageSet, validation: ImageSet) -> dict[str, set[int]]:
    """Give for each class which of its images, counted among themselves, are in `validation`."""
    held: dict[str, set[int]] = {}
    chosen = set(numbers(validation))
    for label, name in enumerate(images.classes):
        own = numbers(images.subset(torch.nonzero(images.labels == label).flatten()))
        held[name] = {place for place, number in enumerate(own) if number in chosen}
    return held


def numbers(images: ImageSet) -> list[int]:
    low, high = images.images[:, :, 0, 0].to(torch.int64).unbind(dim=1)
    return [int(number) for number in low + 256 * high]


@pytest.mark.parametrize(
    ("counts", "num", "expected"),
    [
        ([100, 100, 100], 30, [10, 10, 10]),
        ([100, 200, 300], 60, [10, 20, 30]),
        ([500, 10], 51, [50, 1]),
        ([500, 2], 20, [19, 1]),  # 0.08 of an image, but one each
        ([3, 3], 4, [2, 2]),  # one each must stay
        ([2, 100], 101 - 2, [1, 98]),
        ([10, 10, 10], 4, [2, 1, 1]),
    ],
)
def test_hold_out_shares_in_proportion(counts: list[int], num: int, expected: list[int]) -> None:
    training, validation = hold_out(make_set(counts), num, seed=0)
    assert validation.counts() == expected
    assert training.counts() == [count - share for count, share in zip(counts, expected, strict=True)]
    assert (training.split, validation.split) == ("train", "validation")


def test_hold_out_loses_and_doubles_nothing_and_keeps_the_order() -> None:
    images = make_set([150, 120, 90])
    training, validation = hold_out(images, 60, seed=3)
    assert sorted(numbers(training) + numbers(validation)) == list(range(360))
    assert numbers(training) == sorted(numbers(training))
    assert torch.equal(validation.labels, images.labels[numbers(validation)])


def test_hold_out_depends_on_the_seed_alone() -> None:
    images = make_set([150, 120])
    assert numbers(hold_out(images, 50, seed=3)[1]) == numbers(hold_out(images, 50, seed=3)[1])
    assert numbers(hold_out(images, 50, seed=3)[1]) != numbers(hold_out(images, 50, seed=4)[1])


@pytest.mark.parametrize("counts", [[40, 25, 90], [500, 50], [7, 7, 7, 7, 7, 7]])
def test_hold_out_of_a_class_does_not_depend_on_its_neighbours(counts: list[int]) -> None:
    images = make_set(counts)
    for num in range(len(counts), sum(counts) // 2, 7):
        held = held_places(images, hold_out(images, num, seed=5)[1])
        for label, name in enumerate(images.classes):
            beside = make_set([30, 0, counts[label], 60], classes=f"x0{name}y")
            other = held_places(beside, hold_out(beside, max(3, num // 2), seed=5)[1])[name]
            assert other
            assert held[name] <= other or other <= held[name]  # the smaller share is a part of the larger


def test_hold_out_of_an_extension_holds_out_what_its_base_did() -> None:
    base, extended = load("digits:0-6", "train", image_size=8), load("digits:0-6+digits:7-9@20", "train", image_size=8)
    held, held_now = (hold_out(images, len(images.labels) // 10, seed=0)[1] for images in (base, extended))
    for label in range(7):
        before = {image.numpy().tobytes() for image in held.images[held.labels == label]}
        now = {image.numpy().tobytes() for image in held_now.images[held_now.labels == label]}
        assert len(before ^ now) <= 1, label  # a share may be rounded otherwise
        assert before <= now or now <= before


def test_hold_out_draws_anew_for_every_name_and_seed() -> None:
    images = make_set([40, 40, 40])
    drawn = [held_places(images, hold_out(images, 60, seed=seed)[1]) for seed in (0, 1)]
    assert len({frozenset(places) for held in drawn for places in held.values()}) == 6


def test_hold_out_takes_nothing_from_classes_without_images() -> None:
    images = make_set([0, 100, 0, 50, 0])
    training, validation = hold_out(images, 30, seed=0)
    assert validation.counts() == [0, 20, 0, 10, 0]
    assert training.counts() == [0, 80, 0, 40, 0]
    assert training.classes == validation.classes == images.classes
    alone = hold_out(make_set([100], classes="b"), 20, seed=0)[1]
    assert held_places(images, validation)["b"] == held_places(make_set([100], classes="b"), alone)["b"]
    with pytest.raises(UserError, match=r"validation=1 .* 150 training images of 2 classes: choose 2 to 148"):
        hold_out(images, 1, seed=0)


@pytest.mark.parametrize("num", [0, 2, 8, 99, -1])
def test_hold_out_refuses_what_leaves_a_class_without_an_image(num: int) -> None:
    with pytest.raises(UserError, match=rf"validation={num} .* 10 training images of 3 classes: choose 3 to 7"):
        hold_out(make_set([3, 3, 4]), num, seed=0)


def test_hold_out_names_a_class_with_a_single_image() -> None:
    with pytest.raises(UserError, match="class 'b' has 1 training image"):
        hold_out(make_set([5, 1]), 2, seed=0)
    with pytest.raises(UserError, match="class 'c' has 1 training image"):
        hold_out(make_set([5, 0, 1]), 2, seed=0)


def test_cut_takes_a_fifth_of_each_class_for_the_test() -> None:
    labels = np.repeat(np.arange(3), [100, 2, 14])
    train, test = (cut(labels, classes=("a", "b", "c"), split=split) for split in ("train", "test"))  # type: ignore[arg-type]
    assert np.bincount(labels[test]).tolist() == [20, 1, 3]
    assert sorted([*train, *test]) == list(range(116))


def test_cut_of_a_class_does_not_depend_on_its_neighbours() -> None:
    alone = cut(np.zeros(50, dtype=np.int64), classes=("b",), split="test")
    second = cut(np.repeat(np.arange(2), [30, 50]), classes=("a", "b"), split="test")
    assert [place - 30 for place in second if place >= 30] == alone.tolist()


def test_cut_refuses_a_class_with_a_single_image() -> None:
    with pytest.raises(UserError, match="class 'b' has 1 image"):
        cut(np.array([0, 0, 1]), classes=("a", "b"), split="train")


def test_limit_takes_at_most_so_many_and_the_fewer_are_among_the_more() -> None:
    labels = np.repeat(np.arange(2), [40, 3])
    few, many = (limit(labels, classes=("a", "b"), num=num) for num in (5, 10))
    assert np.bincount(labels[few]).tolist() == [5, 3]
    assert np.bincount(labels[many]).tolist() == [10, 3]
    assert set(few) < set(many)
    assert few.tolist() == sorted(few)
    assert few.tolist()[:5] != list(range(5))  # chosen, not the first ones


def test_the_choices_are_the_same_in_every_version() -> None:
    labels, classes = np.zeros(10, dtype=np.int64), ("lizard",)
    assert cut(labels, classes=classes, split="test").tolist() == [2, 4]
    assert limit(labels, classes=classes, num=3).tolist() == [3, 4, 5]
    pixels = torch.arange(10, dtype=torch.uint8)[:, None, None, None]
    images = ImageSet(pixels, torch.from_numpy(labels), classes, "made", "train")
    assert hold_out(images, 3, seed=0)[1].images.flatten().tolist() == [0, 1, 8]


# ---- by content


def keys(*shares: float) -> np.ndarray:
    """Make keys from the share of the whole range that lies below them."""
    return np.array([int(share * 2**64) for share in shares], dtype=np.uint64)


def keyed(labels: list[int], own: np.ndarray) -> ImageSet:
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None]
    return ImageSet(images, torch.tensor(labels), ("a", "b"), "made", "train", keys=own)


def shares_of(images: ImageSet) -> list[float]:
    assert images.keys is not None
    return sorted(round(float(key) / 2**64, 2) for key in images.keys)


def test_a_key_alone_decides_and_no_class_goes_without() -> None:
    shares = keys(0.1, 0.5, 0.19, 0.21, 0.9, 0.6, 0.02, 0.05)
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    test = cut_by_key(shares, labels, classes="abc", split="test")
    # "b" gives the lower of two high keys to the test, "c" the higher of two low ones to training.
    assert test.tolist() == [0, 2, 5, 6]
    assert cut_by_key(shares, labels, classes="abc", split="train").tolist() == [1, 3, 4, 7]


def test_equal_keys_stay_together_also_across_classes() -> None:
    shares, labels = keys(0.5, 0.5, 0.7, 0.5, 0.9), np.array([0, 0, 0, 1, 1])
    assert cut_by_key(shares, labels, classes="ab", split="test").tolist() == [0, 1, 3]
    undivided = keys(0.5, 0.5, 0.5, 0.1, 0.9)
    with pytest.raises(UserError, match=r"class 'a' has 3 images .copies, or one group.: .*leave out :-x,-a"):
        cut_by_key(undivided, labels, classes="ab", split="test", choice=["-x"])
    with pytest.raises(UserError, match=r"; add some$"):  # of arrays and shards, which are cut before any choice
        cut_by_key(undivided, labels, classes="ab", split="test")


def test_hold_out_takes_the_lowest_keys_and_never_part_of_a_group() -> None:
    images = keyed([0] * 6 + [1] * 4, keys(0.9, 0.4, 0.4, 0.4, 0.5, 0.6, 0.3, 0.7, 0.8, 0.35))
    training, validation = hold_out(images, 5, seed=0)
    assert shares_of(validation) == [0.3, 0.35, 0.4, 0.4, 0.4]
    assert shares_of(training) == [0.5, 0.6, 0.7, 0.8, 0.9]
    assert shares_of(hold_out(images, 3, seed=0)[1]) == [0.3, 0.5, 0.6]  # the group of three does not fit


def test_hold_out_of_groups_larger_than_their_share_takes_the_lowest() -> None:
    images = keyed([0] * 4 + [1] * 4, keys(0.6, 0.6, 0.4, 0.4, 0.3, 0.3, 0.8, 0.8))
    assert shares_of(hold_out(images, 2, seed=0)[1]) == [0.3, 0.3, 0.4, 0.4]
    with pytest.raises(UserError, match="class 'a' cannot be divided"):
        hold_out(keyed([0] * 4 + [1] * 4, keys(*[0.6] * 4, 0.1, 0.2, 0.3, 0.4)), 2, seed=0)


def test_hold_out_of_official_images_is_not_changed_by_own_ones_of_the_same_class() -> None:
    official, own = np.zeros(40, dtype=np.uint64), keys(*np.linspace(0.01, 0.99, 20))
    images = keyed([0] * 30 + [1] * 10 + [0] * 20, np.concatenate([official, own]))
    before = hold_out(images.subset(np.arange(40)), 8, seed=0)[1]
    training, held = hold_out(images, 12, seed=0)
    assert held.keys is not None
    assert torch.equal(before.images, held.images[torch.from_numpy(held.keys == 0)])
    assert shares_of(held.subset(np.flatnonzero(held.keys))) == [0.01, 0.06, 0.11, 0.16]
    assert len(training.labels) == 48
    # One group, or one image, of a class that has official ones besides stays in training.
    for own in (keys(0.1, 0.1, 0.1), keys(0.1)):
        images = keyed([0] * 30 + [1] * 10 + [0] * len(own), np.concatenate([official, own]))
        held = hold_out(images, 8, seed=0)[1]
        assert held.keys is not None
        assert not held.keys.any()


def test_hold_out_chooses_official_images_beside_own_ones_as_it_does_alone() -> None:
    labels = [0] * 20 + [1] * 10
    images = keyed(labels, np.concatenate([np.zeros(20, dtype=np.uint64), keys(*np.linspace(0.3, 0.9, 10))]))
    alone = hold_out(images.subset(np.arange(20)), 4, seed=0)[1]
    both = hold_out(images, 6, seed=0)[1]
    assert torch.equal(alone.images, both.images[both.labels == 0])

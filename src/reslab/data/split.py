"""Selections of images per class: a validation set, a test set if none exists, a few of each class.

Images with a key, a hash of their content or of their group, are selected by it: pictures stay in their split whatever
is added, renamed or removed, unless a class is too small for that, and copies stay together. Images of the official
sets are selected by a seed.
"""

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from reslab.data.images import ImageSet
from reslab.data.names import advise_leaving_out
from reslab.errors import UserError
from reslab.records import SplitName
from reslab.words import counted, named

TEST_SHARE = 0.2
_CUT, _LIMIT, _HOLD_OUT = 0, 1, 2  # separate random streams; fixed, so that an expression is the same data everywhere


class SmallClasses(UserError):  # noqa: N818 - a kind of error, not its name
    """Some classes of a source have too few pictures to be divided, or, if `are_all`, all of them."""

    def __init__(self, message: str, names: Sequence[str], *, are_all: bool) -> None:
        super().__init__(message)
        self.names, self.are_all = tuple(names), are_all


def hold_out(images: ImageSet, num: int, *, seed: int) -> tuple[ImageSet, ImageSet]:
    """Hold out `num` images for validation, each class in proportion; return (training, validation).

    Images with keys are held out from the lowest key on; equal keys stay on one side, so there may be slightly fewer.
    For other images the selection depends only on the class's name, their number in it and the seed: adding classes, or
    images with keys, does not change it, and a smaller selection is a subset of a larger one. Classes without images
    are ignored.
    Raises: UserError unless every class that has images can have at least one on both sides.
    """
    counts = {label: count for label, count in enumerate(images.counts()) if count}
    _check_room(counts, num, images.classes)
    labels = images.labels.numpy()
    keys = np.zeros(len(labels), dtype=np.uint64) if images.keys is None else images.keys
    held = np.zeros(len(labels), dtype=bool)
    by_key: dict[int, int] = {}
    parts = [part for label in counts for part in _parts(np.flatnonzero(labels == label), keys)]
    for places, share in zip(parts, _shares([len(part) for part in parts], num), strict=True):
        label = int(labels[places[0]])
        if not keys[places].all():
            held[_shuffled(places, images.classes[label], _HOLD_OUT, seed)[:share]] = True
        elif len(places) == counts[label] or len(np.unique(keys[places])) > 1:
            by_key[label] = share
    held |= choose_by_key(keys, labels, shares=by_key, classes=images.classes)
    training, validation = images.subset(np.flatnonzero(~held)), images.subset(np.flatnonzero(held))
    return training, replace(validation, split="validation")


def _parts(places: NDArray[np.int64], keys: NDArray[np.uint64]) -> list[NDArray[np.int64]]:
    """Divide a class into images with and without keys, unless only a single image has none."""
    is_keyed = keys[places] > 0
    return [places[~is_keyed], places[is_keyed]] if 1 < (~is_keyed).sum() < len(places) else [places]


def choose_by_key(
    keys: NDArray[np.uint64], labels: NDArray[np.int64], *, shares: Mapping[int, int], classes: Sequence[str]
) -> NDArray[np.bool_]:
    """Choose up to `shares[label]` images of each of these classes, from the lowest key on; equal keys stay together.

    If all groups of equal keys in a class are larger than its share, the one with the lowest key is chosen.
    """
    chosen = np.zeros(len(labels), dtype=bool)
    places = np.flatnonzero(np.isin(labels, list(shares)) & (keys > 0))
    if not len(places):
        return chosen
    order = places[np.argsort(keys[places], kind="stable")]
    units = np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)
    sizes = [Counter(labels[unit].tolist()) for unit in units]
    left, held = dict(shares), Counter[int]()
    total = Counter(labels[places].tolist())
    for unit, size in zip(units, sizes, strict=True):
        if all(num <= left[label] for label, num in size.items()):
            chosen[unit] = True
            held.update(size)
            for label, num in size.items():
                left[label] -= num
    for label in (label for label in shares if not held[label]):
        fitting = [
            (unit, size)
            for unit, size in zip(units, sizes, strict=True)
            if label in size and all(held[other] + num < total[other] for other, num in size.items())
        ]
        if not fitting:
            raise UserError(
                f"the training images of class {classes[label]!r} cannot be divided: they are copies or one group; "
                "add others, or set validation=0"
            )
        chosen[fitting[0][0]] = True
        held.update(fitting[0][1])
    return chosen


def _check_room(counts: Mapping[int, int], num: int, classes: Sequence[str]) -> None:
    """Refuse to hold out `num` images if a class of `counts` would have none on one side."""
    total = sum(counts.values())
    smallest, largest = len(counts), total - len(counts)
    for label, count in counts.items():
        if count < 2:
            raise UserError(
                f"class {classes[label]!r} has {count} training image, but validation and training need one each"
            )
    if not smallest <= num <= largest:
        raise UserError(
            f"validation={num} does not fit {total} training images of {len(counts)} classes: choose {smallest} "
            f"to {largest}, so that each class has an image in validation and one in training, or 0 for none"
        )


def _shares(counts: Sequence[int], num: int) -> list[int]:
    """Divide `num` in proportion to `counts`, taking at least 1 of each and leaving at least 1 of each.

    A count of 1 loses nothing; if `num` cannot be divided like this, the nearest possible number is.
    """
    wanted = np.array(counts) * (num / sum(counts))
    largest = np.array(counts) - 1
    smallest = np.minimum(largest, 1)
    num = int(np.clip(num, smallest.sum(), largest.sum()))
    shares = np.clip(np.floor(wanted).astype(int), smallest, largest)
    while (missing := num - shares.sum()) != 0:
        step = 1 if missing > 0 else -1
        movable = shares < largest if step > 0 else shares > smallest
        shares[np.argmax(np.where(movable, step * (wanted - shares), -np.inf))] += step
    return [int(share) for share in shares]


def cut(labels: NDArray[np.int64], *, classes: Sequence[str], split: SplitName) -> NDArray[np.int64]:
    """Choose the indices of a split of a source without test images: 80 % of each class, or the other 20 % for test.

    At least one image per class is for the test. The choice depends only on the class's name and size, so that
    `digits:0-6+digits:7-9` is cut like `digits`. Raises: UserError if a class has fewer than two images.
    """
    test = np.zeros(len(labels), dtype=bool)
    for label, name in enumerate(classes):
        places = np.flatnonzero(labels == label)
        if len(places) < 2:
            raise UserError(
                f"class {name!r} has {counted(len(places), 'image')} but needs at least two: one to train and one to "
                "test with"
            )
        num_test = max(1, round(TEST_SHARE * len(places)))
        test[_shuffled(places, name, _CUT)[:num_test]] = True
    return np.flatnonzero(test if split == "test" else ~test)


def cut_by_key(
    keys: NDArray[np.uint64],
    labels: NDArray[np.int64],
    *,
    classes: Sequence[str],
    split: SplitName,
    choice: Sequence[str] | None = None,
    is_grouped: bool = False,
) -> NDArray[np.int64]:
    """Choose the indices of a split of a source without test images: 20 % of all keys are for the test.

    Only each image's key decides, so the share of a class is 20 % on average, not exactly. A class without a test image
    gives up its lowest key to the test split, one without a training image its highest key to the training split.
    Raises: SmallClasses that names those with fewer than two different keys; with the `choice` of classes as written
    after the source's path, it says how to leave them out, too, and if keys are those of groups, how to ignore these.
    """
    test = keys < np.uint64(int(TEST_SHARE * 2**64))
    own = [keys[labels == label] for label in range(len(classes))]
    counts = [(name, len(each), len(np.unique(each))) for name, each in zip(classes, own, strict=True)]
    _check_divisible(counts, choice=choice, is_grouped=is_grouped)
    for label, each in enumerate(own):
        if not test[labels == label].any():
            test |= keys == each.min()
        if test[labels == label].all():
            test &= keys != each.max()
    for label, name in enumerate(classes):
        if len(np.unique(test[labels == label])) < 2:
            raise UserError(
                f"the images of class {name!r} cannot be divided into training and test: choose other groups"
            )
    return np.flatnonzero(test if split == "test" else ~test)


def _check_divisible(counts: Sequence[tuple[str, int, int]], *, choice: Sequence[str] | None, is_grouped: bool) -> None:
    """Refuse classes that cannot be divided, given as (name, images, distinct images)."""
    few = [(name, num, distinct) for name, num, distinct in counts if distinct < 2]
    if few:
        words = named(
            [
                f"class {name!r} has {counted(num, 'image')}" + (" (copies, or one group)" if num > 1 else "")
                for name, num, _ in few
            ],
            most=6,
        )
        options = ""
        if choice is not None and len(few) < len(counts):
            options += f", or {advise_leaving_out([name for name, _, _ in few], choice=choice)}"
        if is_grouped and any(num > 1 for _, num, _ in few):
            options += ", or ignore groups with ?group=none"
        raise SmallClasses(
            f"{words}: a class needs at least two different images or groups, one to train and one to test with; add "
            f"some{options}",
            names=[name for name, _, _ in few],
            are_all=len(few) == len(counts),
        )


def limit(
    labels: NDArray[np.int64], *, classes: Sequence[str], num: int, digests: NDArray[np.uint64] | None = None
) -> NDArray[np.int64]:
    """Choose the indices of at most `num` images per class, those with the lowest digests if there are digests.

    A smaller `num` selects a subset.
    """
    chosen = []
    for label, name in enumerate(classes):
        places = np.flatnonzero(labels == label)
        if digests is None:
            order = _shuffled(places, name, _LIMIT)
        else:
            order = places[np.argsort(digests[places], kind="stable")]
        chosen.append(order[:num])
    return np.sort(np.concatenate(chosen))


def _shuffled(places: NDArray[np.int64], name: str, *seed: int) -> NDArray[np.int64]:
    return np.random.default_rng([*seed, zlib.crc32(name.encode(errors="surrogatepass"))]).permutation(places)

"""Seeded choices of images, class by class: a validation set, a test set where none exists, a few of each class."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from reslab.data.images import ImageSet, Split
from reslab.errors import UserError

TEST_SHARE = 0.2
_CUT, _LIMIT, _HOLD_OUT = 0, 1, 2  # each draws its own permutations; fixed: an expression is the same data everywhere


def hold_out(images: ImageSet, num: int, *, seed: int) -> tuple[ImageSet, ImageSet]:
    """Cut `num` images off for validation, each class in proportion; returns (training, validation).

    Which images of a class are held out depends on its name, its size and the seed alone, so more classes
    change nothing, and those of a smaller share are among those of a larger one. A class without images stays so.
    Raises: UserError unless every class that has images can have at least one on both sides.
    """
    counts = {label: count for label, count in enumerate(images.counts()) if count}
    _check_room(counts, num, images.classes)
    labels = images.labels.numpy()
    held = np.zeros(len(labels), dtype=bool)
    for label, share in zip(counts, _shares(list(counts.values()), num), strict=True):
        held[_shuffled(np.flatnonzero(labels == label), images.classes[label], _HOLD_OUT, seed)[:share]] = True
    training, validation = images.subset(np.flatnonzero(~held)), images.subset(np.flatnonzero(held))
    return training, replace(validation, split="validation")


def _check_room(counts: Mapping[int, int], num: int, classes: Sequence[str]) -> None:
    """Refuse to hold out `num` images where a class of `counts` would have none on one side."""
    total = sum(counts.values())
    smallest, largest = len(counts), total - len(counts)
    for label, count in counts.items():
        if count < 2:
            raise UserError(
                f"class {classes[label]!r} has {count} training image, validation and training need one each"
            )
    if not smallest <= num <= largest:
        raise UserError(
            f"validation={num} does not fit {total} training images of {len(counts)} classes: choose {smallest} "
            f"to {largest}, so that each class has an image in validation and one in training, or 0 for none"
        )


def _shares(counts: Sequence[int], num: int) -> list[int]:
    """Share `num` out in proportion to `counts`, at least 1 to each and leaving at least 1 of each."""
    wanted = np.array(counts) * (num / sum(counts))
    largest = np.array(counts) - 1
    shares = np.clip(np.floor(wanted).astype(int), 1, largest)
    while (missing := num - shares.sum()) != 0:
        step = 1 if missing > 0 else -1
        movable = shares < largest if step > 0 else shares > 1
        shares[np.argmax(np.where(movable, step * (wanted - shares), -np.inf))] += step
    return [int(share) for share in shares]


def cut(labels: NDArray[np.int64], *, classes: Sequence[str], split: Split) -> NDArray[np.int64]:
    """Choose the places of a split where a source has no test images of its own: 80 % of each class, or the other 20 %.

    At least one image a class is for the test. The choice depends on the class's name and size alone, so that
    `digits:0-6+digits:7-9` is cut as `digits` is. Raises: UserError where a class has fewer than two images.
    """
    test = np.zeros(len(labels), dtype=bool)
    for label, name in enumerate(classes):
        places = np.flatnonzero(labels == label)
        if len(places) < 2:
            raise UserError(
                f"class {name!r} has {len(places)} image(s), at least two are needed: one to train and one to test with"
            )
        num_test = max(1, round(TEST_SHARE * len(places)))
        test[_shuffled(places, name, _CUT)[:num_test]] = True
    return np.flatnonzero(test if split == "test" else ~test)


def limit(labels: NDArray[np.int64], *, classes: Sequence[str], num: int) -> NDArray[np.int64]:
    """Choose the places of at most `num` images a class; those of a smaller `num` are among them."""
    chosen = [_shuffled(np.flatnonzero(labels == label), name, _LIMIT)[:num] for label, name in enumerate(classes)]
    return np.sort(np.concatenate(chosen))


def _shuffled(places: NDArray[np.int64], name: str, *seed: int) -> NDArray[np.int64]:
    return np.random.default_rng([*seed, zlib.crc32(name.encode(errors="surrogatepass"))]).permutation(places)

"""Seeded choices of images, class by class: a validation set, a test set where none exists, a few of each class."""

import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from reslab.data.spec import ImageSet, Split
from reslab.errors import UserError

TEST_SHARE = 0.2
CUT_SEED, LIMIT_SEED = 0, 1  # fixed: the same expression is the same data everywhere


def hold_out(images: ImageSet, num: int, *, seed: int) -> tuple[ImageSet, ImageSet]:
    """Cut `num` images off for validation, each class in proportion; returns (training, validation).

    Raises: UserError unless every class can have at least one image on both sides.
    """
    counts = images.counts()
    smallest, largest = len(counts), sum(counts) - len(counts)
    if min(counts) < 2:
        name = images.classes[counts.index(min(counts))]
        raise UserError(f"class {name!r} has {min(counts)} training image, validation and training need one each")
    if not smallest <= num <= largest:
        raise UserError(
            f"validation={num} does not fit {sum(counts)} training images of {len(counts)} classes: choose {smallest} "
            f"to {largest}, so that each class has an image in validation and one in training, or 0 for none"
        )
    generator = np.random.default_rng(seed)
    labels = images.labels.numpy()
    held = np.zeros(len(labels), dtype=bool)
    for label, share in enumerate(_shares(counts, num)):
        held[generator.permutation(np.flatnonzero(labels == label))[:share]] = True
    training, validation = images.subset(np.flatnonzero(~held)), images.subset(np.flatnonzero(held))
    return training, replace(validation, split="validation")


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

    At least one image a class is for the test. The choice hangs on the class's name and size alone, so that
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
        test[_shuffled(places, name, CUT_SEED)[:num_test]] = True
    return np.flatnonzero(test if split == "test" else ~test)


def limit(labels: NDArray[np.int64], *, classes: Sequence[str], num: int) -> NDArray[np.int64]:
    """Choose the places of at most `num` images a class; those of a smaller `num` are among them."""
    chosen = [_shuffled(np.flatnonzero(labels == label), name, LIMIT_SEED)[:num] for label, name in enumerate(classes)]
    return np.sort(np.concatenate(chosen))


def _shuffled(places: NDArray[np.int64], name: str, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, zlib.crc32(name.encode(errors="surrogatepass"))]).permutation(places)

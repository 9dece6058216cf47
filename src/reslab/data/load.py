"""From a data expression to images in memory.

Axes: N images, C channels, H rows, W columns, K classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from reslab.data.catalog import OFFICIAL
from reslab.data.cifar import find_data_dir, read_cifar
from reslab.data.digits import read_digits
from reslab.data.folder import read_folder
from reslab.data.npz import read_npz
from reslab.data.select import NamedTerm, Term, check_distinct, parse
from reslab.data.spec import ImageSet, Labelled, Split
from reslab.data.split import limit
from reslab.errors import UserError


def load(expression: str, split: Split, *, data_dir: Path | None = None, image_size: int = 32) -> ImageSet:
    """Read the `train` or `test` split of a data expression, resized to squares of `image_size` pixels.

    Only the files of that split are opened, where a source stores the splits apart. What is missing of CIFAR is
    downloaded to `data_dir`, or $RESLAB_DATA, or the user's cache directory.
    Raises: UserError where the expression or what it names is wrong; Failure where a download is.
    """
    if split not in ("train", "test"):
        raise UserError(f"{split!r} is not a split that is stored: load 'train' or 'test' (hold_out cuts 'validation')")
    parts = [_read_term(term, split, data_dir, image_size) for term in parse(expression)]
    _check(parts, expression, split)
    offsets = np.cumsum([0, *(len(part.classes) for part in parts)])
    return ImageSet(
        images=torch.from_numpy(_join([part.images for part in parts])),
        labels=torch.from_numpy(
            np.concatenate([part.labels + start for part, start in zip(parts, offsets, strict=False)])
        ),
        classes=tuple(name for part in parts for name in part.classes),
        expression=expression,
        split=split,
    )


def _read_term(term: Term, split: Split, data_dir: Path | None, image_size: int) -> Labelled:
    part = _read_source(term, split, data_dir, image_size)
    if isinstance(term, NamedTerm):
        part = _select(part, term.classes)
    if term.limit is not None and split == "train":
        chosen = limit(part.labels, classes=part.classes, num=term.limit)
        part = Labelled(part.images[chosen], part.labels[chosen], part.classes)
    return part._replace(images=_resize(part.images, image_size))


def _read_source(term: Term, split: Split, data_dir: Path | None, image_size: int) -> Labelled:
    match term.source:
        case "digits":
            return read_digits(split=split)
        case "cifar10" | "cifar100" | "cifar100-coarse" as source:
            return read_cifar(OFFICIAL[source], split=split, data_dir=find_data_dir(data_dir))
        case "folder":
            return read_folder(term.path, split=split, image_size=image_size)
        case "npz":
            return read_npz(term.path, split=split)
        case _:
            assert_never(term.source)


def _select(part: Labelled, classes: tuple[str, ...]) -> Labelled:
    """Keep the images of `classes`, numbered in that order; the images stay in theirs."""
    if classes == part.classes:
        return part
    numbers = np.full(len(part.classes), -1, dtype=np.int64)
    numbers[[part.classes.index(name) for name in classes]] = np.arange(len(classes))
    labels = numbers[part.labels]
    return Labelled(part.images[labels >= 0], labels[labels >= 0], classes)


def _resize(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize (N, C, H, W) to (N, C, size, size), bilinear, without aliasing where it shrinks; as Pillow, within 1."""
    if images.shape[2:] == (size, size):
        return images
    resized = F.interpolate(torch.from_numpy(images), size=(size, size), mode="bilinear", antialias=True)
    return resized.contiguous().numpy()


def _join(images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return images[0] if len(images) == 1 else np.concatenate(images)


def _check(parts: list[Labelled], expression: str, split: Split) -> None:
    channels = [part.images.shape[1] for part in parts]
    if len(set(channels)) > 1:
        raise UserError(
            f"{expression!r} joins images of {' and '.join(map(str, channels))} channels: they must have as many"
        )
    classes = [name for part in parts for name in part.classes]
    check_distinct(classes, expression)
    for name in classes:
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            raise UserError(f"the class name {name!r} of {expression!r} is not valid Unicode: rename it")
    if len(classes) < 2:
        raise UserError(f"{expression!r} has one class, {classes[0]!r}: a classifier needs at least two")
    for part in parts:
        for name, count in zip(part.classes, np.bincount(part.labels, minlength=len(part.classes)), strict=True):
            if count == 0:
                raise UserError(f"the class {name!r} of {expression!r} has no images in the {split} split")


@dataclass(frozen=True)
class Description:
    """What an expression resolves to; `image_shape` is (C, H, W), mean and deviation are the training split's."""

    expression: str
    classes: tuple[str, ...]
    image_shape: tuple[int, ...]
    counts: dict[Split, list[int]]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    fingerprints: dict[Split, str]


def describe(expression: str, *, data_dir: Path | None = None, image_size: int = 32) -> Description:
    """Read both splits and sum them up; `dataclasses.asdict` makes JSON of it. Raises: as `load` does."""
    train = load(expression, "train", data_dir=data_dir, image_size=image_size)
    test = load(expression, "test", data_dir=data_dir, image_size=image_size)
    statistics = train.statistics()
    return Description(
        expression=expression,
        classes=train.classes,
        image_shape=tuple(train.images.shape[1:]),
        counts={"train": train.counts(), "test": test.counts()},
        mean=statistics.mean,
        deviation=statistics.deviation,
        fingerprints={"train": train.fingerprint, "test": test.fingerprint},
    )

"""What evaluation leaves of a split for people to look at: a sample of its images, and what was found of them.

Indices (M,) are places in the split. Axes: M chosen images, C channels, H rows, W columns, D features.
"""

from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from reslab.records import SplitName
from reslab.runs.files import read_npz, write_npz, writing


class Gallery(NamedTuple):
    """Images (M, C, H, W) uint8, made smaller where they were large; every other view shows images from here."""

    indices: NDArray[np.int64]
    images: NDArray[np.uint8]


class Features(NamedTuple):
    """What the network hands to its head: features (M, D) float32."""

    indices: NDArray[np.int64]
    features: NDArray[np.float32]


class HeatMaps(NamedTuple):
    """How much each place spoke for the predicted class: maps (M, H, W) uint8, each one's largest value 255."""

    indices: NDArray[np.int64]
    maps: NDArray[np.uint8]


class Doubts(NamedTuple):
    """Labels that look wrong, the least credible first: `credibility` (M,) is the probability of the given label."""

    indices: NDArray[np.int64]
    credibility: NDArray[np.float32]


ViewT = TypeVar("ViewT", Gallery, Features, HeatMaps, Doubts)


def write_view(folder: Path, split: SplitName, view: Gallery | Features | HeatMaps | Doubts) -> None:
    """Write a view of a split into a run folder. Raises: Failure where the disk refuses."""
    write_npz(_path(folder, split, type(view)), view._asdict())


def read_view(folder: Path, split: SplitName, kind: type[ViewT]) -> ViewT | None:
    """Read a view of a split; nothing where there is none. Raises: UserError where the file is damaged."""
    path = _path(folder, split, kind)
    return kind(**read_npz(path, kind._fields)) if path.exists() else None


def drop_view(folder: Path, split: SplitName, kind: type[Any]) -> None:
    """Take away a view that belongs to an evaluation before. Raises: Failure where the disk refuses."""
    path = _path(folder, split, kind)
    writing(path, lambda: path.unlink(missing_ok=True))


def _path(folder: Path, split: SplitName, kind: type[Any]) -> Path:
    return folder / f"{kind.__name__.lower()}-{split}.npz"

"""The gallery of a split, written by evaluation: a sample of images for viewing, and findings about them.

Indices (M,) refer to the split. Axes: M chosen images, C channels, H rows, W columns, D features.
"""

from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from reslab.records import SplitName
from reslab.runs.files import read_npz, write_npz, writing


class GalleryImages(NamedTuple):
    """Images (M, C, H, W) uint8, reduced if they were large; everything shown is among them."""

    indices: NDArray[np.int64]
    images: NDArray[np.uint8]


class Features(NamedTuple):
    """The input of the network's head: features (M, D) float32."""

    indices: NDArray[np.int64]
    features: NDArray[np.float32]


class HeatMaps(NamedTuple):
    """Evidence of each place for the predicted class: maps (M, H, W) uint8, each with a maximum of 255.

    Empty if no layer of the network has spatial extent.
    """

    indices: NDArray[np.int64]
    maps: NDArray[np.uint8]


class Doubts(NamedTuple):
    """Suspicious labels, the least credible first: `credibility` (M,) is the probability of the given label."""

    indices: NDArray[np.int64]
    credibility: NDArray[np.float32]


class Copies(NamedTuple):
    """Images of the split that have a copy, exact or near, among the training images."""

    indices: NDArray[np.int64]


class InSeries(NamedTuple):
    """Images of the split taken within seconds of a training image, which may show the same scene."""

    indices: NDArray[np.int64]


class Familiarities(NamedTuple):
    """Similarity of each image of the split to the training images: (N,) float32 in (0, 1]."""

    familiarity: NDArray[np.float32]


# Published test sets have on average 3.3 % wrong labels (Northcutt et al. 2021, arXiv:2103.14749): for a network with a
# lower accuracy than this, at most one doubt in six would be right.
GOOD_ENOUGH = 0.8  # accuracy, to doubt a label
NUM_DOUBTS = 36  # of the least credible labels, whose images are kept and shown


Exhibit = GalleryImages | Features | HeatMaps | Doubts | Copies | InSeries | Familiarities
ExhibitT = TypeVar("ExhibitT", GalleryImages, Features, HeatMaps, Doubts, Copies, InSeries, Familiarities)
FILES: dict[type[Exhibit], str] = {
    GalleryImages: "gallery",
    Features: "features",
    HeatMaps: "heatmaps",
    Doubts: "doubts",
    Copies: "copies",
    InSeries: "series",
    Familiarities: "familiarity",
}


def write_exhibit(folder: Path, split: SplitName, exhibit: Exhibit) -> None:
    """Write a part of a split's gallery into a run folder. Raises: Failure if it cannot be written."""
    write_npz(_path(folder, split, type(exhibit)), exhibit._asdict())


def read_exhibit(folder: Path, split: SplitName, kind: type[ExhibitT]) -> ExhibitT | None:
    """Read a part of a split's gallery; None if there is none. Raises: UserError if the file is damaged."""
    path = _path(folder, split, kind)
    return kind(**read_npz(path, kind._fields)) if path.exists() else None


def drop_exhibit(folder: Path, split: SplitName, kind: type[Exhibit]) -> None:
    """Remove a part left by an earlier evaluation. Raises: Failure if it cannot be removed."""
    path = _path(folder, split, kind)
    writing(path, lambda: path.unlink(missing_ok=True))


def _path(folder: Path, split: SplitName, kind: type[Exhibit]) -> Path:
    return folder / f"{FILES[kind]}-{split}.npz"

"""The gallery that evaluation left, read and checked against the predictions that it was made from.

Axes: N images of a split, M images of its gallery, C channels, H rows, W columns, K classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reslab.errors import UserError, in_shell
from reslab.measure.metrics import softmax
from reslab.records import SPLITS, Evaluation, SplitName
from reslab.runs import Copies, Doubts, Features, GalleryImages, HeatMaps, Predictions, Run, read_exhibit

TOP = 3  # classes named next to an image


@dataclass(frozen=True)
class Shown:
    """The images of a split that can be shown, with the network's answer to each; all arrays have M rows."""

    indices: NDArray[np.int64]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @property
    def predicted(self) -> NDArray[np.int64]:
        labels: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return labels

    @property
    def answers(self) -> list[list[tuple[int, float]]]:
        """The most probable classes of each image with probabilities, and the true one if it is not among them."""
        best = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :TOP].tolist()
        rows = [
            places if label in places else [*places, label] for places, label in zip(best, self.labels, strict=True)
        ]
        return [
            [(int(k), round(float(row[k]), 4)) for k in places]
            for places, row in zip(rows, self.probabilities, strict=True)
        ]

    def places(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Find images of the split in the gallery. Raises: UserError if one is not there."""
        places = np.searchsorted(self.indices, indices).clip(max=len(self.indices) - 1)
        if not len(self.indices) or not np.array_equal(self.indices[places], indices):
            raise UserError("the images to be shown are those of another evaluation: run reslab evaluate again")
        return places


@dataclass(frozen=True)
class Gallery:
    """Everything in the gallery; the last four are of the test split, and None if evaluation left none."""

    shown: dict[SplitName, Shown]
    features: Features | None
    heat_maps: HeatMaps | None
    doubts: Doubts | None
    copies: Copies | None


def read_gallery(run: Run, evaluation: Evaluation) -> Gallery:
    """Read the gallery of the evaluated splits.

    Raises: UserError if a file is damaged or belongs to another evaluation.
    """
    shown = {}
    for split in (name for name in SPLITS if name in evaluation.splits):
        images = read_exhibit(run.path, split, GalleryImages)
        if images is not None:
            shown[split] = _show(run, images, run.read_predictions(split))
    copies = read_exhibit(run.path, "test", Copies)
    if "test" not in shown:
        return Gallery(shown, None, None, None, copies)
    features, maps, doubts = (
        read_exhibit(run.path, "test", Features),
        read_exhibit(run.path, "test", HeatMaps),
        read_exhibit(run.path, "test", Doubts),
    )
    for exhibit, axes in ((features, 2), (maps, 3), (doubts, 1)):
        _check(run, exhibit is None or (len(exhibit[0]) == len(exhibit[1]) and exhibit[1].ndim == axes))
    return Gallery(shown, features, maps, doubts, copies)


def _show(run: Run, kept: GalleryImages, predictions: Predictions) -> Shown:
    indices, images = kept
    num_images = len(predictions.labels)
    _check(run, images.ndim == 4 and indices.shape == images.shape[:1])
    _check(run, bool(((indices >= 0) & (indices < num_images)).all()) and bool((np.diff(indices) > 0).all()))
    return Shown(indices, images, predictions.labels[indices], softmax(predictions.logits[indices]).astype(np.float64))


def _check(run: Run, fits: bool) -> None:
    if not fits:
        raise UserError(
            f"{run.path} holds files of different evaluations: run reslab evaluate {in_shell(run.path)} again"
        )

"""Mistakes, doubtful labels and copies as CSV files, ready for a spreadsheet: file, label, prediction, probability."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reslab.measure.metrics import confident_mistakes, softmax
from reslab.report.inputs import Inputs
from reslab.runs.files import to_csv

HEADER = ("file", "label", "prediction", "probability")


def mistakes_csv(inputs: Inputs) -> bytes:
    """List all misclassified test images, the most confident first."""
    logits, labels = inputs.predictions
    return _table(inputs, confident_mistakes(logits, labels, limit=None))


def doubts_csv(inputs: Inputs) -> bytes | None:
    """List all test images whose label looks wrong, the least credible first; None if evaluation did not look."""
    doubts = inputs.gallery.doubts
    return None if doubts is None else _table(inputs, doubts.indices)


def copies_csv(inputs: Inputs) -> bytes | None:
    """List all test images with a copy among the training images; None if evaluation did not look."""
    copies = inputs.gallery.copies
    return None if copies is None else _table(inputs, copies.indices)


def _table(inputs: Inputs, indices: NDArray[np.int64]) -> bytes:
    logits, labels = inputs.predictions
    probabilities = softmax(logits[indices])
    rows = [
        _row(inputs, index, row, int(labels[index])) for index, row in zip(indices.tolist(), probabilities, strict=True)
    ]
    return to_csv(HEADER, rows)


def _row(inputs: Inputs, index: int, probabilities: NDArray[np.floating], label: int) -> Sequence[str]:
    answer = int(probabilities.argmax())
    classes = inputs.evaluation.classes
    file = inputs.file_of(index) or f"test image {index}"
    return file, classes[label], classes[answer], f"{probabilities[answer]:.4f}"

"""Check the promises on test images: the coverage of sets of classes, and the share answered.

Axes: N images, K classes.
"""

import numpy as np

from reslab.data.pictures import ANSWERED, is_answered
from reslab.measure.class_sets import members
from reslab.measure.estimates import proportions, share_of
from reslab.measure.metrics import Answers, softmax
from reslab.records import AnsweredFigures, ClassSets, Estimate, SetFigures
from reslab.runs import Familiarities, Predictions

PROMISED = (0.9, 0.95, 0.99)  # coverages to measure, if enough images were held out for them


def measure_class_sets(predictions: Predictions, known: ClassSets | None) -> tuple[SetFigures, ...]:
    """Measure how often sets of classes contain the true class, and how large they are."""
    thresholds = dict(known.thresholds) if known else {}
    return tuple(
        _measure_sets(predictions, coverage, thresholds[coverage]) for coverage in PROMISED if coverage in thresholds
    )


def _measure_sets(predictions: Predictions, coverage: float, threshold: float) -> SetFigures:
    logits, labels = predictions
    within = members(softmax(logits), threshold=threshold)
    held, size = within[np.arange(len(labels)), labels], within.sum(axis=1)
    num_classes = logits.shape[1]
    of_class = np.bincount(labels, minlength=num_classes)
    return SetFigures(
        promised=coverage,
        covered=share_of(held),
        size=float(size.mean()),
        single=float((size == 1).mean()),
        per_class=tuple(proportions(np.bincount(labels, held, minlength=num_classes), total=of_class)),
    )


def measure_answered(predictions: Predictions, known: Familiarities) -> AnsweredFigures:
    """Measure the share of images answered, and the accuracy of the answers and of the guesses for the others."""
    right = predictions.logits.argmax(axis=1) == predictions.labels
    answered = np.array([is_answered(each) for each in known.familiarity], dtype=bool)
    return AnsweredFigures(
        promised=ANSWERED,
        answered=share_of(answered),
        accuracy=_accuracy(right[answered]),
        accuracy_of_others=_accuracy(right[~answered]),
    )


def _accuracy(right: Answers) -> Estimate | None:
    return share_of(right) if len(right) else None

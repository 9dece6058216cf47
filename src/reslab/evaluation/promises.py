"""Check the promises on test images: the coverage of sets of classes, and the share answered.

Axes: N images, K classes.
"""

import math

import numpy as np
from scipy.stats import betabinom

from reslab.data.pictures import ANSWERED, TOLERANCE, is_answered
from reslab.measure.class_sets import members
from reslab.measure.estimates import proportions, share_of
from reslab.measure.metrics import CONFIDENCE, Answers, softmax
from reslab.records import AnsweredFigures, ClassSets, Estimate, SetFigures
from reslab.runs import Familiarities, Predictions

PROMISED = (0.9, 0.95, 0.99)  # coverages to measure, if enough images were held out for them


def least_share(promised: float, *, num_held_out: int, num_images: int) -> float:
    """Return the share of test images below which 2.5 % of kept promises measure.

    A quantile of few held-out images keeps more or less than was promised, as chance has it, and as often more as less:
    what it keeps follows a beta distribution (Angelopoulos and Bates 2021, arXiv:2107.07511, section 3.2), and what of
    that test images show a beta-binomial one.
    """
    num_beyond = max(1, math.floor((num_held_out + 1) * (1 - promised) + TOLERANCE))
    kept = betabinom(num_images, num_held_out + 1 - num_beyond, num_beyond)
    return float(kept.ppf((1 - CONFIDENCE) / 2) / num_images)


def measure_class_sets(predictions: Predictions, known: ClassSets | None) -> tuple[SetFigures, ...]:
    """Measure how often sets of classes contain the true class, and how large they are."""
    thresholds = dict(known.thresholds) if known else {}
    return tuple(
        _measure_sets(predictions, coverage, thresholds[coverage], known.num_images)
        for coverage in PROMISED
        if known and coverage in thresholds
    )


def _measure_sets(predictions: Predictions, coverage: float, threshold: float, num_held_out: int) -> SetFigures:
    logits, labels = predictions
    within = members(softmax(logits), threshold=threshold)
    held, size = within[np.arange(len(labels)), labels], within.sum(axis=1)
    num_classes = logits.shape[1]
    of_class = np.bincount(labels, minlength=num_classes)
    return SetFigures(
        promised=coverage,
        least=least_share(coverage, num_held_out=num_held_out, num_images=len(labels)),
        covered=share_of(held),
        size=float(size.mean()),
        single=float((size == 1).mean()),
        per_class=tuple(proportions(np.bincount(labels, held, minlength=num_classes), total=of_class)),
    )


def measure_answered(
    predictions: Predictions, known: Familiarities, *, num_held_out: int | None = None
) -> AnsweredFigures:
    """Measure the share of images answered, and the accuracy of the answers and of the guesses for the others."""
    right = predictions.logits.argmax(axis=1) == predictions.labels
    answered = np.array([is_answered(each) for each in known.familiarity], dtype=bool)
    return AnsweredFigures(
        promised=ANSWERED,
        least=num_held_out and least_share(ANSWERED, num_held_out=num_held_out, num_images=len(right)),
        answered=share_of(answered),
        accuracy=_accuracy(right[answered]),
        accuracy_of_others=_accuracy(right[~answered]),
    )


def _accuracy(right: Answers) -> Estimate | None:
    return share_of(right) if len(right) else None

"""Metrics from logits and labels; NumPy only, no files. Their intervals are in `intervals`.

Source: the definitions are scikit-learn's with `zero_division=0`: macro averages run over all K classes, balanced
accuracy over those that have images. Calibration: Guo et al. 2017, arXiv:1706.04599, bins closed above.
Differs from it: log loss comes from the logits and is never clipped; ties go to the lower class, as in `argmax`.
Axes: N images, K classes; `...` stands for any leading axes.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Logits = NDArray[np.floating[Any]]
Answers = NDArray[np.bool_]  # per image: right or wrong

CONFIDENCE = 0.95
CALIBRATION_BINS = 15
EXACT_BELOW = 25  # discordant pairs


# ---- metrics of a confusion matrix


class MatrixFigures(NamedTuple):
    """Fractions of confusion matrices (..., K, K): one per matrix (...), the last three one per class (..., K)."""

    accuracy: Floats
    balanced_accuracy: Floats
    macro_precision: Floats
    macro_recall: Floats
    macro_f1: Floats
    precision: Floats
    recall: Floats
    f1: Floats


def confusion_matrix(labels: Integers, *, predicted: Integers, num_classes: int) -> Integers:
    """Count the images (N,) of each true class (row) and predicted class (column): (K, K)."""
    cells = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def matrix_figures(matrices: Integers | Floats) -> MatrixFigures:
    """Return the fractions of confusion matrices (..., K, K); a matrix without images has 0 throughout."""
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    actual, predicted = matrices.sum(-1), matrices.sum(-2)
    precision, recall = ratio(hits, predicted), ratio(hits, actual)
    f1 = ratio(2 * hits, actual + predicted)
    return MatrixFigures(
        accuracy=ratio(hits.sum(-1), actual.sum(-1)),
        balanced_accuracy=ratio(recall.sum(-1), (actual > 0).sum(-1)),
        macro_precision=precision.mean(-1),
        macro_recall=recall.mean(-1),
        macro_f1=f1.mean(-1),
        precision=precision,
        recall=recall,
        f1=f1,
    )


def ratio(parts: NDArray[Any], wholes: NDArray[Any]) -> Floats:
    """Divide counts (...); division by 0 gives 0."""
    quotient: Floats = np.divide(parts, wholes, out=np.zeros(np.shape(wholes)), where=wholes > 0)
    return quotient


# ---- metrics of probabilities


class ProbabilityFigures(NamedTuple):
    """Log loss in nats and expected calibration error in [0, 1], each (...)."""

    log_loss: Floats
    expected_calibration_error: Floats


def log_softmax(logits: Logits) -> Floats:
    """Return the logarithms of the probabilities (N, K) in double precision, for logits of any size."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def softmax(logits: Logits) -> Floats:
    """Return the probabilities (N, K); each row sums to 1."""
    return np.exp(log_softmax(logits))


def log_loss(logits: Logits, labels: Integers) -> float:
    """Return the mean negative logarithm of the probabilities that logits (N, K) give to the labels (N,)."""
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


def bins_of(confidence: Floats) -> Integers:
    """Number the bins, from 1, that the largest probabilities (N,) fall into."""
    return np.ceil(confidence * CALIBRATION_BINS).astype(np.int64)


def image_terms(logits: Logits, *, labels: Integers) -> Floats:
    """Return each image's contribution to the metrics of probabilities: (N, 1 + bins).

    First its log loss; then, in the column of the bin that its largest probability falls into, that probability, minus
    1 if the image is classified correctly; the other columns are 0.
    """
    log_probabilities = log_softmax(logits)
    images = np.arange(len(labels))
    confidence = np.exp(log_probabilities.max(axis=1))
    bins = bins_of(confidence)
    terms = np.zeros((len(labels), 1 + CALIBRATION_BINS))
    terms[:, 0] = np.abs(log_probabilities[images, labels])
    terms[images, bins] = confidence - (logits.argmax(axis=1) == labels)
    return terms


def probability_figures(means: Floats) -> ProbabilityFigures:
    """Compute the metrics from the means over images (..., 1 + bins) of `image_terms`."""
    return ProbabilityFigures(means[..., 0], np.abs(means[..., 1:]).sum(-1))


def calibrated_errors(logits: Logits, *, resamples: int, generator: np.random.Generator) -> Floats:
    """Draw calibration errors (R,) that exact probabilities would show on as many images: noise that counts as error.

    In each bin, the number of correct answers is binomial with the mean probability of its images (Bröcker and Smith
    2007, "Increasing the Reliability of Reliability Diagrams").
    """
    confidence = np.exp(log_softmax(logits).max(axis=1))
    bins = bins_of(confidence)
    counts = np.bincount(bins, minlength=1 + CALIBRATION_BINS)
    expected = np.bincount(bins, confidence, minlength=1 + CALIBRATION_BINS)
    drawn = generator.binomial(counts, ratio(expected, counts).clip(0, 1), size=(resamples, len(counts)))
    return np.asarray(np.abs(drawn - expected).sum(axis=1) / len(logits))


def unseen_error(logits: Logits) -> Floats:
    """Return the `image_terms` (1 + bins,) of an image that is wrong as confidently as these (N, K) are on average.

    Its label is taken to be the second most probable class.
    """
    runner_up = np.argsort(-logits, axis=1, kind="stable")[:, 1]
    return np.asarray(image_terms(logits, labels=runner_up).mean(axis=0))


def top_k_hits(logits: Logits, *, labels: Integers, k: int) -> Answers:
    """Tell for each image (N,) whether its label is among the k classes with the largest logits."""
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    lower = np.arange(logits.shape[1]) < labels[:, None]
    num_before = ((logits > own) | ((logits == own) & lower)).sum(axis=1)
    hits: Answers = num_before < k
    return hits


def confident_mistakes(logits: Logits, labels: Integers, *, limit: int | None = 1000) -> Integers:
    """Find the misclassified images (M,) of logits (N, K), M at most `limit`, the most confident first.

    The confidence is the probability of the wrong class; ties keep the order of the split.
    """
    wrong = np.flatnonzero(logits.argmax(axis=1) != labels)
    certainty = softmax(logits[wrong]).max(axis=1)
    return wrong[np.argsort(-certainty, kind="stable")[:limit]]


# ---- two classifiers on the same images


@dataclass(frozen=True)
class McNemar:
    """Images that only the first and only the second classified correctly, and the two-sided p value."""

    only_first: int
    only_second: int
    p_value: float


def mcnemar(labels: Integers, *, first: Integers, second: Integers) -> McNemar:
    """Test whether two sets of predictions (N,) on the same images have the same accuracy.

    With fewer than 25 discordant pairs, exactly: the smaller count is binomial with probability 1/2, and the p value is
    twice its lower tail, at most 1. Otherwise (|a - b| - 1)² / (a + b), not below 0, is chi-square with one degree of
    freedom (Edwards' continuity correction).
    """
    only_first = int(((first == labels) & (second != labels)).sum())
    only_second = int(((first != labels) & (second == labels)).sum())
    discordant = only_first + only_second
    if discordant < EXACT_BELOW:
        tail = sum(math.comb(discordant, count) for count in range(min(only_first, only_second) + 1))
        p_value = min(1.0, 2 * tail / 2**discordant)
    else:
        difference = max(0, abs(only_first - only_second) - 1)
        p_value = math.erfc(difference / math.sqrt(2 * discordant))
    return McNemar(only_first, only_second, p_value)

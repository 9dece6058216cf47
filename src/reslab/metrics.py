"""Logits and labels to numbers with their intervals; NumPy only, no files.

Source: the definitions are scikit-learn's with `zero_division=0`: macro averages run over all K classes, balanced
accuracy over those that have images. Calibration: Guo et al. 2017, arXiv:1706.04599, bins closed above. Intervals:
Wilson 1927 for proportions, Efron's percentile bootstrap for the rest.
Differs from it: log loss comes from the logits and is never clipped; ties go to the lower class, as in `argmax`.
Axes: N images, K classes, R resamples; `...` stands for any leading axes.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Logits = NDArray[np.floating[Any]]
Answers = NDArray[np.bool_]  # of images: right or wrong

CONFIDENCE = 0.95
CALIBRATION_BINS = 15
EXACT_BELOW = 25  # discordant pairs
_BATCH = 8_000_000  # numbers held at once while matrices are resampled


# ---- figures that a confusion matrix decides


class MatrixFigures(NamedTuple):
    """Fractions of confusion matrices (..., K, K): one a matrix (...), the last three one a class (..., K)."""

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


def matrix_figures(matrices: Integers) -> MatrixFigures:
    """Give the fractions of confusion matrices (..., K, K); one without any image has 0 throughout."""
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


def resample_matrix(matrix: Integers, *, resamples: int, generator: np.random.Generator) -> MatrixFigures:
    """Bootstrap a confusion matrix (K, K) with at least one image: its figures with a leading axis R.

    Images drawn with replacement fill the cells as a multinomial draw does, so that no image need be drawn.
    """
    cells = np.flatnonzero(matrix)
    counts = matrix.ravel()[cells]
    most = max(1, _BATCH // matrix.size)
    batches = []
    for start in range(0, resamples, most):
        size = min(most, resamples - start)
        drawn = np.zeros((size, matrix.size), np.int64)
        drawn[:, cells] = generator.multinomial(counts.sum(), counts / counts.sum(), size=size)
        batches.append(matrix_figures(drawn.reshape(size, *matrix.shape)))
    return MatrixFigures(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))


def ratio(parts: NDArray[Any], wholes: NDArray[Any]) -> Floats:
    """Divide counts (...), with 0 where there is nothing to divide by."""
    quotient: Floats = np.divide(parts, wholes, out=np.zeros(np.shape(wholes)), where=wholes > 0)
    return quotient


# ---- figures that need the probabilities


class ProbabilityFigures(NamedTuple):
    """Log loss in nats and expected calibration error in [0, 1], each (...)."""

    log_loss: Floats
    expected_calibration_error: Floats


def log_softmax(logits: Logits) -> Floats:
    """Give the logarithms of the probabilities (N, K) in double precision, for logits of any size."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def softmax(logits: Logits) -> Floats:
    """Give the probabilities (N, K); each row sums to 1."""
    return np.exp(log_softmax(logits))


def image_terms(logits: Logits, *, labels: Integers) -> Floats:
    """Give each image's part in the probability figures: (N, 1 + bins).

    First its log loss; then, in the column of the bin that its largest probability falls into and 0 elsewhere, that
    probability less 1 where the image is classified correctly.
    """
    log_probabilities = log_softmax(logits)
    images = np.arange(len(labels))
    confidence = np.exp(log_probabilities.max(axis=1))
    bins = np.ceil(confidence * CALIBRATION_BINS).astype(np.int64)
    terms = np.zeros((len(labels), 1 + CALIBRATION_BINS))
    terms[:, 0] = np.abs(log_probabilities[images, labels])
    terms[images, bins] = confidence - (logits.argmax(axis=1) == labels)
    return terms


def probability_figures(means: Floats) -> ProbabilityFigures:
    """Give the figures of the means over images (..., 1 + bins) of `image_terms`."""
    return ProbabilityFigures(means[..., 0], np.abs(means[..., 1:]).sum(-1))


def resample_terms(terms: Floats, *, resamples: int, generator: np.random.Generator) -> ProbabilityFigures:
    """Bootstrap `image_terms` (N, 1 + bins): the figures (R,) of images drawn with replacement.

    The calibration error of a resample is on average larger than that of the sample, because the noise of each bin
    counts as error: where a network is calibrated well, its interval lies too high and leaves out 0.
    """
    num = len(terms)
    times_drawn = (np.bincount(generator.integers(num, size=num), minlength=num) for _ in range(resamples))
    return probability_figures(np.stack([times @ terms for times in times_drawn]) / num)


def top_k_hits(logits: Logits, *, labels: Integers, k: int) -> Answers:
    """Tell for each image (N,) whether its label is among the k classes of the largest logits."""
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    lower = np.arange(logits.shape[1]) < labels[:, None]
    num_before = ((logits > own) | ((logits == own) & lower)).sum(axis=1)
    hits: Answers = num_before < k
    return hits


# ---- intervals


class Interval(NamedTuple):
    """The ends of confidence intervals, each (...)."""

    low: Floats
    high: Floats


def wilson_interval(successes: NDArray[Any], *, total: NDArray[Any], confidence: float = CONFIDENCE) -> Interval:
    """Give Wilson's score interval, without continuity correction, of proportions (...); 0 to 1 where total is 0."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = ratio(successes, total)
    centre = successes + z**2 / 2
    half = z * np.sqrt(successes * (1 - share) + z**2 / 4)
    # The ends enclose the share exactly; without the bounds rounding would leave 1e-17 at a share of 0 or 1.
    low = np.clip((centre - half) / (total + z**2), 0, share)
    high = np.clip((centre + half) / (total + z**2), share, 1)
    return Interval(low, np.where(total > 0, high, 1.0))


def percentile_interval(samples: Floats, *, values: Floats, confidence: float = CONFIDENCE) -> Interval:
    """Give the interval between the quantiles of bootstrap samples (R, ...) that leaves equal tails.

    It is stretched to hold the figures (...) themselves, which a biased bootstrap can miss (`resample_terms`).
    """
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return Interval(np.minimum(low, values), np.maximum(high, values))


# ---- two classifiers on the same images


@dataclass(frozen=True)
class McNemar:
    """Images that only the first and only the second classified correctly, and the two-sided p value."""

    only_first: int
    only_second: int
    p_value: float


def mcnemar(labels: Integers, *, first: Integers, second: Integers) -> McNemar:
    """Test whether two sets of predictions (N,) on the same images have the same accuracy.

    With fewer than 25 discordant pairs exactly: the smaller count is binomial with probability 1/2, and the p value is
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


def resample_gain(before: Answers, *, after: Answers, resamples: int, generator: np.random.Generator) -> Floats:
    """Bootstrap the gain in accuracy from one answer to each image (N,) to another: (R,).

    An image is drawn with both of its answers, so that what they share does not widen the interval.
    """
    num = len(before)
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    drawn = generator.multinomial(num, [gained / num, lost / num, 1 - (gained + lost) / num], size=resamples)
    gains: Floats = (drawn[:, 0] - drawn[:, 1]) / num
    return gains


def macro_f1_difference(
    labels: Integers,
    *,
    first: Integers,
    second: Integers,
    num_classes: int,
    resamples: int,
    generator: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Give the macro F1 of the first predictions (N,) less that of the second, (), and its bootstrap samples (R,).

    An image is drawn with both predictions, as in `resample_gain`.
    """
    answers, counts = np.unique(np.stack([labels, first, second]), axis=1, return_counts=True)
    cells = answers[0] * num_classes + answers[1:]

    def difference(counts: Integers) -> Floats:
        matrices = np.stack([np.bincount(each, counts, num_classes**2) for each in cells]).astype(np.int64)
        ours, theirs = matrix_figures(matrices.reshape(2, num_classes, num_classes)).macro_f1
        return np.asarray(ours - theirs)

    drawn = (generator.multinomial(len(labels), counts / len(labels)) for _ in range(resamples))
    return difference(counts), np.stack([difference(times) for times in drawn])

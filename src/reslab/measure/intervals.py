"""Confidence intervals that remain valid with few errors or none.

Proportions: Jeffreys' interval; with at most one hit or miss, the end next to 0 or 1 is that of Clopper and Pearson
(after Brown, Cai and DasGupta 2001, "Interval estimation for a binomial proportion", their modified Jeffreys interval).
Macro averages: the same for the number of independent images that would vary as much (Korn and Graubard 1998,
"Confidence intervals for proportions with small expected number of positive counts"). A mean recall over classes of
which one is rare: also that of Zou, Huang and Zhang 2009, "A note on confidence interval estimation for a linear
function of binomial proportions". A gain in accuracy: Tango 1998, "Equivalence test and confidence interval for the
difference in proportions for the paired-sample design". Log loss and calibration error: Rubin 1981, "The Bayesian
bootstrap".
Differs from them: Brown, Cai and DasGupta end the interval at 1 after a single miss, though the miss excludes 1.
Variances and the bootstrap count a fraction of an unseen error, since otherwise no errors would mean no uncertainty.
Axes: N images, K classes, R resamples; `...` stands for any leading axes.
"""

from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from reslab.measure.metrics import CONFIDENCE, Floats, Integers, ProbabilityFigures, matrix_figures, probability_figures

HALVINGS = 60  # bisection steps for each end of Tango's interval
TINY = 1e-9
RARE = 100  # images; a class with fewer, and fewer than half of the mean over all classes, is rare
Macro = Literal["accuracy", "precision", "recall", "f1"]


class Interval(NamedTuple):
    """The ends of confidence intervals, each (...)."""

    low: Floats
    high: Floats


# ---- proportions


def proportion_interval(successes: NDArray[Any], *, total: NDArray[Any]) -> Interval:
    """Return the modified Jeffreys interval of proportions (...) of counts, whole or not; 0 to 1 where total is 0."""
    tail = (1 - CONFIDENCE) / 2
    total = np.maximum(np.asarray(total, np.float64), TINY)  # without images, any share is possible
    hits = np.minimum(successes, total)
    misses = total - hits
    low, high = betaincinv(hits + 0.5, misses + 0.5, tail), betaincinv(hits + 0.5, misses + 0.5, 1 - tail)
    # Clopper and Pearson's ends; the tiny number only avoids a parameter of 0, whose end is 0 or 1.
    exact_low = betaincinv(np.maximum(hits, TINY), misses + 1, tail)
    exact_high = betaincinv(hits + 1, np.maximum(misses, TINY), 1 - tail)
    low = np.select([misses == 0, hits <= 1], [tail ** (1 / total), exact_low], low)
    high = np.select([hits == 0, misses <= 1], [1 - tail ** (1 / total), exact_high], high)
    share = hits / total
    return Interval(np.minimum(low, share), np.maximum(high, share))


def f1_interval(hits: NDArray[Any], *, errors: NDArray[Any]) -> Interval:
    """Return the interval of F1 (...): 2 s / (1 + s), where s is the share of hits among hits and all errors."""
    ends = proportion_interval(hits, total=hits + errors)
    return Interval(*(2 * end / (1 + end) for end in ends))


# ---- metrics of a whole confusion matrix


def macro_interval(
    matrix: Integers, *, figure: Macro, over: slice | Integers = slice(None), weights: Floats | None = None
) -> Interval:
    """Return the interval of a metric, or of its mean over the classes `over`, of a confusion matrix (K, K).

    `weights` (K,) are how much an image of each true class counts. A mean recall leaves out classes without images.
    """
    num_classes, num_images = len(matrix), matrix.sum()
    weights = np.ones(num_classes) if weights is None else weights
    # Half an error for each class, spread over the others, and half a correct image.
    unseen = np.full((num_classes, num_classes), 0.5 / (num_classes - 1))
    np.fill_diagonal(unseen, 0.5)
    smooth = matrix + unseen
    share = np.zeros(num_classes)
    share[over] = matrix.sum(axis=1)[over] > 0 if figure == "recall" else 1
    share /= max(1, share.sum())
    mean, slope = _mean_and_slope(smooth * weights[:, None], figure=figure, share=share)
    variance = (smooth * (weights[:, None] * slope) ** 2).sum() * smooth.sum() / num_images
    alike = mean * (1 - mean) / variance  # the number of independent images that vary as much
    value = _mean_and_slope(np.asarray(matrix * weights[:, None], np.float64), figure=figure, share=share)[0]
    found = proportion_interval(value * alike, total=alike)
    present = share > 0
    return (
        _widen_if_rare(found, matrix.diagonal()[present], supports=matrix.sum(axis=1)[present])
        if figure == "recall"
        else found
    )


def _widen_if_rare(interval: Interval, hits: Integers, *, supports: Integers) -> Interval:
    """Widen the interval of a mean recall if a class is rare; hits and supports are those of each class (K,).

    Of few images, the variance is known too badly: they may all be right by chance. Zou, Huang and Zhang add the
    squared distances from each recall to the ends of its own interval.
    """
    num = len(supports)
    if not (supports < min(RARE, supports.sum() / max(1, num) / 2)).any():
        return interval
    recall = hits / supports
    low, high = proportion_interval(hits, total=supports)
    return Interval(
        np.minimum(interval.low, recall.mean() - np.linalg.norm(recall - low) / num),
        np.maximum(interval.high, recall.mean() + np.linalg.norm(high - recall) / num),
    )


def _mean_and_slope(matrix: Floats, *, figure: Macro, share: Floats) -> tuple[Floats, Floats]:
    """Return the mean over classes, weighted by `share` (K,), and its derivative by every cell (K, K)."""
    figures, same = matrix_figures(matrix), np.eye(len(matrix))
    actual, predicted = (np.maximum(matrix.sum(axis), 1e-9) for axis in (1, 0))
    match figure:
        case "accuracy":
            return figures.accuracy, (same - figures.accuracy) / matrix.sum()
        case "recall":
            slope = (share / actual)[:, None] * (same - figures.recall[:, None])
        case "precision":
            slope = (share / predicted) * (same - figures.precision)
        case "f1":
            each = share / (actual + predicted)
            slope = 2 * same * each - (each * figures.f1)[:, None] - each * figures.f1
    return np.asarray((share * getattr(figures, figure)).sum()), slope


# ---- two classifiers on the same images


def gain_interval(gained: int, *, lost: int, total: int) -> Interval:
    """Return Tango's score interval of the gain in accuracy, of `gained` and `lost` images among `total`."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)

    def is_possible(gain: float) -> bool:
        """Tell whether a gain is compatible with the counts, by its score test."""
        linear = (2 * total - gained + lost) * gain - gained - lost
        root = linear**2 + 8 * total * lost * gain * (1 - gain)
        share_lost = (np.sqrt(max(0.0, root)) - linear) / (4 * total)  # most likely, given the gain
        variance = total * (2 * share_lost + gain * (1 - gain))
        return bool((gained - lost - total * gain) ** 2 <= z**2 * variance)

    def end(outside: float) -> Floats:
        inside = (gained - lost) / total
        if is_possible(outside):
            return np.asarray(outside)
        for _ in range(HALVINGS):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if is_possible(middle) else (inside, middle)
        return np.asarray(inside)

    return Interval(end(-1.0), end(1.0))


def difference_interval(first: Interval, second: Interval, *, values: tuple[float, float]) -> Interval:
    """Return Newcombe's interval of `values[1] - values[0]`, two independent metrics with intervals of their own.

    Source: Newcombe 1998, Statistics in Medicine 17:873, method 10.
    """
    difference = values[1] - values[0]
    below = np.hypot(values[1] - second.low, first.high - values[0])
    above = np.hypot(second.high - values[1], values[0] - first.low)
    return Interval(difference - below, difference + above)


def macro_f1_difference(
    labels: Integers, *, first: Integers, second: Integers, num_classes: int
) -> tuple[Floats, Interval]:
    """Return the macro F1 of the first predictions (N,) minus that of the second, (), with its paired interval.

    Each image counts with both predictions, so that shared errors do not widen the interval. As in Bonett and Price
    2012, "Adjusted Wald confidence interval for a difference of binomial proportions based on paired data", one extra
    image is right only for the first and one only for the second, here spread over all classes.
    """
    answers, counts = np.unique(np.stack([labels, first, second]), axis=1, return_counts=True)
    classes = np.arange(num_classes)
    wrong = (classes + 1) % num_classes
    unseen = np.concatenate([[classes, classes, wrong], [classes, wrong, classes]], axis=1)
    images = np.concatenate([answers, unseen], axis=1)
    weights = np.concatenate([counts, np.full(2 * num_classes, 1 / num_classes)])

    def measure(weights: Floats) -> tuple[Floats, Floats]:
        share = np.full(num_classes, 1 / num_classes)
        cells = [images[0] * num_classes + predicted for predicted in images[1:]]
        matrices = [
            np.bincount(each, weights, num_classes**2).astype(np.float64).reshape(num_classes, num_classes)
            for each in cells
        ]
        (one, slope), (other, other_slope) = (_mean_and_slope(each, figure="f1", share=share) for each in matrices)
        return one - other, slope.ravel()[cells[0]] - other_slope.ravel()[cells[1]]

    value, _ = measure(np.where(np.arange(len(weights)) < len(counts), weights, 0))
    centre, slopes = measure(weights)
    half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * np.sqrt((weights * slopes**2).sum())
    return value, Interval(np.clip(centre - half, -1, value), np.clip(centre + half, value, 1))


# ---- bootstrap


def resample_terms(
    terms: Floats, *, unseen: Floats, resamples: int, generator: np.random.Generator
) -> ProbabilityFigures:
    """Resample the metrics (R,) of `image_terms` (N, 1 + bins), to which half an `unseen` image (1 + bins,) is added.

    The calibration error of a resample is on average larger than that of the sample, because the noise of each bin
    counts as error: its interval lies too high, so `lowered` moves the lower end.
    """
    means = []
    for _ in range(resamples):
        weights, half = generator.standard_exponential(len(terms)), generator.standard_gamma(0.5)
        means.append((weights @ terms + half * unseen) / (weights.sum() + half))
    return probability_figures(np.stack(means))


def lowered(interval: Interval, *, values: Floats, chance: Floats) -> Interval:
    """Lower the interval of a calibration error (), by what `chance` (R,) alone would show, but not below 0.

    It then begins at 0 if exact probabilities may well look as far off.
    """
    largest = np.quantile(chance, (1 + CONFIDENCE) / 2)
    return Interval(np.minimum(interval.low, np.maximum(values - largest, 0)), interval.high)


def percentile_interval(samples: Floats, *, values: Floats) -> Interval:
    """Return the equal-tailed interval between quantiles of bootstrap samples (R, ...).

    It is widened to contain the metrics (...) themselves, which a biased bootstrap can miss (`resample_terms`).
    """
    low, high = np.quantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return Interval(np.minimum(low, values), np.maximum(high, values))

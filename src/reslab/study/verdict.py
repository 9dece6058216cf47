"""From the metrics of several seeds to a mean, its interval and a verdict.

Source: Student's interval for a mean; Welch 1947 for a difference of means with unequal spreads; the verdict is a test
of equivalence, two one-sided tests (Schuirmann 1987), whose margin is the study's tolerance.
Differs from them: an interval is never narrower than the standard error due to the number of test images, since
otherwise seeds that agree by chance would prove anything; it ends where a metric does, at 0 and 1; and fewer than three
seeds decide nothing. The published result is taken as it stands; as a rule it is one run without an interval.
"""

import math
from dataclasses import dataclass, replace
from statistics import fmean, variance
from typing import Final, Literal

from scipy.special import stdtrit

from reslab.measure.metrics import CONFIDENCE
from reslab.recipe.recipe import Published

LEAST_SEEDS: Final = 3  # for a verdict
MOST_SEEDS: Final = 1000  # above this, no number of seeds is advised
Word = Literal["reproduced", "better", "worse", "not decided", "scaled", "nothing published", "no run yet"]


@dataclass(frozen=True)
class Sample:
    """A metric in [0, 1] of several seeds; one seed has no spread.

    `error` is the standard error due to the number of images.
    """

    values: tuple[float, ...]
    error: float = 0.0

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def variance(self) -> float | None:
        return variance(self.values) if len(self.values) > 1 else None

    @property
    def half_width(self) -> float | None:
        """Half of the mean's interval; None for one seed."""
        return None if self.variance is None else max(self.error, half_width((self.variance, len(self.values))))

    @property
    def interval(self) -> tuple[float, float] | None:
        """The ends of the mean's interval, as far as the metric can be there; None for one seed."""
        return (
            None if (width := self.half_width) is None else (max(0.0, self.mean - width), min(1.0, self.mean + width))
        )


@dataclass(frozen=True)
class RowVerdict:
    """A word, and if it is `not decided`, how many more seeds would decide it at the same mean and spread.

    None: one seed cannot tell, or no number of seeds would decide.
    """

    word: Word
    further_seeds: int | None = None


@dataclass(frozen=True)
class Difference:
    """The mean of one row minus that of another, with its interval; None if a row has only one seed."""

    value: float
    half_width: float | None
    num_seeds: int  # of the row that has fewer
    further_seeds: int | None = None  # of each row, until the interval excludes 0

    @property
    def interval(self) -> tuple[float, float] | None:
        """The ends of its interval, as far as two metrics can differ; None if a row has only one seed."""
        width = self.half_width
        return None if width is None else (max(-1.0, self.value - width), min(1.0, self.value + width))

    @property
    def is_decided(self) -> bool:
        enough = self.num_seeds >= LEAST_SEEDS
        return enough and self.half_width is not None and abs(self.value) > self.half_width


def half_width(*spreads: tuple[float, int]) -> float:
    """Return half the interval of a sum or difference of independent means, from their (variance, number of values)."""
    parts = [(spread / num, num - 1) for spread, num in spreads]
    total = sum(part for part, _ in parts)
    if total == 0:
        return 0.0
    freedom = total**2 / sum(part**2 / degrees for part, degrees in parts)
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(total)


def judge(ours: Sample, published: Published, *, tolerance: float, lower_is_better: bool) -> RowVerdict:
    """Judge a mean against a published result.

    `reproduced` if our whole interval lies within the tolerance of it, `better` or `worse` if all of it lies outside;
    otherwise, and for fewer than three seeds, `not decided`.
    """
    width, spread = ours.half_width, ours.variance
    if width is None or spread is None:
        return RowVerdict("not decided")
    # No interval crosses an end of the tolerance where the metric has its own end.
    low = published.low - tolerance if published.low > tolerance else -math.inf
    high = published.high + tolerance if published.high + tolerance < 1 else math.inf
    # To the nearer end of the tolerated range, from either side.
    distance = min(abs(ours.mean - low), abs(ours.mean - high))
    if width > distance or len(ours.values) < LEAST_SEEDS:
        return RowVerdict("not decided", _further(distance, (spread, len(ours.values)), error=ours.error))
    if low <= ours.mean <= high:
        return RowVerdict("reproduced")
    return RowVerdict("better" if (ours.mean < low) == lower_is_better else "worse")


def subtract(first: Sample, second: Sample) -> Difference:
    """Compare two rows, treating their seeds as independent."""
    value = first.mean - second.mean
    fewest = min(len(first.values), len(second.values))
    if first.variance is None or second.variance is None:
        return Difference(value, None, fewest)
    error = math.hypot(first.error, second.error)
    spreads = (first.variance, len(first.values)), (second.variance, len(second.values))
    found = Difference(value, max(error, half_width(*spreads)), fewest)
    if found.is_decided:
        return found
    return replace(found, further_seeds=_further(abs(value), *spreads, error=error))


def _further(distance: float, *spreads: tuple[float, int], error: float) -> int | None:
    """Count the further seeds of each needed for an interval no wider than `distance` to either side."""
    if error > distance:
        return None
    fewest = min(num for _, num in spreads)
    for further in range(max(1, LEAST_SEEDS - fewest), MOST_SEEDS - fewest + 1):
        if half_width(*((spread, num + further) for spread, num in spreads)) <= distance:
            return further
    return None

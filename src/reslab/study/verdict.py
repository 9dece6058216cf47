"""From the figures of several seeds to a mean, its interval and a verdict.

Source: Student's interval for a mean; Welch 1947 for a difference of means with unequal spreads; the verdict is a test
of equivalence, two one-sided tests (Schuirmann 1987), whose margin is the study's tolerance.
Differs from them: nothing. The published figure is taken as it stands; as a rule it is one run without an interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Final, Literal

from scipy.special import stdtrit

from reslab.metrics import CONFIDENCE
from reslab.recipe import Published

MOST_SEEDS: Final = 1000  # beyond, a number of seeds is no advice
Word = Literal["reproduced", "better", "worse", "not decided", "scaled", "nothing published", "no run yet"]


@dataclass(frozen=True)
class Sample:
    """One figure of several seeds; one seed has no spread."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def variance(self) -> float | None:
        return variance(self.values) if len(self.values) > 1 else None

    @property
    def half_width(self) -> float | None:
        """Half of the mean's interval; None for one seed."""
        return None if self.variance is None else half_width((self.variance, len(self.values)))


@dataclass(frozen=True)
class Verdict:
    """A word, and where it is `not decided` how many more seeds would decide it if mean and spread stay as they are.

    None: it cannot be said from one seed, or they are too many.
    """

    word: Word
    further_seeds: int | None = None


@dataclass(frozen=True)
class Difference:
    """The mean of one row less that of another, with its interval; None where a row has one seed only."""

    value: float
    half_width: float | None
    further_seeds: int | None = None  # of each row, until the interval leaves 0 out

    @property
    def is_decided(self) -> bool:
        return self.half_width is not None and abs(self.value) > self.half_width


def half_width(*spreads: tuple[float, int]) -> float:
    """Give half the interval of a sum or difference of independent means, from their (variance, number of values)."""
    parts = [(spread / num, num - 1) for spread, num in spreads]
    total = sum(part for part, _ in parts)
    if total == 0:
        return 0.0
    freedom = total**2 / sum(part**2 / degrees for part, degrees in parts)
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(total)


def judge(ours: Sample, published: Published, *, tolerance: float, lower_is_better: bool) -> Verdict:
    """Judge a mean against a published figure.

    `reproduced` where our whole interval lies within the tolerance of it, `better` or `worse` where it lies outside
    altogether, else `not decided`.
    """
    width, spread = ours.half_width, ours.variance
    if width is None or spread is None:
        return Verdict("not decided")
    low, high = published.low - tolerance, published.high + tolerance
    # To the nearer end of the tolerated range, from either side.
    distance = min(abs(ours.mean - low), abs(ours.mean - high))
    if width > distance:
        return Verdict("not decided", _further(distance, [spread], num=len(ours.values)))
    if low <= ours.mean <= high:
        return Verdict("reproduced")
    return Verdict("better" if (ours.mean < low) == lower_is_better else "worse")


def subtract(first: Sample, second: Sample) -> Difference:
    """Set two rows against each other, their seeds taken as independent."""
    value = first.mean - second.mean
    if first.variance is None or second.variance is None:
        return Difference(value, None)
    width = half_width((first.variance, len(first.values)), (second.variance, len(second.values)))
    fewest = min(len(first.values), len(second.values))
    further = _further(abs(value), [first.variance, second.variance], num=fewest) if abs(value) <= width else None
    return Difference(value, width, further)


def _further(distance: float, spreads: Sequence[float], *, num: int) -> int | None:
    """Count the further seeds until the interval is no wider than `distance` to either side."""
    for total in range(num + 1, MOST_SEEDS + 1):
        if half_width(*((spread, total) for spread in spreads)) <= distance:
            return total - num
    return None

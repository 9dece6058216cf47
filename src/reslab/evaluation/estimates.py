"""Figures together with their intervals, as the records keep them.

Axes: K classes, R resamples.
"""

from typing import Any

from numpy.typing import NDArray

from reslab import metrics
from reslab.metrics import Floats, Interval
from reslab.records import Estimate


def proportion(successes: NDArray[Any], *, total: NDArray[Any]) -> Estimate:
    """Give a share of images, (), with Wilson's interval; 0 where there is none."""
    return proportions(successes.reshape(1), total=total.reshape(1))[0]


def proportions(successes: NDArray[Any], *, total: NDArray[Any]) -> list[Estimate]:
    """Give shares of images (K,) with Wilson's intervals; 0 where there are none."""
    return _estimates(metrics.ratio(successes, total), metrics.wilson_interval(successes, total=total))


def bootstrapped(value: Floats, *, samples: Floats) -> Estimate:
    """Give a figure, (), with the percentile interval of its samples (R,)."""
    return bootstrapped_each(value.reshape(1), samples=samples[:, None])[0]


def bootstrapped_each(values: Floats, *, samples: Floats) -> list[Estimate]:
    """Give figures (K,) with the percentile intervals of their samples (R, K)."""
    return _estimates(values, metrics.percentile_interval(samples, values=values))


def _estimates(values: Floats, intervals: Interval) -> list[Estimate]:
    columns = zip(values.tolist(), intervals.low.tolist(), intervals.high.tolist(), strict=True)
    return [Estimate(value=value, low=low, high=high) for value, low, high in columns]

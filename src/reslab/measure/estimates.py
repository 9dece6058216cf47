"""Metrics with their intervals, as the records store them.

Axes: K classes, R resamples.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reslab.measure import intervals, metrics
from reslab.measure.intervals import Interval, Macro
from reslab.measure.metrics import Answers, Floats, Integers
from reslab.records import ClassFigures, Estimate


def proportion(successes: NDArray[Any], *, total: NDArray[Any]) -> Estimate:
    """Return a share of images, (), with its interval; 0 if there are none."""
    return proportions(successes.reshape(1), total=total.reshape(1))[0]


def share_of(answers: Answers) -> Estimate:
    """Return the share of images (N,) whose answer is true, with its interval."""
    return proportion(answers.sum(), total=np.asarray(len(answers)))


def proportions(successes: NDArray[Any], *, total: NDArray[Any]) -> list[Estimate]:
    """Return shares of images (K,) with their intervals; 0 where there are none."""
    return _estimates(metrics.ratio(successes, total), intervals.proportion_interval(successes, total=total))


def class_figures(matrix: Integers) -> tuple[ClassFigures, ...]:
    """Return the metrics of each class of a confusion matrix (K, K)."""
    hits, actual, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    errors = actual + predicted - 2 * hits
    columns = zip(
        proportions(hits, total=predicted),
        proportions(hits, total=actual),
        _estimates(metrics.matrix_figures(matrix).f1, intervals.f1_interval(hits, errors=errors)),
        actual.tolist(),
        strict=True,
    )
    return tuple(ClassFigures(precision=p, recall=r, f1=f, support=count) for p, r, f, count in columns)


def macro_figures(matrix: Integers, *, weights: Floats | None = None) -> dict[str, Estimate]:
    """Return balanced accuracy and the macro metrics of a confusion matrix (K, K), its rows weighted by (K,).

    Macro recall is balanced accuracy with 0 for a class without images; its interval is scaled likewise.
    """
    weighted = matrix if weights is None else matrix * weights[:, None]
    values = metrics.matrix_figures(weighted)
    names: dict[str, Macro] = {"balanced_accuracy": "recall", "macro_precision": "precision", "macro_f1": "f1"}
    found = {
        name: estimate(getattr(values, name), intervals.macro_interval(matrix, figure=figure, weights=weights))
        for name, figure in names.items()
    }
    seen = float((matrix.sum(axis=1) > 0).mean())
    balanced = found["balanced_accuracy"]
    recall = Estimate(value=float(values.macro_recall), low=seen * balanced.low, high=seen * balanced.high)
    return found | {"macro_recall": recall}


def macro_over(matrix: Integers, classes: slice | Integers, *, figure: Macro) -> Estimate:
    """Return the mean of precision, recall or F1 over some of the classes of a confusion matrix (K, K)."""
    values = getattr(metrics.matrix_figures(matrix), figure)[classes]
    return estimate(values.mean(), intervals.macro_interval(matrix, figure=figure, over=classes))


def gain(before: Answers, *, after: Answers) -> Estimate:
    """Return the gain in accuracy between two answers to each image (N,), with its paired interval."""
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    value = np.asarray((gained - lost) / len(before))
    return estimate(value, intervals.gain_interval(gained, lost=lost, total=len(before)))


def difference(before: Estimate, *, after: Estimate) -> Estimate:
    """Return the difference of two metrics that were measured on different images."""
    first, second = (Interval(np.asarray(each.low), np.asarray(each.high)) for each in (before, after))
    interval = intervals.difference_interval(first, second, values=(before.value, after.value))
    return estimate(np.asarray(after.value - before.value), interval)


def bootstrapped(value: Floats, *, samples: Floats) -> Estimate:
    """Return a metric, (), with the percentile interval of its samples (R,)."""
    return estimate(value, intervals.percentile_interval(samples, values=value))


def estimate(value: Floats, interval: Interval) -> Estimate:
    """Return a metric, (), with its interval."""
    return Estimate(value=float(value), low=float(interval.low), high=float(interval.high))


def _estimates(values: Floats, intervals: Interval) -> list[Estimate]:
    columns = zip(values.tolist(), intervals.low.tolist(), intervals.high.tolist(), strict=True)
    return [Estimate(value=value, low=low, high=high) for value, low, high in columns]

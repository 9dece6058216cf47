"""Predict the accuracy with more data from that with less: a learning curve, a prior, and an interval.

The error at `x` times the data is a Morgan-Mercer-Flodin curve: above a floor, its odds fall with a power of x. The
posterior is computed on a grid of the error at x = 1, the exponent and the floor.

Sources: Morgan, Mercer and Flodin 1975; Viering and Loog 2021, "The Shape of Learning Curves: a Review",
arXiv:2103.10948; Hoiem et al. 2021, "Learning Curves for Analysis of Deep Networks", arXiv:2010.11029, for the prior.
Differs from them: a posterior, not a least-squares fit. Prior and misfit were chosen on CIFAR-100 (benchmarks/plan.py).
Axes: J sizes of training sets, from small to large, N images that are answered, P points of the grid.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import expit, logit
from scipy.stats import beta, norm

from reslab.measure.metrics import Floats
from reslab.records import Estimate

Curve = Callable[[float, Floats, Floats, Floats], Floats]  # x, then error, exponent and floor of each point, to errors

FORECAST_CONFIDENCE = 0.9
STEPS = 60, 12, 12  # of error, exponent and floor
EXPONENT, SPREAD = 0.5, 0.4  # the prior's median and its deviation, on a logarithmic scale
FLOOR = 3, 2  # Beta distribution of the floor, as a share of the error at x = 1
MISFIT = 0.02  # how far a real curve is from a smooth one, in logits
WIDTHS = 8  # standard errors that the grid extends to either side


def morgan_mercer_flodin(x: float, error: Floats, exponent: Floats, floor: Floats) -> Floats:
    """Return the errors at `x` times the data: their odds above the floor fall with a power of x."""
    least = error * floor
    above = (error - least) / (1 - least)
    return np.asarray(least + (1 - least) * expit(logit(above) - exponent * np.log(x)))


def extrapolate(
    x: Floats, right: Floats, *, to: Sequence[float], curve: Curve = morgan_mercer_flodin
) -> list[Estimate]:
    """Return the accuracy at `to` times the data with its 90 % interval.

    `right` (J, N) is how often each image was classified correctly with training sets of `x` (J,) times the data.
    """
    error, covariance = _observe(right)
    errors, exponents, floors = _grid(error[-1], covariance[-1, -1] ** 0.5)
    distance = np.stack([curve(each, errors, exponents, floors) for each in x]) - error[:, None]
    logs = -0.5 * (distance * np.linalg.solve(covariance, distance)).sum(axis=0)
    weights = np.exp(logs - logs.max())
    return [_summarize(1 - curve(each, errors, exponents, floors), weights / weights.sum()) for each in to]


def _observe(right: Floats) -> tuple[Floats, Floats]:
    """Return the errors (J,), half an error added, and their covariance (J, J), since all sizes share the images."""
    num = right.shape[1]
    error = ((1 - right).sum(axis=1) + 0.5) / (num + 1)
    sampling = np.atleast_2d(np.cov(right)) / num
    unseen = 1 / (num + 2) ** 2  # of errors that happened not to occur, at all sizes or at a single one
    return error, sampling + unseen + np.diag((MISFIT * error * (1 - error)) ** 2 + unseen)


def _grid(error: float, deviation: float) -> tuple[Floats, Floats, Floats]:
    """Return grid points (P,) as dense as the prior, which is flat in the error at x = 1."""
    num_errors, num_exponents, num_floors = STEPS
    reach = WIDTHS * deviation
    errors = np.linspace(max(1e-5, error - reach), min(1 - 1e-5, error + reach), num_errors)
    exponents = np.exp(norm.ppf(_middles(num_exponents), np.log(EXPONENT), SPREAD))
    floors = beta.ppf(_middles(num_floors), *FLOOR)
    grid = np.meshgrid(errors, exponents, floors, indexing="ij")
    return grid[0].ravel(), grid[1].ravel(), grid[2].ravel()


def _middles(num: int) -> Floats:
    return (np.arange(num) + 0.5) / num


def _summarize(values: Floats, weights: Floats) -> Estimate:
    """Return the median and the interval of weighted values (P,)."""
    order = np.argsort(values)
    tail = (1 - FORECAST_CONFIDENCE) / 2
    cumulated = np.cumsum(weights[order]) - weights[order] / 2
    low, median, high = np.interp([tail, 0.5, 1 - tail], cumulated, values[order])
    return Estimate(value=float(median), low=float(low), high=float(high))

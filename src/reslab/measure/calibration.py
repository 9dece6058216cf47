"""Calibrate probabilities by temperature scaling: all logits are divided by one temperature.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599, section 4.2.
Axes: N images, K classes.
"""

import numpy as np
from scipy.optimize import minimize_scalar

from reslab.measure.metrics import Floats, Integers, Logits, log_softmax
from reslab.words import counted

# Without mistakes the best temperature is 0: only mistakes tell how confident a network may be.
FEWEST_MISTAKES = 5
LOWEST, HIGHEST = 0.01, 1000.0


def find_obstacle(logits: Logits, labels: Integers) -> str | None:
    """Say why held-out logits (N, K) with labels (N,) do not suffice to fit a temperature; None if they do."""
    if len(np.unique(labels)) < logits.shape[1]:
        return "the held-out images do not show every class"
    mistakes = int((logits.argmax(axis=1) != labels).sum())
    if not mistakes:
        return f"{counted(len(labels), 'held-out image')} without a mistake do not suffice to fit a temperature"
    if mistakes < FEWEST_MISTAKES:
        are = "is" if mistakes == 1 else "are"
        return (
            f"{counted(mistakes, 'mistake')} on {counted(len(labels), 'held-out image')} {are} too few to fit a "
            "temperature"
        )
    return None


def fit_temperature(logits: Logits, labels: Integers, *, weights: Floats | None = None) -> float:
    """Find the temperature in [0.01, 1000] that minimizes the log loss of logits (N, K) divided by it.

    Images are weighted by `weights` (N,), equally by default.
    """
    places = np.arange(len(labels))

    def log_loss(log_temperature: float) -> float:
        losses = -log_softmax(logits / np.exp(log_temperature))[places, labels]
        return float(np.average(losses, weights=weights))

    found = minimize_scalar(log_loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded")
    return float(np.exp(found.x))


def fit_temperature_smoothed(logits: Logits, labels: Integers) -> float:
    """Find the temperature in [0.01, 1000] that minimizes the smoothed log loss of logits (N, K) divided by it.

    Unlike `fit_temperature` it needs no mistakes, so that it also suits a few images, as of folds.
    """
    bounds = (np.log10(LOWEST), np.log10(HIGHEST))
    found = minimize_scalar(lambda power: _smoothed_loss(logits / 10**power, labels), bounds=bounds, method="bounded")
    return float(10**found.x)


def _smoothed_loss(logits: Logits, labels: Integers) -> float:
    """Compute the cross-entropy with smoothed labels.

    With N images, a label has the probability (N + 1) / (N + 2), as in Platt 1999, so that a few answers that are all
    correct do not lead to a temperature of zero. The rest goes to the most probable other class, the likeliest mistake.
    """
    num_images = len(labels)
    losses = -log_softmax(logits)
    is_label = np.arange(logits.shape[1]) == labels[:, None]
    wrong = np.where(is_label, np.inf, losses).min(1)
    return float(((num_images + 1) * losses[is_label] + wrong).mean() / (num_images + 2))

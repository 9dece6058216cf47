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
        return f"no mistake on {counted(len(labels), 'held-out image')} to fit a temperature by"
    if mistakes < FEWEST_MISTAKES:
        are = "is" if mistakes == 1 else "are"
        return (
            f"{counted(mistakes, 'mistake')} on {counted(len(labels), 'held-out image')} {are} too few to fit a "
            "temperature by"
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

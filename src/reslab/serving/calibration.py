"""Probabilities that mean what they say: one temperature, by which all logits are divided.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599, section 4.2.
Axes: N images, K classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from reslab.errors import UserError
from reslab.runs import Predictions, Run

# A network that is right on every image would want the temperature 0: how sure it may be is learnt from mistakes.
FEWEST_MISTAKES = 5
LOWEST, HIGHEST = 0.1, 10.0


@dataclass(frozen=True)
class Calibration:
    """By what logits are divided, 1 where nothing `is_fitted`, and in a sentence on what that rests."""

    temperature: float
    is_fitted: bool
    note: str


def calibrate(run: Run | None, *, num_classes: int) -> Calibration:
    """Fit the temperature to the predictions that the run holds of its validation images, else say what is missing."""
    if run is None:
        return Calibration(1.0, False, "Not calibrated: a weights file alone has no validation images.")
    if not run.recipe.validation:
        return Calibration(1.0, False, "Not calibrated: the run held out no validation images.")
    try:
        predictions = run.read_predictions("validation")
    except UserError:
        how = f"reslab evaluate {run.path} --splits validation"
        return Calibration(1.0, False, f"Not calibrated: {how} measures what that takes.")
    if predictions.logits.shape[1:] != (num_classes,) or len(np.unique(predictions.labels)) < num_classes:
        return Calibration(1.0, False, "Not calibrated: the validation images do not show every class.")
    count = f"{len(predictions.labels):,} validation images"
    mistakes = int((predictions.logits.argmax(1) != predictions.labels).sum())
    if mistakes < FEWEST_MISTAKES:
        return Calibration(1.0, False, f"Not calibrated: {mistakes} mistakes on {count} are too few to fit by.")
    temperature = fit_temperature(predictions)
    return Calibration(temperature, True, f"Calibrated on {count}: temperature {temperature:.2f}.")


def fit_temperature(predictions: Predictions) -> float:
    """Find the temperature in [0.1, 10] at which the log loss of logits (N, K) is least."""
    logits: NDArray[np.float64] = predictions.logits.astype(np.float64)
    places = np.arange(len(logits))

    def log_loss(log_temperature: float) -> float:
        return -float(log_softmax(logits / np.exp(log_temperature), axis=1)[places, predictions.labels].mean())

    found = minimize_scalar(log_loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded")
    return float(np.exp(found.x))

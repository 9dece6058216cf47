import numpy as np
import pytest

from reslab.runs import Predictions, Run
from reslab.serving.calibration import calibrate, fit_temperature


def draw(num, *, sharpness, seed=0):
    """Labels drawn by the probabilities of some logits, which are then sharpened: the temperature is `sharpness`."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(num, 3)) * 2
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([generator.choice(3, p=each) for each in probabilities])
    return Predictions((logits * sharpness).astype(np.float32), labels)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_by_which_logits_were_sharpened_is_found(sharpness):
    assert fit_temperature(draw(4000, sharpness=sharpness)) == pytest.approx(sharpness, rel=0.08)


def test_the_found_temperature_has_the_least_log_loss_of_a_grid():
    logits, labels = draw(500, sharpness=2.0)
    found = fit_temperature(Predictions(logits, labels))

    def log_loss(temperature):
        scaled = logits.astype(float) / temperature
        return np.mean(np.log(np.exp(scaled).sum(1)) - scaled[np.arange(500), labels])

    assert log_loss(found) <= min(log_loss(each) for each in np.geomspace(0.2, 8, 200)) + 1e-9


def test_it_says_what_a_calibration_rests_on(finished: Run):
    finished.write_predictions("validation", draw(300, sharpness=2.0))
    found = calibrate(finished, num_classes=3)
    assert found.is_fitted
    assert found.note == f"Calibrated on 300 validation images: temperature {found.temperature:.2f}."


def test_it_says_what_is_missing_for_one(finished: Run):
    assert calibrate(None, num_classes=3).note.startswith("Not calibrated: a weights file")
    assert "reslab evaluate" in calibrate(finished, num_classes=3).note
    # Of an answer that is always right every lower temperature would be better.
    finished.write_predictions("validation", Predictions(np.eye(3, dtype=np.float32), np.arange(3)))
    found = calibrate(finished, num_classes=3)
    assert (found.temperature, found.is_fitted) == (1.0, False)
    assert "0 mistakes on 3 validation images" in found.note
    finished.write_predictions("validation", Predictions(np.eye(3, dtype=np.float32), np.zeros(3, np.int64)))
    assert "do not show every class" in calibrate(finished, num_classes=3).note
    finished.write_recipe(finished.recipe.model_copy(update={"validation": 0}))
    assert "held out no validation images" in calibrate(finished, num_classes=3).note

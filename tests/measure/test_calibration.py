import numpy as np
import pytest

from reslab.measure.calibration import find_obstacle, fit_temperature, fit_temperature_smoothed
from reslab.measure.metrics import log_loss


def draw(num, *, sharpness, seed=0):
    """Labels drawn by the probabilities of some logits, which are then sharpened: the temperature is `sharpness`."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(num, 3)) * 2
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([generator.choice(3, p=each) for each in probabilities])
    return (logits * sharpness).astype(np.float32), labels


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_by_which_logits_were_sharpened_is_found(sharpness):
    assert fit_temperature(*draw(4000, sharpness=sharpness)) == pytest.approx(sharpness, rel=0.08)


def test_the_found_temperature_has_the_least_log_loss_of_a_grid():
    logits, labels = draw(500, sharpness=2.0)

    def log_loss(temperature):
        scaled = logits.astype(float) / temperature
        return np.mean(np.log(np.exp(scaled).sum(1)) - scaled[np.arange(500), labels])

    found = fit_temperature(logits, labels)
    assert log_loss(found) <= min(log_loss(each) for each in np.geomspace(0.2, 8, 200)) + 1e-9


def test_too_few_mistakes_and_absent_classes_are_told():
    # Of an answer that is always right every lower temperature would be better.
    without = "3 held-out images without a mistake do not suffice to fit a temperature"
    assert find_obstacle(np.eye(3), np.arange(3)) == without
    one = "1 mistake on 4 held-out images is too few to fit a temperature"
    assert find_obstacle(np.eye(3)[[0, 1, 2, 2]], np.array([0, 1, 2, 1])) == one
    two = "2 mistakes on 3 held-out images are too few to fit a temperature"
    assert find_obstacle(np.eye(3), np.array([0, 2, 1])) == two
    assert find_obstacle(np.eye(3), np.zeros(3, np.int64)) == "the held-out images do not show every class"
    assert find_obstacle(*draw(300, sharpness=2.0)) is None


def test_images_count_by_their_weights() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(2, size=400)
    logits = np.stack([1 - 2 * labels, np.zeros(400)], 1) + generator.normal(size=(400, 2))
    weights = np.where(labels == 0, 3.0, 1.0)
    repeated = np.repeat(np.arange(400), weights.astype(int))
    found = fit_temperature(logits, labels, weights=weights)
    assert found == pytest.approx(fit_temperature(logits[repeated], labels[repeated]), rel=1e-6)
    assert found != pytest.approx(fit_temperature(logits, labels), rel=1e-3)


def test_temperature_undoes_a_factor_and_few_right_answers_are_no_certainty():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(4000, 3))
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(1)
    assert fit_temperature_smoothed(5 * logits, labels) == pytest.approx(5, rel=0.1)
    right = np.eye(3)[np.arange(9) % 3]
    sharp = right / fit_temperature_smoothed(right, np.arange(9) % 3)
    assert np.exp(sharp.max(1) - np.log(np.exp(sharp).sum(1))) == pytest.approx(10 / 11, abs=1e-3)
    assert log_loss(sharp, np.arange(9) % 3) == pytest.approx(-np.log(10 / 11), abs=1e-3)


def test_a_hundred_right_answers_are_worth_about_a_hundredth_of_doubt_however_far_other_classes_lie():
    labels = np.arange(100) % 5
    logits = np.random.default_rng(0).normal(scale=300, size=(100, 5))
    logits[np.arange(100), labels] = logits.max(1) + np.random.default_rng(1).uniform(50, 500, size=100)
    sure = logits / fit_temperature_smoothed(logits, labels)
    probabilities = np.exp(sure - sure.max(1, keepdims=True))
    confidence = (1 / probabilities.sum(1)).mean()
    assert 0.97 < confidence < 0.999

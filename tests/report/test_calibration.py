"""What a few test images show about calibration, in words."""

import re

import numpy as np
import pytest

from reslab.evaluation.score import measure
from reslab.records import Calibration
from reslab.report.calibration import calibration_doubt, calibration_sentence
from reslab.runs import Predictions


def measured(num: int, *, wrong: int, temperature: float | None, certainty: float):
    """Measure a network of two classes that is equally certain of all answers, after division by a temperature."""
    logits = np.zeros((num, 2), np.float32)
    logits[:, 0] = np.log(certainty / (1 - certainty))
    labels = np.zeros(num, np.int64)
    labels[:wrong] = 1
    return measure(Predictions(logits, labels), temperature=temperature)


def test_an_uncalibrated_network_is_not_doubted():
    figures = measured(12, wrong=1, temperature=1, certainty=0.9)
    plain = figures.model_copy(update={"expected_calibration_error_uncalibrated": None})
    assert calibration_doubt(plain) is None


def test_without_a_mistake_nothing_is_shown(rich):
    """Certainty of 90 % is then off by 10 points, and any temperature would only have made it look better."""
    perfect = measured(12, wrong=0, temperature=5, certainty=0.9)
    assert perfect.expected_calibration_error.value > perfect.expected_calibration_error_uncalibrated.value
    doubt = calibration_doubt(perfect)
    assert doubt.startswith("Without a mistake among 12 test images, the most certain probabilities look best")
    test = rich.evaluation.splits["test"].model_copy(update=dict(perfect))
    sentence = calibration_sentence(rich.evaluation.model_copy(update={"splits": {"test": test}}))
    assert "before they were calibrated, by 0.00\u00a0%." in sentence  # no interval: it would be that of an unseen one
    assert doubt in sentence


def test_a_head_that_was_fitted_by_log_loss_has_no_earlier_probabilities(rich):
    calibration = Calibration(temperature=1, num_images=60)
    for temperature in (None, 1):  # as it is evaluated, and was earlier
        test = rich.evaluation.splits["test"].model_copy(
            update=dict(measured(200, wrong=20, temperature=temperature, certainty=0.8))
        )
        evaluation = rich.evaluation.model_copy(update={"splits": {"test": test}, "calibration": calibration})
        sentence = calibration_sentence(evaluation).replace("\u00a0", " ")
        assert re.fullmatch(
            r"Probabilities are off by 10.00 % \(.*?\) on average. "
            r"They are calibrated on 60 held-out images: temperature 1.00.",
            sentence,
        )


@pytest.mark.parametrize(
    ("num", "wrong", "doubt"),
    [
        (12, 1, "With 12 test images, the difference in calibration error may be chance."),
        (12, 2, "With 12 test images, the difference in calibration error may be chance."),
        (2000, 200, None),
    ],
)
def test_a_difference_is_chance_where_the_intervals_do_not_decide_it(num, wrong, doubt):
    found = calibration_doubt(measured(num, wrong=wrong, temperature=2, certainty=0.9))
    assert (found or "").startswith(doubt or "")
    assert (found is None) == (doubt is None)


def test_the_same_images_before_and_after_tell_small_differences_apart():
    """Two errors whose own intervals overlap differ by far more than their paired interval is wide."""
    paired = measured(2000, wrong=300, temperature=1.2, certainty=0.9)
    now, before = paired.expected_calibration_error, paired.expected_calibration_error_uncalibrated
    change = paired.expected_calibration_error_change
    assert change.value == pytest.approx(now.value - before.value)
    assert change.high - change.low < (now.high - now.low) / 10
    assert change.high < 0


def test_a_temperature_of_one_changes_nothing():
    """The resamples before and after are the same, so that not even they differ."""
    figures = measured(12, wrong=1, temperature=1, certainty=0.9)
    for change in (figures.log_loss_change, figures.expected_calibration_error_change):
        assert (change.value, change.low, change.high) == (0, 0, 0)
    assert calibration_doubt(figures) is None


def test_mistakes_alone_do_not_decide_anything():
    """They do not vary when they are resampled, so that their intervals have no width."""
    figures = measured(3, wrong=3, temperature=2, certainty=0.9)
    change = figures.expected_calibration_error_change
    assert change.value < 0
    assert change.high - change.low == pytest.approx(0, abs=1e-12)
    assert calibration_doubt(figures) == "With 3 test images, the difference in calibration error may be chance."


def test_many_images_may_leave_a_difference_undecided_too():
    figures = measured(150, wrong=15, temperature=1.1, certainty=0.9)
    assert calibration_doubt(figures).startswith("With 150 test images, the difference in calibration error may be")


def test_an_older_evaluation_without_the_paired_change_is_doubted_sooner():
    older = {"expected_calibration_error_change": None, "log_loss_change": None}
    figures = measured(2000, wrong=300, temperature=1.05, certainty=0.9)
    assert calibration_doubt(figures) is None
    assert calibration_doubt(figures.model_copy(update=older))


def test_log_loss_may_decide_what_the_calibration_error_cannot():
    doubt = calibration_doubt(measured(12, wrong=1, temperature=800, certainty=0.7))
    assert "The difference in log loss is not chance: 0." in doubt

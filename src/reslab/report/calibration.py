"""Say what test images show about calibration, and whether they are enough to show it."""

from reslab.language import say
from reslab.measure.estimates import difference
from reslab.records import Estimate, Evaluation, Figures
from reslab.report.tables import has_interval, num_wrong
from reslab.words import counted, figure, figure_alone


def calibration_sentence(evaluation: Evaluation) -> str | None:
    """Say by how much probabilities are off, by how much they were before they were calibrated, and on what.

    A head that was fitted by log loss to images held out, or out of folds, has a temperature of 1 and no "before".
    """
    if (test := evaluation.splits.get("test")) is None:
        return None
    now, before = test.expected_calibration_error, test.expected_calibration_error_uncalibrated
    exact = None
    if not now.low and now.value and num_wrong(test):
        images = counted(test.num_images, "test image")
        exact = say("On {images}, exact probabilities could look just as far off.", images=images)
    if evaluation.calibration is None and before is None:
        off = say("Probabilities are off by {now} on average: they are not calibrated.", now=figure(now))
        return " ".join(filter(None, [off, exact]))
    calibrated = (
        say("They are {calibrated}.", calibrated=evaluation.calibration.words) if evaluation.calibration else None
    )
    if before is None or (evaluation.calibration is not None and evaluation.calibration.temperature == 1):
        off = say("Probabilities are off by {now} on average.", now=figure(now))
        return " ".join(filter(None, [off, exact, calibrated]))
    shown = figure if has_interval("expected_calibration_error_uncalibrated", test) else figure_alone
    sentences = [
        say(
            "Probabilities are off by {now} on average; before they were calibrated, by {before}.",
            now=figure(now),
            before=shown(before),
        ),
        exact,
        calibration_doubt(test),
        calibrated,
    ]
    return " ".join(filter(None, sentences))


def calibration_doubt(figures: Figures) -> str | None:
    """Say why these images do not show what calibration has changed; None if they do, or there is none."""
    now, before = figures.expected_calibration_error, figures.expected_calibration_error_uncalibrated
    if before is None:
        return None
    images = counted(figures.num_images, "test image")
    if not num_wrong(figures):
        return say(
            "Without a mistake among {images}, the most certain probabilities look best, so these images do not show "
            "what calibration is worth.",
            images=images,
        )
    change = figures.expected_calibration_error_change or difference(before, after=now)
    is_undecided = num_wrong(figures) == figures.num_images  # an unseen error is like these, so that nothing varies
    if not change.value or not (is_undecided or _may_be_chance(change)):
        return None
    doubt = say("With {images}, the difference in calibration error may be chance.", images=images)
    loss, loss_before = figures.log_loss, figures.log_loss_uncalibrated
    if (
        is_undecided
        or loss_before is None
        or _may_be_chance(figures.log_loss_change or difference(loss_before, after=loss))
    ):
        return doubt
    decided = say(
        "The difference in log loss is not chance: {now}, and {before} before calibration.",
        now=figure_alone(loss, unit="plain"),
        before=figure_alone(loss_before, unit="plain"),
    )
    return f"{doubt} {decided}"


def _may_be_chance(change: Estimate) -> bool:
    """Return whether a change may be none; where older evaluations have no paired one, its interval is too wide."""
    return change.value != 0 and change.low <= 0 <= change.high

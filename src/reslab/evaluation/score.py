"""From a run's predictions to its `evaluation.json`, and the images to show as its worst errors.

Axes: N images, K classes, M chosen images.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TypeVar

import numpy as np

from reslab.errors import UserError, in_shell
from reslab.evaluation.extension import measure_extension
from reslab.evaluation.promises import measure_answered, measure_class_sets
from reslab.measure import intervals, metrics
from reslab.measure.estimates import bootstrapped, class_figures, estimate, macro_figures, proportion, share_of
from reslab.measure.metrics import Floats, Integers, Logits
from reslab.records import (
    AnsweredFigures,
    AugmentedFigures,
    Calibration,
    Estimate,
    Evaluation,
    ExtensionFigures,
    Figures,
    SplitFigures,
    SplitName,
    Weights,
    WithoutCopies,
    WithoutSeries,
)
from reslab.runs import Copies, Damaged, Familiarities, InSeries, Predictions, Run, read_exhibit, read_weights
from reslab.runs.gallery import FILES

TOP5_ABOVE = 10  # classes
RESAMPLES = 1000  # of the bootstrap

LeftOutT = TypeVar("LeftOutT", Copies, InSeries)


def score(run: Run, *, splits: Iterable[SplitName], views: int | None = None) -> Evaluation:
    """Measure the predictions of `splits`, write the run's evaluation and return it.

    `views` is the number of views behind the predictions with test-time augmentation; without it they are ignored.
    Earlier results of other splits, and of an extension, are kept if the classes and the number of resamples are the
    same. The intervals of a split depend on its predictions alone.

    Raises: UserError if predictions are missing or do not fit the run's classes.
    """
    weights = read_weights(run.path)[1]
    classes = weights.classes
    earlier = _earlier(run, classes=classes)
    new = {split: _score_split(run, split, weights, views) for split in splits}
    extension = earlier.extension if earlier else None
    if "test" in new:
        extension = _score_extension(run, classes, new["test"])
    evaluation = Evaluation(
        recipe=run.recipe.name,
        evaluated=datetime.now(UTC).isoformat(timespec="seconds"),
        confidence=metrics.CONFIDENCE,
        bootstrap_resamples=RESAMPLES,
        classes=classes,
        calibration=weights.calibration,
        splits=(earlier.splits if earlier else {}) | new,
        extension=extension,
    )
    run.write_evaluation(evaluation)
    return evaluation


def measure(predictions: Predictions, *, temperature: float | None = None) -> Figures:
    """Compute every metric of valid predictions with its interval.

    `temperature` is what their logits were divided by: probabilities are then also measured before that calibration.
    """
    logits, labels = predictions
    num_classes = logits.shape[1]
    matrix = metrics.confusion_matrix(labels, predicted=logits.argmax(axis=1), num_classes=num_classes)
    num_images = np.asarray(len(labels))
    top5 = metrics.top_k_hits(logits, labels=labels, k=5).sum() if num_classes > TOP5_ABOVE else None
    return Figures(
        num_images=len(labels),
        accuracy=proportion(matrix.trace(), total=num_images),
        **macro_figures(matrix),
        **_probability_figures(predictions, temperature),
        top5_accuracy=None if top5 is None else proportion(top5, total=num_images),
        per_class=class_figures(matrix),
        confusion_matrix=matrix.tolist(),
    )


def applied_temperature(calibration: Calibration | None) -> float | None:
    """Return what logits were divided by; None if they are as the head was fitted, which is a temperature of 1."""
    return None if calibration is None or calibration.temperature == 1 else calibration.temperature


# ---- reading


def _earlier(run: Run, *, classes: tuple[str, ...]) -> Evaluation | None:
    """Return the earlier evaluation if its classes, resamples and confidence are those of the new one."""
    if not run.is_evaluated:
        return None
    try:
        earlier = run.evaluation
    except Damaged:
        return None  # to be written anew
    same = earlier.classes == classes and earlier.bootstrap_resamples == RESAMPLES
    return earlier if same and earlier.confidence == metrics.CONFIDENCE else None


def _score_split(run: Run, split: SplitName, weights: Weights, views: int | None) -> SplitFigures:
    num_classes, temperature = len(weights.classes), applied_temperature(weights.calibration)
    plain = _read(run, split, num_classes=num_classes)
    copies = _measure_without(run, split, plain, kind=Copies)
    series = _measure_without(run, split, plain, kind=InSeries)
    figures = measure(plain, temperature=temperature)
    augmented = None
    if views is not None:
        several = _read(run, split, num_classes=num_classes, augmented=True)
        if not np.array_equal(several.labels, plain.labels):
            raise UserError(
                f"{run.path}: the {split} predictions with and without test-time augmentation are of "
                f"different images; run reslab evaluate {in_shell(run.path)} again"
            )
        augmented = AugmentedFigures(views=views, figures=measure(several, temperature=temperature))
    return SplitFigures(
        **dict(figures),
        test_time_augmentation=augmented,
        without_copies=WithoutCopies(num_copies=copies[0], accuracy=copies[1]) if copies else None,
        without_series=WithoutSeries(num_in_series=series[0], accuracy=series[1]) if series else None,
        class_sets=measure_class_sets(plain, weights.class_sets) if split == "test" else (),
        answered=_measure_answered(run, split, plain, weights),
    )


def _measure_answered(run: Run, split: SplitName, predictions: Predictions, weights: Weights) -> AnsweredFigures | None:
    """Measure which test images are answered, if the network knows how familiar they are."""
    known = read_exhibit(run.path, split, Familiarities) if split == "test" else None
    if known is None:
        return None
    if known.familiarity.shape != predictions.labels.shape:
        raise UserError(
            f"{run.path}: familiarity-test.npz is of other images; run reslab evaluate {in_shell(run.path)} again"
        )
    num_held_out = weights.class_sets.num_images if weights.class_sets else None
    return measure_answered(predictions, known, num_held_out=num_held_out)


def _measure_without(
    run: Run, split: SplitName, predictions: Predictions, *, kind: type[LeftOutT]
) -> tuple[int, Estimate | None] | None:
    """Count the test images of a kind, and measure the accuracy without them; None if they were not looked for.

    The accuracy is None if no image is left.
    """
    exhibit = read_exhibit(run.path, split, kind) if split == "test" else None
    if exhibit is None:
        return None
    left_out, correct = exhibit.indices, predictions.logits.argmax(axis=1) == predictions.labels
    if left_out.ndim != 1 or not np.isin(left_out, np.arange(len(correct))).all():
        raise UserError(
            f"{run.path}: {FILES[kind]}-{split}.npz is of other images; run reslab evaluate {in_shell(run.path)} again"
        )
    correct = np.delete(correct, left_out)
    return len(left_out), share_of(correct) if len(correct) else None


def _score_extension(run: Run, classes: tuple[str, ...], figures: Figures) -> ExtensionFigures | None:
    """Measure the extension from the `figures` of the test split; None if the run is not an extended one."""
    extension = run.recipe.extension
    if extension is None:
        return None
    if extension.num_old >= len(classes):
        raise UserError(
            f"{run.path}: its recipe counts {extension.num_old} old classes, but its network knows {len(classes)} in "
            "all: extend the base again"
        )
    before = run.read_base_predictions()
    _check(run, before, kind="base's test predictions", num_classes=extension.num_old)
    return measure_extension(run, before=before, classes=classes, figures=figures)


def _read(run: Run, split: SplitName, *, num_classes: int, augmented: bool = False) -> Predictions:
    """Read the predictions of a split. Raises: UserError if they do not fit the classes or are not finite."""
    predictions = run.read_predictions(split, augmented=augmented)
    kind = f"{split} predictions" + (" with test-time augmentation" if augmented else "")
    _check(run, predictions, kind=kind, num_classes=num_classes)
    return predictions


def _check(run: Run, predictions: Predictions, *, kind: str, num_classes: int) -> None:
    complaint = find_complaint(*predictions, num_classes=num_classes)
    if complaint:
        raise UserError(
            f"{run.path}: the {kind} cannot be scored: {complaint}; run reslab evaluate {in_shell(run.path)} again"
        )


def find_complaint(logits: Logits, labels: Integers, *, num_classes: int) -> str | None:
    """Say why predictions cannot be scored; None if they can."""
    if not labels.size:
        return "they contain no images"
    if logits.shape[1] != num_classes:
        return f"their logits are of {logits.shape[1]} classes, the network has {num_classes}"
    if labels.min() < 0 or labels.max() >= num_classes:
        return f"their labels run from {labels.min()} to {labels.max()}, not from 0 to {num_classes - 1}"
    num_bad = len(logits) - int(np.isfinite(logits).all(axis=1).sum())
    return f"the logits of {num_bad} images are not finite numbers" if num_bad else None


# ---- metrics with their intervals


def _probability_figures(predictions: Predictions, temperature: float | None) -> dict[str, Estimate]:
    """Measure probabilities; with a temperature, also before it was applied, and the paired difference between both."""
    value, drawn = _resample(predictions)
    figures = _with_intervals(predictions, value, drawn)
    if temperature is None:
        return figures
    before = predictions._replace(logits=predictions.logits * temperature)
    value_before, drawn_before = _resample(before)
    for name, figure in _with_intervals(before, value_before, drawn_before).items():
        figures[f"{name}_uncalibrated"] = figure
        figures[f"{name}_change"] = bootstrapped(
            value[name] - value_before[name], samples=drawn[name] - drawn_before[name]
        )
    return figures


def _resample(predictions: Predictions) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Return metrics of probabilities, each (), and their bootstrap samples (R,), with the same draws in every call."""
    terms = metrics.image_terms(predictions.logits, labels=predictions.labels)
    unseen, generator = metrics.unseen_error(predictions.logits), np.random.default_rng(0)
    values = metrics.probability_figures(terms.mean(axis=0))
    drawn = intervals.resample_terms(terms, unseen=unseen, resamples=RESAMPLES, generator=generator)
    return values._asdict(), drawn._asdict()


def _with_intervals(
    predictions: Predictions, values: dict[str, Floats], samples: dict[str, Floats]
) -> dict[str, Estimate]:
    """Return metrics of probabilities with the intervals of their samples (R,)."""
    found = {name: intervals.percentile_interval(samples[name], values=values[name]) for name in values}
    chance = metrics.calibrated_errors(predictions.logits, resamples=RESAMPLES, generator=np.random.default_rng(0))
    name = "expected_calibration_error"
    found[name] = intervals.lowered(found[name], values=values[name], chance=chance)
    return {name: estimate(values[name], found[name]) for name in values}

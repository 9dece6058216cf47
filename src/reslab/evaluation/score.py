"""From the predictions of a run to its `evaluation.json`; which images to show as its worst errors.

Axes: N images, K classes, M chosen images.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reslab import metrics
from reslab.errors import UserError
from reslab.metrics import Floats, Integers, Interval, Logits
from reslab.records import AugmentedFigures, ClassFigures, Estimate, Evaluation, Figures, SplitFigures, SplitName
from reslab.runs import Predictions, Run, read_weights

HEADLINES = ("balanced_accuracy", "macro_precision", "macro_recall", "macro_f1")  # those with a bootstrap interval
TOP5_ABOVE = 10  # classes


def score(
    run: Run, *, splits: Iterable[SplitName], views: int | None = None, resamples: int = 1000, seed: int = 0
) -> Evaluation:
    """Measure the predictions of `splits` and write the run's evaluation; return it.

    `views` is the number of views behind the predictions with test-time augmentation; without it they are left alone.
    Splits evaluated before stay where they are for the same classes and the same number of resamples. The intervals
    of a split depend on its predictions, `resamples` and `seed` alone.

    Raises: UserError where predictions are missing or do not fit the run's classes, or `resamples` is below 1.
    """
    if resamples < 1:
        raise UserError(f"{resamples} bootstrap resamples are too few: take at least 1, better 1000")
    classes = read_weights(run.path)[1].classes
    kept = _earlier_splits(run, classes=classes, resamples=resamples)
    new = {split: _score_split(run, split, classes, views, resamples=resamples, seed=seed) for split in splits}
    evaluation = Evaluation(
        recipe=run.recipe.name,
        evaluated=datetime.now(UTC).isoformat(timespec="seconds"),
        confidence=metrics.CONFIDENCE,
        bootstrap_resamples=resamples,
        classes=classes,
        splits=kept | new,
    )
    run.write_evaluation(evaluation)
    return evaluation


def measure(predictions: Predictions, *, resamples: int = 1000, seed: int = 0) -> Figures:
    """Measure valid predictions: every figure of a split with its interval."""
    logits, labels = predictions
    num_classes = logits.shape[1]
    matrix = metrics.confusion_matrix(labels, predicted=logits.argmax(axis=1), num_classes=num_classes)
    num_images = np.asarray(len(labels))
    generator = np.random.default_rng(seed)
    values = metrics.matrix_figures(matrix)
    drawn = metrics.resample_matrix(matrix, resamples=resamples, generator=generator)
    top5 = metrics.top_k_hits(logits, labels=labels, k=5).sum() if num_classes > TOP5_ABOVE else None
    return Figures(
        num_images=len(labels),
        accuracy=_proportion(matrix.trace(), num_images),
        **{name: _bootstrapped(getattr(values, name), getattr(drawn, name)) for name in HEADLINES},
        **_probability_figures(predictions, resamples=resamples, generator=generator),
        top5_accuracy=None if top5 is None else _proportion(top5, num_images),
        per_class=_per_class(matrix, values, drawn),
        confusion_matrix=matrix.tolist(),
    )


def choose_examples(logits: Logits, labels: Integers, *, limit: int = 1000) -> Integers:
    """Choose the misclassified images (M,) of logits (N, K), M at most `limit`, the most certain first.

    Certain is what has the largest probability of its wrong class; equals stand in the order of the split.
    """
    wrong = np.flatnonzero(logits.argmax(axis=1) != labels)
    certainty = metrics.softmax(logits[wrong]).max(axis=1)
    return wrong[np.argsort(-certainty, kind="stable")[:limit]]


# ---- reading what is there


def _earlier_splits(run: Run, *, classes: tuple[str, ...], resamples: int) -> dict[SplitName, SplitFigures]:
    """Give the splits that the head of the new evaluation describes as well."""
    if not run.is_evaluated:
        return {}
    earlier = run.evaluation
    same = earlier.classes == classes and earlier.bootstrap_resamples == resamples
    return dict(earlier.splits) if same and earlier.confidence == metrics.CONFIDENCE else {}


def _score_split(
    run: Run, split: SplitName, classes: tuple[str, ...], views: int | None, *, resamples: int, seed: int
) -> SplitFigures:
    plain = _read(run, split, num_classes=len(classes))
    figures = measure(plain, resamples=resamples, seed=seed)
    augmented = None
    if views is not None:
        several = _read(run, split, num_classes=len(classes), augmented=True)
        if not np.array_equal(several.labels, plain.labels):
            raise UserError(
                f"{run.path}: the {split} predictions with and without test-time augmentation are of "
                f"different images; run reslab evaluate {run.path} again"
            )
        augmented = AugmentedFigures(views=views, figures=measure(several, resamples=resamples, seed=seed))
    return SplitFigures(**dict(figures), test_time_augmentation=augmented)


def _read(run: Run, split: SplitName, *, num_classes: int, augmented: bool = False) -> Predictions:
    """Read the predictions of a split. Raises: UserError where they do not fit the classes or are not finite."""
    predictions = run.read_predictions(split, augmented=augmented)
    complaint = _complaint(*predictions, num_classes=num_classes)
    if complaint:
        kind = f"{split} predictions" + (" with test-time augmentation" if augmented else "")
        raise UserError(f"{run.path}: the {kind} cannot be scored: {complaint}; run reslab evaluate {run.path} again")
    return predictions


def _complaint(logits: Logits, labels: Integers, *, num_classes: int) -> str | None:
    if not labels.size:
        return "they are of no images"
    if logits.shape[1] != num_classes:
        return f"their logits are of {logits.shape[1]} classes, the run's network has {num_classes}"
    if labels.min() < 0 or labels.max() >= num_classes:
        return f"their labels run from {labels.min()} to {labels.max()}, not from 0 to {num_classes - 1}"
    num_bad = len(logits) - int(np.isfinite(logits).all(axis=1).sum())
    return f"the logits of {num_bad} images are not finite numbers" if num_bad else None


# ---- figures with their intervals


def _probability_figures(
    predictions: Predictions, *, resamples: int, generator: np.random.Generator
) -> dict[str, Estimate]:
    terms = metrics.image_terms(predictions.logits, labels=predictions.labels)
    values = metrics.probability_figures(terms.mean(axis=0))
    drawn = metrics.resample_terms(terms, resamples=resamples, generator=generator)
    return {name: _bootstrapped(getattr(values, name), getattr(drawn, name)) for name in values._fields}


def _per_class(
    matrix: Integers, values: metrics.MatrixFigures, drawn: metrics.MatrixFigures
) -> tuple[ClassFigures, ...]:
    support = matrix.sum(axis=1)
    columns = zip(
        _estimates(values.precision, metrics.percentile_interval(drawn.precision, values=values.precision)),
        _estimates(values.recall, metrics.wilson_interval(matrix.diagonal(), total=support)),
        _estimates(values.f1, metrics.percentile_interval(drawn.f1, values=values.f1)),
        support.tolist(),
        strict=True,
    )
    return tuple(ClassFigures(precision=p, recall=r, f1=f, support=count) for p, r, f, count in columns)


def _proportion(successes: NDArray[Any], total: NDArray[Any]) -> Estimate:
    return _estimate(successes / total, metrics.wilson_interval(successes, total=total))


def _bootstrapped(value: Floats, samples: Floats) -> Estimate:
    return _estimate(value, metrics.percentile_interval(samples, values=value))


def _estimate(value: Floats, interval: Interval) -> Estimate:
    return Estimate(value=float(value), low=float(interval.low), high=float(interval.high))


def _estimates(values: Floats, intervals: Interval) -> list[Estimate]:
    columns = zip(values.tolist(), intervals.low.tolist(), intervals.high.tolist(), strict=True)
    return [Estimate(value=value, low=low, high=high) for value, low, high in columns]

"""Measure an extension on the test split: the change on the old classes, and the metrics of the new ones.

Axes: K classes of which the first K' are old.
"""

from typing import Any

import numpy as np

from reslab.errors import UserError, in_shell
from reslab.measure.estimates import gain, macro_over, proportion, proportions, share_of
from reslab.measure.metrics import Integers
from reslab.records import Errors, ExtensionFigures, Figures, NewClass, OldClass
from reslab.runs import Predictions, Run

NUM_ERRORS = 3  # wrong classes listed for a new one, at most


def measure_extension(run: Run, *, before: Predictions, classes: tuple[str, ...], figures: Figures) -> ExtensionFigures:
    """Measure an extended run from the `figures` of its test split and the base's predictions `before`, both valid.

    Raises: UserError if the base's predictions are of other images, or `prior.json` is missing or damaged.
    """
    extension = run.recipe.extension
    assert extension is not None
    num_old = extension.num_old
    matrix, new = np.array(figures.confusion_matrix), slice(num_old, None)
    return ExtensionFigures(
        method=extension.method,
        num_old=num_old,
        **_old_figures(run, before, num_old=num_old),
        new_macro_f1=macro_over(matrix, new, figure="f1"),
        new_classes=tuple(
            _new_class(label, classes=classes, num_old=num_old, figures=figures)
            for label in range(num_old, len(classes))
        ),
        prior=run.prior,
    )


def _old_figures(run: Run, before: Predictions, *, num_old: int) -> dict[str, Any]:
    """Compare the base among its own classes with the extended network among all, on the old classes' images."""
    logits, labels = run.read_predictions("test")
    old = labels < num_old
    if not np.array_equal(labels[old], before.labels):
        raise UserError(
            f"{run.path}: the test predictions of the run and of its base are of different images; "
            f"run reslab evaluate {in_shell(run.path)} again"
        )
    right_before = before.logits.argmax(axis=1) == before.labels
    right_after = logits[old].argmax(axis=1) == before.labels
    support = np.bincount(before.labels, minlength=num_old)
    by_class = zip(
        *(
            proportions(np.bincount(before.labels[right], minlength=num_old), total=support)
            for right in (right_before, right_after)
        ),
        strict=True,
    )
    return {
        "old_before": share_of(right_before),
        "old_after": share_of(right_after),
        "old_change": gain(right_before, after=right_after),
        "old_classes": tuple(OldClass(before=one, after=other) for one, other in by_class),
    }


def _new_class(label: int, *, classes: tuple[str, ...], num_old: int, figures: Figures) -> NewClass:
    counts = np.array(figures.confusion_matrix[label])
    total = counts.sum()
    return NewClass(
        figures=figures.per_class[label],
        taken_for_old=proportion(counts[:num_old].sum(), total=total),
        errors=tuple(
            Errors(mistaken_for=classes[other], share=proportion(counts[other], total=total))
            for other in _most_frequent(counts, without=label)
        ),
    )


def _most_frequent(counts: Integers, *, without: int) -> list[int]:
    """Return the classes with the largest nonzero counts (K,), the largest first; ties keep their order."""
    others = [label for label in np.argsort(-counts, kind="stable").tolist() if label != without and counts[label]]
    return others[:NUM_ERRORS]

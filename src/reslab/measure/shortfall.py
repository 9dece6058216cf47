"""Warn of a finished network that does much worse on its training images than training logged."""

from collections.abc import Sequence

from reslab.language import say
from reslab.recipe.recipe import Recipe
from reslab.records import Epoch, Evaluation
from reslab.words import percent

POINTS = 0.1  # of accuracy; small differences are normal, since training logs augmented images while still learning


def find_kept(log: Sequence[Epoch], recipe: Recipe) -> Epoch:
    """Return the epoch whose weights a run has kept: the last one or, with early stopping, the best."""
    if recipe.early_stopping is None:
        return log[-1]
    return max(log, key=lambda epoch: (epoch.validation_accuracy or 0.0, -(epoch.validation_loss or 0.0)))


def describe_shortfall(*, logged: float, measured: float) -> str | None:
    """Return a warning if the measured training accuracy is far below the logged one, else None."""
    if logged - measured < POINTS:
        return None
    return say(
        "Training logged an accuracy of {logged} in the epoch that it kept, but the finished network has {measured} on "
        "its training images: do not rely on it. Train it again for more epochs or with smaller batches (--set "
        "epochs=…, --set batch_size=…), with its last epochs at full image size.",
        logged=percent(logged, decimals=1),
        measured=percent(measured, decimals=1),
    )


def warn_of_shortfall(evaluation: Evaluation, log: Sequence[Epoch], recipe: Recipe) -> str | None:
    """Return a warning if the measured training accuracy is far below the logged one; None if not, or not known."""
    if not log or "train" not in evaluation.splits:
        return None
    logged, measured = find_kept(log, recipe).train_accuracy, evaluation.splits["train"].accuracy.value
    return describe_shortfall(logged=logged, measured=measured)

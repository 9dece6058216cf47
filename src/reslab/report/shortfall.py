"""A warning for the report of a network that falls short of the accuracy that its training logged."""

from collections.abc import Sequence

from reslab.measure.shortfall import describe_shortfall, find_kept
from reslab.recipe.recipe import Recipe
from reslab.records import Epoch, Evaluation


def warn_of_shortfall(evaluation: Evaluation, log: Sequence[Epoch], recipe: Recipe) -> str | None:
    """Return a warning if the measured training accuracy is far below the logged one; None if not, or not known."""
    if not log or "train" not in evaluation.splits:
        return None
    logged, measured = find_kept(log, recipe).train_accuracy, evaluation.splits["train"].accuracy.value
    return describe_shortfall(logged=logged, measured=measured)

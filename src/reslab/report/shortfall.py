"""A warning for the report of a network that falls short of the accuracy that its training logged."""

from collections.abc import Sequence

from reslab.measure.shortfall import describe_shortfall
from reslab.records import Epoch, Evaluation


def warn_of_shortfall(evaluation: Evaluation, log: Sequence[Epoch]) -> str | None:
    """Return a warning if the measured training accuracy is far below the logged one; None if not, or not known."""
    if not log or "train" not in evaluation.splits:
        return None
    return describe_shortfall(logged=log[-1].train_accuracy, measured=evaluation.splits["train"].accuracy.value)

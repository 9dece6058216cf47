"""Warn of a finished network that does much worse on its training images than training logged."""

from reslab.language import say
from reslab.words import percent

POINTS = 0.1  # of accuracy; small differences are normal, since training logs augmented images while still learning


def describe_shortfall(*, logged: float, measured: float) -> str | None:
    """Return a warning if the measured training accuracy is far below the logged one, else None."""
    if logged - measured < POINTS:
        return None
    return say(
        "Training logged an accuracy of {logged} in its last epoch, but the finished network has {measured} on its "
        "training images: do not rely on it. Train it again for more epochs or with smaller batches (--set epochs=…, "
        "--set batch_size=…), with its last epochs at full image size.",
        logged=percent(logged, decimals=1),
        measured=percent(measured, decimals=1),
    )

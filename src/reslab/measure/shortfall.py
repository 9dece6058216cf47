"""A finished network that does much worse on its training images than training has logged, and what to do about it."""

from reslab.language import say
from reslab.words import percent

POINTS = 0.1  # of accuracy; training sees augmented images while it still learns, so a little is nothing


def describe_shortfall(*, logged: float, measured: float) -> str | None:
    """Say that the measured training accuracy is far below the logged one; nothing where it is not."""
    if logged - measured < POINTS:
        return None
    return say(
        "Training logged an accuracy of {logged} in its last epoch, but the finished network has {measured} on its "
        "training images: do not rely on it. Train it again for more epochs or with smaller batches (--set epochs=…, "
        "--set batch_size=…), with its last epochs at full image size.",
        logged=percent(logged, decimals=1),
        measured=percent(measured, decimals=1),
    )

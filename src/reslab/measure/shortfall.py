"""A finished network that does much worse on its training images than training has logged, and what to do about it."""

POINTS = 0.1  # of accuracy; training sees augmented images while it still learns, so a little is nothing


def describe_shortfall(*, logged: float, measured: float) -> str | None:
    """Say that the measured training accuracy is far below the logged one; nothing where it is not."""
    if logged - measured < POINTS:
        return None
    return (
        f"Training logged an accuracy of {100 * logged:.1f} % in its last epoch, but the finished network has "
        f"{100 * measured:.1f} % on its training images: do not rely on it. Train it again for more epochs or with "
        "smaller batches (--set epochs=…, --set batch_size=…), with its last epochs at full image size."
    )

"""Say how little a handful of test images decides."""

from reslab.language import decimal, say
from reslab.records import Figures
from reslab.words import counted

FEW = 100  # images; each of fewer counts more than a point


def few_images(figures: Figures) -> str | None:
    """Say how much each image counts and what to do about it; None if there are enough images."""
    if figures.num_images >= FEW:
        return None
    return say(
        "With {images}, each one counts {points} points, so trust the intervals, not the figures: a difference within "
        "them may be chance. More pictures narrow them: add some and train again, or measure other labelled ones with "
        "reslab evaluate RUN --data EXPR.",
        images=counted(figures.num_images, "test image"),
        points=decimal(100 / figures.num_images, 1),
    )

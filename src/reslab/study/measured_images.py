"""Which runs were tested on the same images, so that their metrics can be compared."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reslab.errors import UserError
from reslab.runs import Run


@dataclass(frozen=True)
class MeasuredImages:
    """The test images of a run: the data expression and how it was read, the fingerprint, and their classes.

    The fingerprint also depends on how the images were read and on the order of their files.
    """

    run: Run
    expression: str
    reading: tuple[object, ...]
    fingerprint: str | None  # None if it was not recorded
    num_images: int
    classes: tuple[str, ...]


def find_measured_images(run: Run) -> MeasuredImages:
    """Look up what a run was tested on."""
    recipe, evaluation = run.recipe, run.evaluation
    fingerprint, num_images = run.environment.fingerprint("test"), evaluation.splits["test"].num_images
    return MeasuredImages(run, recipe.data, recipe.reading, fingerprint, num_images, evaluation.classes)


def find_obstacle(first: MeasuredImages, second: MeasuredImages) -> str | None:
    """Say why metrics on two sets of test images cannot be compared; None if they are the same images."""
    if first.classes != second.classes:
        return "their classes differ"
    if first.num_images != second.num_images:
        return f"they have {first.num_images:,} and {second.num_images:,} test images"
    if first.fingerprint == second.fingerprint:
        return None
    own, other = _pictures(first.run), _pictures(second.run)
    if own is not None and other is not None:
        return None if np.array_equal(own, other) else "their test images or labels differ"
    is_alike = first.expression == second.expression and first.reading != second.reading
    return None if is_alike else "their test images differ"


def check_same_images(tested: Sequence[MeasuredImages]) -> None:
    """Raises: UserError if two runs were tested on different images of one data expression."""
    first: dict[tuple[object, ...], MeasuredImages] = {}
    for each in tested:
        if each.fingerprint is None:
            continue
        other = first.setdefault((each.expression, *each.reading), each)
        if other.fingerprint != each.fingerprint:
            raise UserError(
                f"{other.run.path} and {each.run.path} were tested on different images of {each.expression} "
                f"(fingerprints {str(other.fingerprint)[:12]}… and {each.fingerprint[:12]}…): delete one of them and "
                "run the study again"
            )


def _pictures(run: Run) -> NDArray[np.uint64] | None:
    """Return the hash and label of each stored picture, however it was read, in one order (2, N); None if not known."""
    try:
        labels = run.read_predictions("test").labels.astype(np.uint64)
    except UserError:  # not kept
        return None
    digests = run.read_digests("test", num_images=len(labels))
    if digests is None:
        return None
    return np.stack([digests, labels])[:, np.lexsort((labels, digests))]

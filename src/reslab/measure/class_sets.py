"""Sets of classes with a promised coverage: split conformal prediction with adaptive sets.

Classes are added to a picture's set from the most probable one downwards, until their total probability exceeds a
threshold. The threshold is a quantile, over held-out images, of the probability added before the true class, so the
promise holds for pictures from the same distribution as those, whatever the network is. Confident predictions get one
class, uncertain ones several, and no set is empty. Where classes will be more or less frequent than they were among the
held-out images, these are weighted by the ratio.

Sources: Romano et al. 2020, "Classification with Valid and Adaptive Coverage" (APS), arXiv:2006.02544; Angelopoulos et
al. 2021, "Uncertainty Sets for Image Classifiers using Conformal Prediction" (RAPS), arXiv:2009.14193; Podkopaev and
Ramdas 2021, "Distribution-free Uncertainty Quantification for Classification under Label Shift", arXiv:2103.03323.
Differs from them: no random numbers, so that a picture always gets the same set: the true class's own probability is
left out, while APS counts a random part of it; the class of a new picture is unknown, so it weighs as much as the
heaviest held-out one. RAPS's penalty on large sets is left out: with few classes it gained
next to nothing on held-out images (`benchmarks/class_sets.json`).
Axes: N images, H held-out images, K classes.
"""

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from reslab.errors import UserError
from reslab.measure.metrics import Answers, Floats, Integers

if TYPE_CHECKING:
    from reslab.records import ClassSets

COVERAGES: Final = (*(percent / 100 for percent in range(50, 100)), 0.995, 0.999)
FEWEST: Final = 9  # held-out images; with so few, the threshold for 90 % is their largest score
_DIGITS: Final = 6  # of a threshold
_EQUAL: Final = 1e-6  # probabilities that differ by less count as equal, since rounding varies

Probabilities = NDArray[np.floating[Any]]


def taken_before(probabilities: Probabilities) -> Floats:
    """Return for each class (N, K) the total probability of more probable ones; 0 for the most probable one."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1).astype(np.float64)
    before = np.zeros_like(ranked)
    np.put_along_axis(before, order, np.cumsum(ranked, axis=1) - ranked, axis=1)
    return before


def fit_class_sets(
    probabilities: Probabilities, labels: Integers, *, weights: Floats | None = None
) -> "ClassSets | None":
    """Fit the thresholds to held-out images (H, K) with labels (H,); None if those are too few.

    `weights` (H,) make up for classes that will be more or less frequent than among the held-out images.
    """
    num = len(labels)
    if num < FEWEST:
        return None
    scores = taken_before(probabilities)[np.arange(num), labels]
    order = np.argsort(scores, kind="stable")
    weights = np.ones(num) if weights is None else weights
    # One extra image, as heavy as any, counts as the worst of all, so a high coverage needs many images.
    shares = weights[order].cumsum() / (weights.sum() + weights.max())
    places = np.searchsorted(shares, np.array(COVERAGES) - _EQUAL)
    found = (
        (coverage, _round_up(scores[order[place]]))
        for coverage, place in zip(COVERAGES, places, strict=True)
        if place < num
    )
    from reslab.records import ClassSets  # imported here, since it loads pydantic

    return ClassSets(num_images=num, thresholds=tuple(found))


def _round_up(score: float) -> float:
    return min(1.0, math.ceil(score * 10**_DIGITS) / 10**_DIGITS)


def find_threshold(known: "ClassSets | None", *, coverage: float) -> float:
    """Find the threshold of the smallest known coverage that is at least `coverage`.

    Raises: UserError if there is none, or nothing was held out.
    """
    if not 0 < coverage < 1:
        raise UserError(f"a coverage of {coverage:g} is not a share of cases: choose one between 0 and 1, such as 0.9")
    if known is None:
        raise UserError(
            f"no set of classes can promise a coverage of {coverage:g}: the network has no held-out images; hold some "
            "out and train it again, for example with reslab train --set validation=500"
        )
    for reached, threshold in known.thresholds:
        if reached >= coverage - _EQUAL:
            return threshold
    most = known.thresholds[-1][0]
    raise UserError(
        f"a coverage of {coverage:g} is more than {known.num_images:,} held-out images can promise: ask for "
        f"{most:g} or less, or hold out more"
    )


def members(probabilities: Probabilities, *, threshold: float) -> Answers:
    """Tell which classes are in the set of each image: (N, K)."""
    within: Answers = taken_before(probabilities) <= threshold + _EQUAL
    return within

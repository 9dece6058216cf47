"""Prior correction: how much of the data's prior to remove from the logits, chosen on validation images.

Source: Menon et al. 2020, "Long-tail learning via logit adjustment", arXiv:2007.07314 (the post-hoc form).
Axes: N validation images, K classes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reslab.measure import intervals, metrics
from reslab.measure.estimates import estimate, macro_figures
from reslab.measure.metrics import Floats
from reslab.recipe.recipe import Recipe
from reslab.records import PriorChoice, PriorPoint
from reslab.training.objective import class_weights, log_prior

TAUS = tuple(step / 10 for step in range(11))


@dataclass(frozen=True)
class Priors:
    """Log priors (K,): the one contained in the logits after training, and the one of future pictures."""

    carried: Tensor
    coming: Tensor
    num_kept: int = 0  # of the first classes, whose logits do not change

    def offset(self, tau: float) -> Tensor:
        """Return the offset of the logits (K,): tau 0 leaves the prior of future pictures, 1 leaves none.

        Kept classes get no offset, and the others only their difference from the mean of the kept ones.
        """
        offset = (1 - tau) * self.coming - self.carried
        if not self.num_kept:
            return offset
        rest = offset[self.num_kept :] - offset[: self.num_kept].mean()
        return torch.cat([torch.zeros(self.num_kept), rest])


def priors_of(recipe: Recipe, *, counts: list[int]) -> Priors:
    """Compute both priors for a network trained by `recipe` on `counts` images of each class.

    Nearest-mean logits contain no prior; logit adjustment removes its share during training. Future pictures have the
    frequencies given by the extension, else those of `counts`.
    """
    kept = 0.0 if recipe.extension and recipe.extension.method == "nearest-mean" else 1 - recipe.logit_adjustment
    natural = recipe.model_copy(update={"sampling": None})
    coming = (recipe.extension and recipe.extension.coming) or counts
    carried = kept * log_prior(counts, recipe=recipe)
    if recipe.class_weights is not None:  # which act like as many more images
        classes = [str(number) for number in range(len(counts))]
        carried += class_weights(counts, recipe.class_weights, classes=classes).log()
    return Priors(
        carried=carried,
        coming=log_prior(list(coming), recipe=natural),
        num_kept=recipe.extension.num_old if recipe.extension and recipe.extension.keep_old else 0,
    )


def choose_prior(logits: Tensor, labels: Tensor, *, priors: Priors) -> PriorChoice:
    """Measure every tau on validation logits (N, K); choose the one with the best macro F1, the middle one of ties.

    Images are weighted by the expected frequency of their class. With few images ties are common, and the ends of a
    tied range are next to worse values.
    """
    held_out = np.bincount(labels.numpy(), minlength=logits.shape[1])
    weights = metrics.ratio(priors.coming.double().exp().numpy() * len(labels), held_out)
    curve = tuple(_measure(tau, logits + priors.offset(tau), labels, weights) for tau in TAUS)
    highest = max(point.macro_f1.value for point in curve)
    best = [point.tau for point in curve if point.macro_f1.value == highest]
    return PriorChoice(tau=best[(len(best) - 1) // 2], curve=curve)


def _measure(tau: float, logits: Tensor, labels: Tensor, weights: Floats) -> PriorPoint:
    predicted = logits.argmax(1).numpy()
    matrix = metrics.confusion_matrix(labels.numpy(), predicted=predicted, num_classes=logits.shape[1])
    accuracy = estimate(
        metrics.matrix_figures(matrix * weights[:, None]).accuracy,
        intervals.macro_interval(matrix, figure="accuracy", weights=weights),
    )
    macro = {name: each for name, each in macro_figures(matrix, weights=weights).items() if name.startswith("macro")}
    return PriorPoint(tau=tau, accuracy=accuracy, **macro)

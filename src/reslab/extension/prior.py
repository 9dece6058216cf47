"""How much of the data's prior to take out of the logits: chosen on validation images, then built into the head.

Source: Menon et al. 2020, "Long-tail learning via logit adjustment", arXiv:2007.07314 (the post-hoc form).
Axes: N validation images, K classes.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from reslab import metrics
from reslab.metrics import Floats, Integers
from reslab.recipe import Recipe
from reslab.records import Estimate, PriorChoice, PriorPoint
from reslab.training.objective import log_prior

TAUS = tuple(step / 10 for step in range(11))
FIGURES = ("accuracy", "macro_precision", "macro_recall", "macro_f1")
RESAMPLES = 1000


@dataclass(frozen=True)
class Priors:
    """Logarithms of shares (K,): of the prior that the logits carry after training, and of the data's own."""

    carried: Tensor
    data: Tensor

    def offset(self, tau: float) -> Tensor:
        """Give what is added to the logits (K,): 0 keeps the data's prior, 1 leaves none."""
        return (1 - tau) * self.data - self.carried


def priors_of(recipe: Recipe, *, counts: list[int]) -> Priors:
    """Find both priors for a network trained by `recipe` on `counts` images of each class.

    A nearest mean carries none; the loss of logit adjustment takes its share out of the logits while they are learned.
    """
    kept = 0.0 if recipe.extension and recipe.extension.method == "nearest-mean" else 1 - recipe.logit_adjustment
    natural = recipe.model_copy(update={"sampling": None})
    return Priors(carried=kept * log_prior(counts, recipe=recipe), data=log_prior(counts, recipe=natural))


def choose_prior(logits: Tensor, labels: Tensor, *, priors: Priors) -> PriorChoice:
    """Measure every tau on validation logits (N, K); choose the one of the best macro F1, of equals the middle one.

    Few images tie often, and the ends of a tied range are next to where it gets worse.
    """
    curve = tuple(_measure(tau, logits + priors.offset(tau), labels) for tau in TAUS)
    highest = max(point.macro_f1.value for point in curve)
    best = [point.tau for point in curve if point.macro_f1.value == highest]
    return PriorChoice(tau=best[(len(best) - 1) // 2], curve=curve)


def _measure(tau: float, logits: Tensor, labels: Tensor) -> PriorPoint:
    matrix = _matrix(labels.numpy(), logits.argmax(1).numpy(), logits.shape[1])
    values = metrics.matrix_figures(matrix)
    drawn = metrics.resample_matrix(matrix, resamples=RESAMPLES, generator=np.random.default_rng(0))
    return PriorPoint(tau=tau, **{name: _estimate(getattr(values, name), getattr(drawn, name)) for name in FIGURES})


def _matrix(labels: Integers, predicted: Integers, num_classes: int) -> Integers:
    return metrics.confusion_matrix(labels, predicted=predicted, num_classes=num_classes)


def _estimate(value: Floats, samples: Floats) -> Estimate:
    low, high = metrics.percentile_interval(samples, values=value)
    return Estimate(value=float(value), low=float(low), high=float(high))

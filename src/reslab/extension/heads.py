"""Heads for new classes: extended, trained alone, or set without training.

Axes: N images, D features, K classes of which K' are old.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reslab.models.layers import ImageClassifier

SCALES = tuple(2.0**power for power in range(-12, 5))  # of logits relative to squared distance over variance


def grow(model: ImageClassifier, *, num_new: int) -> None:
    """Add `num_new` classes to the head; old rows are kept, new ones start at 0."""
    old = model.head
    head = nn.Linear(old.in_features, old.out_features + num_new).to(old.weight.device)
    with torch.no_grad():
        head.weight.zero_()[: old.out_features] = old.weight
        head.bias.zero_()[: old.out_features] = old.bias
    head.bias.requires_grad_(old.bias.requires_grad)
    model.head = head


@torch.no_grad()
def imprint(
    head: nn.Linear, *, features: Tensor, labels: Tensor, num_old: int, old_features: Tensor | None = None
) -> None:
    """Set the new rows to the mean features of their classes, scaled to the average norm of the old rows.

    `old_features` are those of old classes, by which a single new class is centred.

    Source: Qi et al. 2018, "Low-shot learning with imprinted weights", arXiv:1712.07136.
    Differs from it: features are centred by their mean over the new classes' images and not normalised one by one.
    """
    centre = features.mean(0)
    if head.out_features == num_old + 1:  # whose own mean would leave nothing
        centre = torch.zeros_like(centre) if old_features is None else old_features.mean(0)
    length = head.weight[:num_old].norm(dim=1).mean()
    for label in range(num_old, head.out_features):
        direction = features[labels == label].mean(0) - centre
        head.weight[label] = F.normalize(direction, dim=0) * length


@torch.no_grad()
def set_nearest_mean(head: nn.Linear, *, features: Tensor, labels: Tensor) -> None:
    """Make the head choose the class with the nearest mean feature.

    Source: Mensink et al. 2013, "Distance-based image classification"; Rebuffi et al. 2017, arXiv:1611.07725.
    Differs from them: the logit is the negative squared distance without the term that all classes share, which is
    linear in the features; its scale is the one of `SCALES` with the lowest cross-entropy on these features.
    """
    means = torch.stack([features[labels == label].mean(0) for label in range(head.out_features)])
    variance = (features - means[labels]).square().mean().clamp(min=1e-12)
    weight, bias = means / variance, -means.square().sum(1) / (2 * variance)
    logits = features @ weight.T + bias
    scale = min(SCALES, key=lambda factor: float(F.cross_entropy(factor * logits, labels)))
    head.weight.copy_(scale * weight)
    head.bias.copy_(scale * bias)


@torch.no_grad()
def align_norms(head: nn.Linear, *, num_old: int) -> None:
    """Scale the new rows to the average norm of the old ones.

    Source: Zhao et al. 2020, "Maintaining discrimination and fairness in class incremental learning", arXiv:1911.07053.
    """
    norms = head.weight.norm(dim=1)
    head.weight[num_old:] *= norms[:num_old].mean() / norms[num_old:].mean()

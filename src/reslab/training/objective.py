"""The training objective: cross-entropy with the terms that a recipe adds.

Source: logit adjustment, Menon et al. 2020, arXiv:2007.07314 (its loss; balanced softmax, Ren et al. 2020,
arXiv:2007.10740, is the same with class counts); distillation from the base network, Li and Hoiem 2016,
"Learning without Forgetting", arXiv:1606.09282.
Axes: N images, C channels, H rows, W columns, K classes, K' old classes.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from reslab.data.images import ImageSet
from reslab.errors import UserError
from reslab.recipe.recipe import Recipe

Forward = Callable[[Tensor], Tensor]  # images (N, C, H, W) to logits (N, K)
Objective = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits (N, K), images, labels (N,) or (N, K) to the mean loss


def make_objective(recipe: Recipe, *, images: ImageSet, teacher: Forward | None, device: torch.device) -> Objective:
    """Build the loss of `recipe` for its training images; `teacher` is the network being extended."""
    offset = recipe.logit_adjustment * log_prior(images.counts(), recipe=recipe).to(device)
    weights = None
    if recipe.class_weights is not None:
        weights = class_weights(images.counts(), recipe.class_weights, classes=images.classes).to(device)
    extension = recipe.extension

    def objective(logits: Tensor, chunk: Tensor, labels: Tensor) -> Tensor:
        smoothing = recipe.label_smoothing
        if labels.ndim == 2:  # weighted class shares: PyTorch would smooth each equally, whatever its weight
            labels = labels * (1 - smoothing) + labels.sum(dim=1, keepdim=True) * (smoothing / labels.shape[1])
        # PyTorch's weighted mean would depend on which labels are in the batch.
        losses = F.cross_entropy(
            logits + offset,
            labels,
            weight=weights,
            label_smoothing=smoothing if labels.ndim == 1 else 0.0,
            reduction="mean" if weights is None else "none",
        )
        loss = losses.mean()
        if teacher is None or extension is None:
            return loss
        with torch.no_grad():
            opinion = teacher(chunk).float()
        kept = distillation(logits[:, : extension.num_old], opinion, temperature=extension.temperature)
        return loss + extension.distill * kept

    return objective


def class_weights(
    counts: list[int], weights: Literal["balanced"] | tuple[float, ...], *, classes: Sequence[str]
) -> Tensor:
    """Return the weight of each class (K,) in the loss; their mean over training images with these `counts` is 1.

    Raises: UserError unless there is one weight for each class.
    """
    num_images = torch.tensor(counts, dtype=torch.float64)
    if weights == "balanced":
        given = 1 / num_images.clamp(min=1)
    elif len(weights) == len(counts):
        given = torch.tensor(weights, dtype=torch.float64)
    else:
        raise UserError(
            f"class_weights has {len(weights)} numbers for {len(counts)} classes: give one for each, in the order "
            f"{', '.join(classes)}, or write balanced"
        )
    return (given * num_images.sum() / (given * num_images).sum()).float()


def log_prior(counts: list[int], *, recipe: Recipe) -> Tensor:
    """Return the logarithm of each class's share (K,) of the images seen in training."""
    exponent = 1 - recipe.sampling.balance if recipe.sampling else 1.0
    weights = torch.tensor(counts, dtype=torch.float64).clamp(min=1) ** exponent
    return (weights / weights.sum()).log().float()


def distillation(logits: Tensor, opinion: Tensor, *, temperature: float) -> Tensor:
    """Compute the mean KL divergence of logits (N, K') from the teacher's, times the squared temperature."""
    ours, theirs = (F.log_softmax(each / temperature, dim=1) for each in (logits, opinion))
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2

"""What training makes small: cross-entropy, with what a recipe adds to it.

Source: logit adjustment, Menon et al. 2020, arXiv:2007.07314 (its loss; balanced softmax, Ren et al. 2020,
arXiv:2007.10740, is the same with the classes' counts); distillation from the network before, Li and Hoiem 2016,
"Learning without Forgetting", arXiv:1606.09282.
Axes: N images, C channels, H rows, W columns, K classes, K' old classes.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from reslab.data.images import ImageSet
from reslab.recipe.recipe import Recipe

Forward = Callable[[Tensor], Tensor]  # images (N, C, H, W) to logits (N, K)
Objective = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits (N, K), images, labels (N,) to the mean loss


def make_objective(recipe: Recipe, *, images: ImageSet, teacher: Forward | None, device: torch.device) -> Objective:
    """Build the loss of `recipe` for its training images; `teacher` is the network that is being extended."""
    offset = recipe.logit_adjustment * log_prior(images.counts(), recipe=recipe).to(device)
    extension = recipe.extension

    def objective(logits: Tensor, chunk: Tensor, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(logits + offset, labels, label_smoothing=recipe.label_smoothing)
        if teacher is None or extension is None:
            return loss
        with torch.no_grad():
            opinion = teacher(chunk).float()
        kept = distillation(logits[:, : extension.num_old], opinion, temperature=extension.temperature)
        return loss + extension.distill * kept

    return objective


def log_prior(counts: list[int], *, recipe: Recipe) -> Tensor:
    """Give the logarithm of each class's share (K,) of the images that training sees."""
    exponent = 1 - recipe.sampling.balance if recipe.sampling else 1.0
    weights = torch.tensor(counts, dtype=torch.float64).clamp(min=1) ** exponent
    return (weights / weights.sum()).log().float()


def distillation(logits: Tensor, opinion: Tensor, *, temperature: float) -> Tensor:
    """Measure how far logits (N, K') are from the teacher's: mean KL divergence, times temperature squared."""
    ours, theirs = (F.log_softmax(each / temperature, dim=1) for each in (logits, opinion))
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2

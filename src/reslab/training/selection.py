"""Learning from a batch's hardest images alone: a pass without gradients finds them.

Source: Jiang et al. 2019, "Accelerating deep learning by focusing on the biggest losers", arXiv:1910.00762; the fastest
recipes of KellerJordan/cifar10-airbench choose so too, by a smaller network.
Differs from it: the share is fixed and the choice certain; the network chooses for itself, by what it would say in
evaluation, since that needs no second network and leaves batch norm's statistics alone.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from reslab.data.parts import FEWEST_IMAGES
from reslab.models import Classifier
from reslab.network.inference import predict_logits
from reslab.recipe.recipe import Selection
from reslab.training.distributed import Share
from reslab.training.objective import Objective


class Choice(NamedTuple):
    """The hardest images of a part of a batch, and the mean loss and the hits of all of its images."""

    share: Share
    loss: Tensor
    hits: Tensor


def choose(share: Share, model: Classifier, *, by: Selection, objective: Objective) -> Choice:
    """Keep the images with the highest cross-entropy, in their order; each process of a run chooses in its own part."""
    logits = predict_logits(model, share.images, prepare=lambda images: images).to(share.labels.device)
    losses = F.cross_entropy(logits, share.labels, reduction="none")
    hardest = losses.topk(_num_kept(len(losses), by)).indices.sort().values
    kept = Share(share.images[hardest], share.labels[hardest], share.weight, _num_kept(share.smallest, by))
    with torch.no_grad():
        loss = objective(logits, share.images, share.labels)
    return Choice(kept, loss * share.weight, (logits.argmax(1) == share.labels).sum())


def _num_kept(num: int, by: Selection) -> int:
    return min(num, max(FEWEST_IMAGES, round(num * by.share)))

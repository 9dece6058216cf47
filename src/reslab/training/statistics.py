"""Batch norm: what its statistics need, and their recomputation at the end of a run, for the final weights.

During training, every batch moves the statistics by a tenth. After few updates they have not settled, however well the
network has learned.

Source: Wu and Johnson 2021, "Rethinking 'Batch' in BatchNorm", arXiv:2105.07576 (precise batch norm).
Differs from it: images as evaluation sees them, that is whole, not augmented and in float32; layers other than batch
norm, such as dropout, compute as they do in evaluation.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from reslab.errors import UserError
from reslab.recipe.recipe import Recipe

NUM_IMAGES, BATCH_SIZE = 2048, 128  # fixed, so that results depend on neither threads nor memory


def check_norms(model: nn.Module, recipe: Recipe, *, fewest_images: int) -> None:
    """Check that batch norm sees several images at a time, if the smallest batch has `fewest_images`.

    Raises: UserError if it would see single images, which may have no standard deviation.
    """
    is_single = fewest_images == 1 or recipe.micro_batch_size == 1
    if not is_single or recipe.freeze_norms or not any(isinstance(part, _BatchNorm) for part in model.modules()):
        return
    if fewest_images == 1 and recipe.batch_size > 1:
        raise UserError("an epoch has a single image, and batch norm needs two or more: give it more images")
    field = "batch_size" if recipe.batch_size == 1 else "micro_batch_size"
    raise UserError(f"{field}=1 shows batch norm single images, and it needs two or more at a time: set {field} higher")


@torch.no_grad()
def renew_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace running statistics by their plain mean over batches of standardised images (N, C, H, W), in place.

    The result depends only on weights and batches. For a network without running statistics, no batch is read.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    was_training, momenta = model.training, [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    try:
        for images in batches:
            model(images.to(memory_format=torch.channels_last))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(was_training)

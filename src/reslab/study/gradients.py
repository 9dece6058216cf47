"""Measure the gradient in each layer of a fresh network: does depth make it vanish?

Source: the question is that of He et al. 2015, arXiv:1512.03385, section 4.1, which reports healthy norms without
showing them.
Differs from it: one batch at initialisation, in training mode; norms of the gradient by the weights of a layer.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from reslab import models
from reslab.data.batches import Batches, standardize
from reslab.data.recipe_data import read_split
from reslab.machine.device import pick_device
from reslab.recipe.recipe import Recipe

IMAGES_TO_PREPARE = 1000  # for networks that are initialised from data


def gradient_norms(
    recipe: Recipe,
    *,
    seed: int = 0,
    device: str = "auto",
    data_dir: Path | None = None,
    allow_remote: bool = False,
) -> dict[str, float]:
    """Return the Euclidean norm of the mean loss's gradient for the weights of every convolution and linear layer.

    The keys are the layers' names, from the input to the head; layers that are not trained are left out.
    """
    chosen = pick_device(device)
    images = read_split(recipe, "train", data_dir=data_dir, allow_remote=allow_remote)
    by = recipe.standardize or images.statistics()
    torch.manual_seed(seed)
    model = models.build(recipe.model, num_classes=len(images.classes), channels=images.images.shape[1])
    model.prepare(standardize(images.images[:IMAGES_TO_PREPARE], by=by))
    model.to(chosen).train()
    pixels, labels = next(Batches(images, recipe=recipe, by=by, seed=seed, device=chosen).epoch(0))
    F.cross_entropy(model(pixels), labels).backward()  # type: ignore[no-untyped-call]
    return {
        name: float(module.weight.grad.norm())
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.grad is not None
    }

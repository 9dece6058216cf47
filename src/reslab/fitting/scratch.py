"""Training from scratch if no pretrained network is installed, for a fixed number of updates at any data size."""

from pathlib import Path

import torch

from reslab.data.images import ImageSet
from reslab.machine import kernels
from reslab.machine.timing import time_update
from reslab.models import build
from reslab.recipe.recipe import Recipe, derive
from reslab.recipe.shipped import find_recipe
from reslab.runs import Run
from reslab.training import train

BASE = "lab-resnet32-short"
UPDATES, LARGEST_BATCH, IMAGE_SIZE = 2000, 128, 32
SHARE = 0.8  # of the remaining time, for updates only


def train_from_scratch(
    images: ImageSet,
    *,
    out: Path | str,
    minutes: float,
    seed: int,
    data_dir: Path | None,
    skip_damaged: bool,
    silent: bool,
) -> Run:
    """Train a small residual network for as many updates as are useful, or as the minutes allow."""
    recipe = derive(plan(images), name="fit-from-scratch", skip_damaged=skip_damaged)
    channels = images.images.shape[1]
    model = build(recipe.model, num_classes=len(images.classes), channels=channels)
    kernels.enable(torch.device("cpu"))  # as the training does
    seconds = time_update(model, batch=(recipe.batch_size, channels, recipe.image_size, recipe.image_size))
    share = min(1.0, SHARE * 60 * minutes / (seconds * UPDATES))
    return train(recipe.shortened(share), out=out, seed=seed, data_dir=data_dir, allow_remote=True, silent=silent)


def plan(images: ImageSet) -> Recipe:
    """Derive a recipe with `UPDATES` updates in total and at least eight in each epoch."""
    num = len(images.labels)
    batch_size = max(2, min(LARGEST_BATCH, num // 8))
    epochs = -(-UPDATES // max(1, num // batch_size))
    return derive(
        find_recipe(BASE),
        name="fit-from-scratch",
        source="reslab fit, without pretrained networks",
        data=images.expression,
        image_size=IMAGE_SIZE,
        standardize=None,
        progressive_resizing=(),
        epochs=epochs,
        batch_size=batch_size,
    )

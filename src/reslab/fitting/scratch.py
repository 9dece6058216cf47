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
from reslab.training.budget import shorten
from reslab.training.safety import Safety

BASE = "lab-resnet32-short"
UPDATES, LARGEST_BATCH, IMAGE_SIZE = 2000, 128, 32
SHARE = 0.8  # of the remaining time, for updates only


def train_from_scratch(
    images: ImageSet,
    *,
    out: Path | str,
    minutes: float,
    until: float,
    seed: int,
    data_dir: Path | None,
    skip_damaged: bool,
    silent: bool,
) -> Run:
    """Train a small residual network for as many updates as are useful, or as the minutes allow.

    It ends at the latest at the `time.monotonic` time `until`.
    """
    recipe = derive(plan(images), name="fit-from-scratch", skip_damaged=skip_damaged)
    channels = images.images.shape[1]
    model = build(recipe.model, num_classes=len(images.classes), channels=channels)
    kernels.enable(torch.device("cpu"))  # as the training does
    seconds = time_update(model, batch=(recipe.batch_size, channels, recipe.image_size, recipe.image_size))
    affordable = max(1, int(SHARE * 60 * minutes / seconds))
    if affordable < UPDATES:
        recipe = shorten(recipe, updates=affordable, per_epoch=recipe.count_batches(len(images.labels)), total=UPDATES)
    return train(
        recipe,
        out=out,
        seed=seed,
        data_dir=data_dir,
        allow_remote=True,
        silent=silent,
        safety=Safety(until=until),
    )


def plan(images: ImageSet) -> Recipe:
    """Derive a recipe with `UPDATES` updates in total and at least eight in each epoch."""
    num = len(images.labels)
    batch_size = max(2, min(LARGEST_BATCH, num // 8))
    recipe = derive(
        find_recipe(BASE),
        name="fit-from-scratch",
        source="reslab fit, without pretrained networks",
        data=images.expression,
        image_size=IMAGE_SIZE,
        standardize=None,
        progressive_resizing=(),
        batch_size=batch_size,
        updates=UPDATES,
    )
    return derive(recipe, name=recipe.name, epochs=-(-UPDATES // recipe.count_batches(len(images.labels))))

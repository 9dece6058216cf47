"""Training from scratch if no pretrained network is installed, for a fixed number of updates at any data size."""

import time
from pathlib import Path

from reslab.data.images import ImageSet
from reslab.data.load import load
from reslab.machine.device import pick_device
from reslab.recipe.recipe import Recipe, derive
from reslab.recipe.shipped import find_recipe
from reslab.runs import Run
from reslab.training import train
from reslab.training.budget import FEWEST, TooShort, shorten, within
from reslab.training.safety import Safety

BASE = "lab-resnet32-short"
UPDATES, LARGEST_BATCH, IMAGE_SIZE = 2000, 128, 32


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
    """Train a small residual network for as many updates as are useful, or as the minutes allow, but for a few.

    It ends at the latest at the `time.monotonic` time `until`.
    """
    recipe = derive(plan(images), name="fit-from-scratch", skip_damaged=skip_damaged)
    began = time.monotonic()
    small = load(  # as the training reads them, so that a batch takes as long
        recipe.data, "train", data_dir=data_dir, image_size=recipe.image_size, skip_damaged=skip_damaged
    )
    left = max(minutes - (time.monotonic() - began) / 60, 1e-9)  # none left is too short, too
    try:
        recipe = within(recipe, minutes=left, images=small, device=pick_device("auto"))
    except TooShort:
        per_epoch = recipe.count_batches(len(images.labels))
        recipe = shorten(recipe, updates=min(FEWEST, UPDATES), per_epoch=per_epoch, total=UPDATES)
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

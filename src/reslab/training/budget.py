"""Shortening of a recipe to a number of minutes, by the measured time of an update on this machine."""

import itertools
import time
from math import ceil, floor, isfinite, log10

import torch

from reslab import models
from reslab.data.batches import Batches
from reslab.data.images import ImageSet
from reslab.data.parts import part_of
from reslab.errors import UserError
from reslab.machine import kernels
from reslab.machine.precision import pick_precision
from reslab.machine.timing import time_update
from reslab.network.inference import place_on
from reslab.recipe.recipe import Recipe, Standardize, Steps, derive
from reslab.training.determinism import own_generator
from reslab.training.freezing import check_freezing, freeze
from reslab.training.statistics import check_norms
from reslab.words import counted

END = 0.95  # of the time, after which a run that takes longer than estimated ends, to write its weights
SHARE = 0.8  # of the time, for updates; the rest is for validation, checkpoints and the end of the run
FEWEST = 10  # minimum number of updates in a run
PREPARED = 3  # batches timed


class TooShort(UserError):  # noqa: N818 - a kind of error, not its name
    """The minutes are not enough for even a few updates."""


def within(
    recipe: Recipe,
    *,
    minutes: float,
    images: ImageSet,
    device: torch.device,
    precision: str = "auto",
    num_ranks: int = 1,
    share: float = 1.0,
) -> Recipe:
    """Shorten `recipe` to the updates that fit into `minutes`, and everything counted in epochs or updates with it.

    The updates as they are timed may take this `share` of the minutes.

    An update is timed by the part of a batch that one of `num_ranks` processes has.
    The learning rate still falls within the run. A recipe that already fits is returned unchanged.
    Raises: TooShort if not even a few updates fit; UserError if the minutes are not above 0 and finite.
    """
    if not (isfinite(minutes) and minutes > 0):
        raise UserError(f"--minutes {minutes:g} must be above 0 and finite")
    kernels.enable(device)  # as the run does
    num = images.images.shape[1]
    by = Standardize(mean=(128.0,) * num, std=(64.0,) * num)  # any takes as long, and measuring it reads all images
    batches = Batches(images, recipe=recipe, by=by, seed=0, device=device, num_ranks=num_ranks)
    per_epoch = len(batches)
    total = recipe.count_updates(per_epoch)
    with own_generator(device):  # the network timed draws its weights
        seconds = _time(recipe, batches, images=images, device=device, precision=precision, num_ranks=num_ranks)
    seconds /= share
    affordable = int(SHARE * 60 * minutes / seconds)
    if affordable >= total:
        return recipe
    if affordable < FEWEST:
        raise TooShort(
            f"{minutes:g} minutes are enough for {counted(affordable, 'update')} of {recipe.name} here, at "
            f"{seconds:.2g} s each: allow {_round_up(FEWEST * seconds / SHARE / 60):g} minutes or more, or choose a "
            "smaller network"
        )
    return shorten(recipe, updates=affordable, per_epoch=per_epoch, total=total)


def _round_up(minutes: float) -> float:
    """Round up to two digits, so that what is advised is enough."""
    unit = 10.0 ** (floor(log10(minutes)) - 1)
    return float(f"{ceil(minutes / unit) * unit:.2g}")


def shorten(recipe: Recipe, *, updates: int, per_epoch: int, total: int) -> Recipe:
    """Shorten a recipe of `total` updates, `per_epoch` in each epoch, to `updates`."""
    schedule = recipe.schedule
    if isinstance(schedule, Steps) and schedule.unit == "epochs":  # there may be too few epochs for the steps
        schedule = Steps(at=tuple(each * per_epoch for each in schedule.at), unit="updates", factor=schedule.factor)
    counted_in_updates = derive(recipe, name=recipe.name, schedule=schedule, updates=total)
    shortened = counted_in_updates.shortened(updates / total)
    changes = {"updates": updates, "epochs": -(-updates // per_epoch)}
    return derive(shortened, name=f"{recipe.name}-{updates}updates", **changes)


def _time(
    recipe: Recipe, batches: Batches, *, images: ImageSet, device: torch.device, precision: str, num_ranks: int
) -> float:
    """Measure the seconds per update including batch preparation, as a mean over the epochs of a run.

    An update is timed anew for each set of frozen parameters, and scaled to the image size of each epoch.
    Raises: UserError if the recipe freezes everything or unknown parameters.
    """
    last, channels = recipe.epochs - 1, images.images.shape[1]
    began, prepared = time.perf_counter(), list(itertools.islice(batches.epoch(last), PREPARED))
    preparing = (time.perf_counter() - began) / len(prepared)
    model = place_on(models.build(recipe.model, num_classes=len(images.classes), channels=channels), device)
    check_norms(model, recipe, fewest_images=min(batches.sizes))
    check_freezing(model, recipe.freeze, epochs=recipe.epochs)
    side = recipe.image_size_at(last)
    part = part_of(max(batches.sizes), rank=0, num_ranks=num_ranks)
    num = part.end - part.begin
    size = min(recipe.micro_batch_size or num, num)
    chunks = num / size
    multiplied = pick_precision(precision, device=device)
    updating, total = 0.0, 0.0
    for epoch in range(recipe.epochs):
        if epoch == 0 or epoch in {each.epoch for each in recipe.freeze}:
            freeze(model, recipe.freeze, epoch=epoch)
            updating = chunks * time_update(model, batch=(size, channels, side, side), precision=multiplied)
        total += (preparing + updating) * (recipe.image_size_at(epoch) / side) ** 2
    return total / recipe.epochs

"""Estimate what the runs of a study cost on this machine, from a few updates of each network.

On a CPU, an update is timed by what its thread computes: the load by other programs at this moment says nothing about
the hours to come. This thread takes part in everything that several threads do.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch

from reslab import models
from reslab.data.batches import Batches
from reslab.data.images import ImageSet
from reslab.data.parts import part_of
from reslab.data.recipe_data import read_split
from reslab.extension.methods import METHODS, TUNED_SHARE, most_epochs
from reslab.machine import kernels
from reslab.machine.device import pick_device
from reslab.machine.memory import keep_freed_memory
from reslab.machine.precision import pick_precision
from reslab.network.inference import place_on
from reslab.recipe.recipe import Method, Recipe
from reslab.runs import Run
from reslab.study.plan import Job, Lesson, Machine, Say, naming_row
from reslab.training.compiling import Work, share_of_time
from reslab.training.distributed import Share
from reslab.training.objective import make_objective
from reslab.training.optim import make_optimizer
from reslab.training.statistics import check_norms
from reslab.training.step import make_forward, update
from reslab.words import counted, duration

MOST_UPDATES: Final = 10
ENOUGH_SECONDS: Final = 4.0  # after which fewer updates suffice to time a slow network
FEW_IMAGES: Final = 16  # in the first update, which tells how many the next ones can have
EVALUATION: Final = 0.4  # epochs: one forward pass over both splits
TEACHER: Final = 4 / 3  # the factor by which a second network's forward pass raises the cost


@dataclass(frozen=True)
class RunCost:
    """Seconds of an epoch of `num_images` at full size, and how many such epochs the run has."""

    seconds_per_epoch: float
    epochs: float
    num_images: int


def estimate(jobs: Sequence[Job], *, machine: Machine, num_workers: int, say: Say) -> list[float]:
    """Estimate the seconds that each job still takes, and report each row as soon as it is estimated."""
    say("estimating the cost on this machine, from a few updates of each network")
    costs: dict[str, RunCost] = {}
    images: dict[str, ImageSet] = {}
    for label in dict.fromkeys(job.label for job in jobs):
        runs = [job for job in jobs if job.label == label]
        with naming_row(label):
            cost = costs[label] = _measure(runs[0], costs, images, machine=machine)
        total = duration(sum(_remaining(each, cost) for each in runs))
        say(f"{label}: {_cost_words(cost, num_runs=len(runs))}: about {total}")
    seconds = [_remaining(job, costs[job.label]) for job in jobs]
    shared = f", {duration(sum(seconds) / num_workers)} by {num_workers} workers" if num_workers > 1 else ""
    say(f"together: about {duration(sum(seconds))}{shared}")
    return seconds


def _cost_words(cost: RunCost, *, num_runs: int) -> str:
    epochs = f"{cost.epochs:.4g}"
    times = f", {counted(num_runs, 'run')}" if num_runs > 1 else ""
    return f"{epochs} {'epoch' if epochs == '1' else 'epochs'} of {duration(cost.seconds_per_epoch)} here{times}"


def _measure(job: Job, costs: dict[str, RunCost], images: dict[str, ImageSet], *, machine: Machine) -> RunCost:
    if isinstance(job.task, Lesson):
        label = job.task.base.name.rpartition("-")[0]
        # The base's run may be done already, and so have no estimate of its own.
        base = costs.get(label) or _measure_recipe(Run.open(job.task.base).recipe, images, machine=machine)
        return replace(base, epochs=_lesson_epochs(job.task.method, base))
    return _measure_recipe(job.task, images, machine=machine)


def _measure_recipe(recipe: Recipe, images: dict[str, ImageSet], *, machine: Machine) -> RunCost:
    key = f"{recipe.data} {recipe.image_size} {recipe.channels} {recipe.validation}"
    if key not in images:
        images[key] = read_split(recipe, "train", data_dir=machine.data_dir, allow_remote=machine.allow_remote)
    return measure(recipe, images[key], device=machine.device)


def measure(recipe: Recipe, images: ImageSet, *, device: str) -> RunCost:
    """Time a few real updates of a fresh network; smaller images are assumed to cost in proportion to their pixels."""
    keep_freed_memory()
    chosen = pick_device(device)
    kernels.enable(chosen)
    batches = Batches(images, recipe=recipe, by=recipe.standardize or images.statistics(), seed=0, device=chosen)
    fresh = models.build(recipe.model, num_classes=len(images.classes), channels=images.images.shape[1])
    model = place_on(fresh, chosen)
    check_norms(model, recipe, fewest_images=min(batches.sizes))
    optimizer = make_optimizer(model, settings=recipe.optimizer)
    objective = make_objective(recipe, images=images, teacher=None, device=chosen)
    precision = pick_precision(device=chosen)
    forward = make_forward(model, device=chosen, precision=precision)
    read_clock = _clock(chosen)
    per_image: list[float] = []
    spent, num_images, began = 0.0, FEW_IMAGES, read_clock()
    last = max(recipe.epochs - 1, *(each.epoch for each in recipe.progressive_resizing), 0)  # at full size
    for pixels, labels in batches.epoch(last):
        num = min(num_images, len(labels))
        chunks = Share(pixels[:num], labels[:num], part_of(num, rank=0, num_ranks=1)).chunks(recipe.micro_batch_size)
        float(update(forward, optimizer, objective=objective, chunks=chunks, rate=0.0)[0])  # waits for a GPU
        now = read_clock()
        per_image.append((now - began) / num)
        spent, began = spent + now - began, now
        if len(per_image) > MOST_UPDATES or (len(per_image) > 1 and spent > ENOUGH_SECONDS):
            break
        num_images = max(FEW_IMAGES, int(ENOUGH_SECONDS / 2 / max(min(per_image), 1e-9)))
    num_updates = recipe.count_updates(len(batches))
    batch = (min(recipe.micro_batch_size or recipe.batch_size, recipe.batch_size), *pixels.shape[1:])
    work = Work(num_updates * -(-recipe.batch_size // batch[0]), batch, batches.count_shapes(), precision)
    share = share_of_time(model, work=work, plain=min(per_image) * batch[0])
    epochs = num_updates / len(batches)
    return RunCost(share * min(per_image) * batches.num_images, epochs * recipe.share_of_pixels, batches.num_images)


def _clock(device: torch.device) -> Callable[[], float]:
    """Choose a clock that other programs do not affect: this thread's time or, on a GPU, wall time."""
    return time.thread_time if device.type == "cpu" else time.perf_counter


def _lesson_epochs(method: Method, base: RunCost) -> float:
    """Return what an extension costs in epochs of its base; it is assumed to have about as many images."""
    if METHODS[method].on_features:
        return 1.0  # a forward pass over each image and its mirror image
    if method == "joint":
        return base.epochs
    return TEACHER * min(TUNED_SHARE * base.epochs, most_epochs(base.num_images))


def _remaining(job: Job, cost: RunCost) -> float:
    run = Run(job.out)
    done = 0.0
    if job.is_begun:
        done = 1.0 if run.is_finished else _share_done(run)
    return cost.seconds_per_epoch * (cost.epochs * (1 - done) + EVALUATION)


def _share_done(run: Run) -> float:
    """Return the share of a run from which it resumes; a limit on updates may end a run before its last epoch."""
    log = run.log
    if not log or not run.has_checkpoint:  # without one, it is trained again, whatever is logged
        return 0.0
    updates = run.recipe.updates
    return max(log[-1].epoch / run.recipe.epochs, log[-1].updates / updates if updates else 0.0)

"""What the runs of a study cost on this machine, from a few updates of each network."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from reslab import models
from reslab.data import ImageSet
from reslab.data.batches import Batches, image_size_at
from reslab.data.recipe_data import read_split
from reslab.extension.methods import METHODS, TUNED_SHARE
from reslab.models.device import pick_device
from reslab.models.memory import keep_freed_memory
from reslab.models.precision import pick_precision
from reslab.recipe import Method, Recipe
from reslab.runs import Run
from reslab.study.plan import Job, Lesson, Machine, Say
from reslab.training.objective import make_objective
from reslab.training.optim import make_optimizer
from reslab.training.step import make_forward, update

MOST_UPDATES: Final = 4
ENOUGH_SECONDS: Final = 5.0  # then a slow network has been timed well enough by fewer
EVALUATION: Final = 0.4  # epochs: one pass forward over both splits
TEACHER: Final = 4 / 3  # the share that a second network's opinion adds


@dataclass(frozen=True)
class Cost:
    """Seconds of an epoch at full image size, and how many such epochs the run has."""

    seconds_per_epoch: float
    epochs: float


def estimate(jobs: Sequence[Job], *, machine: Machine, num_workers: int, say: Say) -> list[float]:
    """Estimate the seconds that each job still takes, and say them by row."""
    costs: dict[str, Cost] = {}
    images: dict[str, ImageSet] = {}
    seconds = []
    for job in jobs:
        if job.label not in costs:
            costs[job.label] = _measure(job, costs, images, machine=machine)
        seconds.append(_remaining(job, costs[job.label]))
    for label, cost in costs.items():
        taken = [each for job, each in zip(jobs, seconds, strict=True) if job.label == label]
        say(
            f"{label}: {cost.epochs:.4g} epochs of {cost.seconds_per_epoch:.1f} s here, times {len(taken)}: about "
            f"{describe_seconds(sum(taken))}"
        )
    shared = f", {describe_seconds(sum(seconds) / num_workers)} by {num_workers} workers" if num_workers > 1 else ""
    say(f"together: about {describe_seconds(sum(seconds))}{shared}")
    return seconds


def describe_seconds(seconds: float) -> str:
    """Write a rough time in the unit that suits it."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(1, seconds):.0f} seconds"


def _measure(job: Job, costs: dict[str, Cost], images: dict[str, ImageSet], *, machine: Machine) -> Cost:
    if isinstance(job.task, Lesson):
        # What the base cost; its run may be done already, and then says it itself.
        label = job.task.base.name.rpartition("-")[0]
        base = costs[label] if label in costs else _logged(Run.open(job.task.base))
        return Cost(base.seconds_per_epoch, _lesson_epochs(job.task.method, base.epochs))
    recipe = job.task
    key = f"{recipe.data} {recipe.image_size} {recipe.validation}"
    if key not in images:
        images[key] = read_split(recipe, "train", data_dir=machine.data_dir)
    return measure(recipe, images[key], device=machine.device)


def measure(recipe: Recipe, images: ImageSet, *, device: str) -> Cost:
    """Time a few real updates of a fresh network; smaller images are taken to cost by their pixels."""
    keep_freed_memory()
    chosen = pick_device(device)
    batches = Batches(images, recipe=recipe, by=recipe.standardize or images.statistics(), seed=0, device=chosen)
    model = models.build(
        recipe.model.model_dump(), num_classes=len(images.classes), channels=images.images.shape[1]
    ).to(chosen, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(model, settings=recipe.optimizer)
    objective = make_objective(recipe, images=images, teacher=None, device=chosen)
    forward = make_forward(model, device=chosen, precision=pick_precision(device=chosen))
    times: list[float] = []
    began = time.perf_counter()
    last = max(recipe.epochs - 1, *(growth.epoch for growth in recipe.growth), 0)  # at full size
    for pixels, labels in batches.epoch(last):
        num_chunks = -(-len(labels) // (recipe.chunk_size or len(labels)))
        chunks = list(zip(pixels.tensor_split(num_chunks), labels.tensor_split(num_chunks), strict=True))
        float(update(forward, optimizer, objective=objective, chunks=chunks, rate=0.0)[0])  # waits for a GPU
        now = time.perf_counter()
        times.append(now - began)
        began = now
        if len(times) == MOST_UPDATES or (len(times) > 1 and sum(times) > ENOUGH_SECONDS):
            break
    epochs = min(recipe.epochs, (recipe.updates or recipe.epochs * len(batches)) / len(batches))
    pixels_share = sum((image_size_at(recipe, epoch) / recipe.image_size) ** 2 for epoch in range(recipe.epochs))
    return Cost(min(times) * len(batches), epochs * pixels_share / recipe.epochs)


def _logged(run: Run) -> Cost:
    log = run.log
    return Cost(sum(epoch.seconds for epoch in log) / len(log), len(log))


def _lesson_epochs(method: Method, base_epochs: float) -> float:
    if METHODS[method].on_features:
        return 1.0  # a pass forward over each image and its mirror image
    return base_epochs * (1.0 if method == "joint" else TUNED_SHARE * TEACHER)


def _remaining(job: Job, cost: Cost) -> float:
    run = Run(job.out)
    done = 0.0
    if job.is_begun:
        done = 1.0 if run.is_finished else len(run.log) / run.recipe.epochs
    return cost.seconds_per_epoch * (cost.epochs * (1 - done) + EVALUATION)

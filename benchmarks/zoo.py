"""Every network of the zoo takes some steps on real CIFAR-10: does its loss fall, how long is a step, how much memory?

Each network is trained by its recipe, in a process of its own, from its first batch on; the large ones, and the ResNets
for large images with the stem for small ones, take smaller batches at a rate that is as much smaller. Losses are means
over the first and the last steps, times are medians. Networks that the file has already are not trained again, so each
says when and at which commit it was. On a GPU every network takes its recipe's batches, and memory is what PyTorch has
allocated there at most.

    python benchmarks/zoo.py --data-dir DIR          writes benchmarks/zoo.json
    python benchmarks/zoo.py --data-dir DIR --recipes zoo-lenet --steps 2 --out zoo.json
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from record import write_record

from reslab import models
from reslab.data.batches import Batches
from reslab.data.images import ImageSet
from reslab.data.recipe_data import read_split
from reslab.machine import kernels
from reslab.machine.launch import choose_settings
from reslab.machine.memory import keep_freed_memory
from reslab.machine.precision import pick_precision
from reslab.recipe.networks import ImageNetResNet
from reslab.recipe.recipe import Recipe, derive
from reslab.recipe.shipped import find_recipe
from reslab.recipe.shipped.zoo import PUBLISHED
from reslab.training.environment import describe_environment
from reslab.training.graphs import make_updater
from reslab.training.objective import make_objective
from reslab.training.optim import make_optimizer
from reslab.training.step import make_forward

STEPS, ENDS = 200, 20
BATCHES = {
    "zoo-wrn16-8": 32,
    "zoo-wrn28-10": 16,
    "zoo-densenet-bc-100-12": 32,
    "zoo-densenet-bc-100-24": 16,
    "zoo-densenet-bc-160-24": 8,
    "zoo-resnext29-4x64d": 16,
    "zoo-se-resnext29-4x64d": 16,
    "resnet18": 64,
    "resnet34": 32,
    "resnet50": 32,
    "resnet101": 16,
    "resnet152": 16,
}
RESNETS = {f"resnet{depth}": ImageNetResNet(depth=depth, stem="small") for depth in (18, 34, 50, 101, 152)}
NAMES = (*PUBLISHED, *RESNETS)


def read_recipe(name: str, *, device: str) -> Recipe:
    """Find a recipe of the zoo, or make one for a ResNet, on a CPU at the batch size that stands above."""
    recipe = find_recipe(name if name in PUBLISHED else "zoo-preact-resnet20")
    batch_size = BATCHES.get(name, recipe.batch_size) if device == "cpu" else recipe.batch_size
    rate = recipe.optimizer.peak_lr * batch_size / recipe.batch_size
    optimizer = recipe.optimizer.model_copy(update={"peak_lr": rate})
    model = RESNETS.get(name, recipe.model)
    return derive(recipe, name=name, model=model, optimizer=optimizer, batch_size=batch_size)


def train(recipe: Recipe, images: ImageSet, *, steps: int, device: torch.device) -> dict[str, Any]:
    """Take the steps; losses, seconds and megabytes."""
    environment = describe_environment(device=device, seed=0, data=())
    keep_freed_memory()
    kernels.enable(device)
    torch.manual_seed(0)
    model = models.build(recipe.model, num_classes=len(images.classes))
    model = model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = make_optimizer(model, settings=recipe.optimizer)
    forward = make_forward(model, device=device, precision=pick_precision(device=device))
    objective = make_objective(recipe, images=images, teacher=None, device=device)
    take = make_updater(forward, optimizer, objective=objective, device=device)
    batches = Batches(images, recipe=recipe, by=recipe.standardize or images.statistics(), seed=0, device=device)
    losses, seconds = [], []
    began = time.perf_counter()
    for batch in islice(batches.epoch(0), steps):
        loss, _ = take([batch], rate=1.0)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
    return {
        "steps": len(losses),
        "batch_size": recipe.batch_size,
        "first_loss": round(statistics.mean(losses[:ENDS]), 4),
        "last_loss": round(statistics.mean(losses[-ENDS:]), 4),
        "seconds_per_step": round(statistics.median(seconds), 4),
        "peak_megabytes": peak_bytes(device) // 10**6,
        "started": environment.started,
        "commit": environment.commit,
    }


def peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(name: str, *, device: str, steps: int, data_dir: Path | None) -> dict[str, Any]:
    """Train a network in a process of its own, with the settings that `reslab train` has."""
    command = [sys.executable, __file__, "--serve", name, "--steps", str(steps), "--device", device]
    command += ["--data-dir", str(data_dir)] if data_dir else []
    settings = {**os.environ, **choose_settings()}
    done = subprocess.run(command, env=settings, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--recipes", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--serve", choices=NAMES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        recipe = read_recipe(arguments.serve, device=arguments.device)
        images = read_split(recipe, "train", data_dir=arguments.data_dir)
        print(json.dumps(train(recipe, images, steps=arguments.steps, device=torch.device(arguments.device))))
        return
    found = json.loads(arguments.out.read_text())["result"] if arguments.out.exists() else {}
    for name in arguments.recipes:
        if found.get(name, {}).get("steps") != arguments.steps:
            found[name] = run(name, device=arguments.device, steps=arguments.steps, data_dir=arguments.data_dir)
            write_record(arguments.out, found, device=arguments.device)


if __name__ == "__main__":
    main()

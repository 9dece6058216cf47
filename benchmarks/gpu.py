"""One update on a GPU, taken in four ways, and several small networks at once on one device.

The ways: each kernel launched by itself or replayed from a recorded graph, with and without a compiled network; batches
of noise, prepared as for CIFAR-10. Losses after the timed updates show that the ways compute the same up to rounding.
Several at once are processes that begin to count together; their rates add up; for NVIDIA's MPS, which lets their
kernels run side by side, start `nvidia-cuda-mps-control -d` first.

    python benchmarks/gpu.py --only-at-once --at-once 1,4,12 --seconds 3

writes what `gpu.json` holds: networks at once.
"""

import argparse
import os
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
from reslab.machine.precision import pick_precision
from reslab.recipe.recipe import Recipe, derive
from reslab.recipe.shipped import find_recipe
from reslab.training.graphs import GraphedUpdates
from reslab.training.objective import make_objective
from reslab.training.optim import make_optimizer
from reslab.training.step import make_forward, update

RECIPES = ("lab-resnet32", "resnet-20", "fast94")
NUM_IMAGES, CLASSES = 20_000, tuple("abcdefghij")
WARMUP, PARTS, PART = 12, 5, 20


class Way:
    """A network under training, by one of the ways."""

    def __init__(self, recipe: Recipe, *, graphed: bool, compiled: bool, device: torch.device) -> None:
        torch.manual_seed(0)
        noise = torch.randint(0, 256, (NUM_IMAGES, 3, 32, 32), dtype=torch.uint8)
        images = ImageSet(noise, torch.arange(NUM_IMAGES) % 10, CLASSES, "noise", "train")
        model = models.build(recipe.model, num_classes=10)
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        assert recipe.standardize is not None
        batches = Batches(images, recipe=recipe, by=recipe.standardize, seed=0, device=device)
        self.recipe, self.whole = recipe, len(batches) - 1  # the last batch may be smaller
        self.batches = (batch for epoch in range(10**6) for batch in islice(batches.epoch(epoch), self.whole))
        optimizer = make_optimizer(model, settings=recipe.optimizer)
        objective = make_objective(recipe, images=images, teacher=None, device=device)
        forward = make_forward(model, device=device, precision=pick_precision(device=device), compiled=compiled)
        graphs = GraphedUpdates(forward, optimizer, objective=objective, device=device) if graphed else None

        def take(chunks: Any) -> torch.Tensor:
            if graphs is not None:
                return graphs(chunks, rate=0.01)[0]
            return update(forward, optimizer, objective=objective, chunks=chunks, rate=0.01)[0]

        self.take = take

    def step(self) -> torch.Tensor:
        images, labels = next(self.batches)
        parts = -(-len(labels) // (self.recipe.micro_batch_size or len(labels)))
        return self.take(list(zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True)))

    def steps(self, num: int) -> tuple[float, float]:
        """Take updates; give seconds and the last loss."""
        began = time.perf_counter()
        for _ in range(num):
            loss = self.step()
        return time.perf_counter() - began, float(loss)


def measure(recipe: Recipe, *, graphed: bool, compiled: bool, device: torch.device) -> dict[str, float]:
    began = time.perf_counter()
    way = Way(recipe, graphed=graphed, compiled=compiled, device=device)
    way.steps(WARMUP)
    start = time.perf_counter() - began
    seconds, losses = zip(*(way.steps(PART) for _ in range(PARTS)), strict=True)
    ms = 1000 * statistics.median(seconds) / PART
    return {"ms": round(ms, 3), "seconds_to_start": round(start, 1), "loss": round(losses[-1], 4)}


def at_once(num: int, *, seconds: float) -> float:
    """Count updates a second of so many processes together."""
    command = [sys.executable, __file__, "--count", str(seconds)]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=alone)
        for _ in range(num)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    return round(sum(float(worker.communicate()[0]) for worker in workers), 1)


def count(seconds: float, *, device: torch.device) -> None:
    way = Way(find_recipe("resnet-20"), graphed=True, compiled=False, device=device)
    way.steps(WARMUP)
    print("ready", flush=True)
    sys.stdin.readline()
    began, updates = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        way.steps(PART)
        updates += PART
    print(updates / (time.perf_counter() - began))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--at-once", default="1,8")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--only-at-once", action="store_true")
    parser.add_argument("--count", type=float)
    arguments = parser.parse_args()
    device = torch.device("cuda")
    if arguments.count is not None:
        count(arguments.count, device=device)
        return
    result: dict[str, Any] = {"batches": {}, "updates": {}}
    for name in () if arguments.only_at_once else RECIPES:
        recipe = derive(find_recipe(name), name=name, progressive_resizing=())
        result["batches"][name] = recipe.batch_size
        for compiled in (False, True):
            for graphed in (False, True):
                way = f"{'compiled' if compiled else 'eager'}{', graph' if graphed else ''}"
                result["updates"].setdefault(name, {})[way] = measure(
                    recipe, graphed=graphed, compiled=compiled, device=device
                )
                print(name, way, result["updates"][name][way], flush=True)
    torch.cuda.empty_cache()
    result["resnet-20, graph: updates a second by processes at once"] = {
        num: at_once(int(num), seconds=arguments.seconds) for num in arguments.at_once.split(",")
    }
    write_record(arguments.out, result, device="cuda")


if __name__ == "__main__":
    main()

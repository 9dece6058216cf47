"""The update of reslab against the loop that a person would write by hand, alternated step by step.

By hand: eager, NCHW, the optimizer's defaults, a DataLoader with two workers that augments image by image. Both loops
train a pre-activation ResNet-32 at batch 128 on the same images, with data preparation counted on both sides. Each
lives in a process of its own, since how memory is kept is a setting of a process; only one computes at a time.

    python benchmarks/train_step.py --steps 60          writes benchmarks/train_step.json
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from record import write_record
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from reslab import models
from reslab.data import ImageSet
from reslab.data.batches import Batches
from reslab.models.memory import keep_freed_memory
from reslab.recipes import find_recipe
from reslab.recipes.lab import CIFAR10_PIXELS
from reslab.training.objective import make_objective
from reslab.training.optim import make_optimizer
from reslab.training.step import make_forward, update

WARMUP = 5
MODEL = {"kind": "preact_resnet", "depth": 32, "keras_padding": True}


def make_images(num: int) -> ImageSet:
    """Noise of CIFAR's size and type: the time of a step does not depend on what the images show."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (num,), generator=generator)
    return ImageSet(images, labels, tuple("0123456789"), "noise", "train")


class ByHand(Dataset[tuple[Tensor, int]]):
    """One image at a time: flip, pad and crop, standardise."""

    def __init__(self, images: ImageSet) -> None:
        self.images, self.labels = images.images.numpy(), images.labels.numpy()
        self.mean = np.array(CIFAR10_PIXELS.mean, dtype=np.float32)[:, None, None]
        self.deviation = np.array(CIFAR10_PIXELS.deviation, dtype=np.float32)[:, None, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = (self.images[index].astype(np.float32) - self.mean) / self.deviation
        if np.random.random() < 0.5:
            image = image[:, :, ::-1]
        image = np.pad(image, ((0, 0), (4, 4), (4, 4)))
        top, left = np.random.randint(0, 9, 2)
        window = image[:, top : top + 32, left : left + 32]
        return torch.from_numpy(np.ascontiguousarray(window)), int(self.labels[index])


def steps_by_hand(images: ImageSet) -> Iterator[None]:
    """Train as most tutorials do; a step each time that the iterator is advanced."""
    model = models.build(MODEL, num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=2e-4)
    while True:
        for batch, labels in DataLoader(ByHand(images), batch_size=128, shuffle=True, num_workers=2):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(batch), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()
            yield


def steps_of_reslab(images: ImageSet) -> Iterator[None]:
    """Train as `reslab train lab-resnet32` does."""
    keep_freed_memory()
    recipe = find_recipe("lab-resnet32")
    model = models.build(MODEL, num_classes=10).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(model, settings=recipe.optimizer)
    forward = make_forward(model, device=torch.device("cpu"))
    objective = make_objective(recipe, images=images, teacher=None, device=torch.device("cpu"))
    batches = Batches(images, recipe=recipe, by=CIFAR10_PIXELS, seed=0, device=torch.device("cpu"))
    for epoch in range(10**6):
        for batch, labels in batches.epoch(epoch):
            loss, _ = update(forward, optimizer, objective=objective, chunks=[(batch, labels)], rate=1.0)
            loss.item()
            yield


LOOPS = {"by hand": steps_by_hand, "reslab": steps_of_reslab}


def serve(name: str, pipe: Connection) -> None:
    """Take a step for each message and answer with its seconds; an empty message ends it."""
    torch.manual_seed(0)
    loop = LOOPS[name](make_images(128 * 400))
    while pipe.recv():
        began = time.perf_counter()
        next(loop)
        pipe.send(time.perf_counter() - began)


def measure(steps: int) -> dict[str, list[float]]:
    """Alternate the loops step by step; seconds of every step but the first ones."""
    context = get_context("spawn")
    pipes = {}
    for name in LOOPS:
        pipes[name], far = context.Pipe()
        context.Process(target=serve, args=(name, far)).start()
    times: dict[str, list[float]] = {name: [] for name in LOOPS}
    for step in range(WARMUP + steps):
        for name, pipe in pipes.items():
            pipe.send(True)
            taken = pipe.recv()
            if step >= WARMUP:
                times[name].append(taken)
    for pipe in pipes.values():
        pipe.send(False)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    times = measure(arguments.steps)
    ratios = [hand / ours for hand, ours in zip(times["by hand"], times["reslab"], strict=True)]
    lower, median, upper = statistics.quantiles(ratios, n=4)
    rates = {name: round(128 / statistics.median(taken), 1) for name, taken in times.items()}
    result = {
        "steps": arguments.steps,
        "batch_size": 128,
        "images_per_second": rates,
        "ratio": {"median": round(median, 3), "lower_quartile": round(lower, 3), "upper_quartile": round(upper, 3)},
    }
    write_record(arguments.out, result)


if __name__ == "__main__":
    main()

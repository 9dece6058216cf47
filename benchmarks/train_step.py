"""The update of reslab against the loop that a person would write by hand, or any other, alternated step by step.

By hand: eager, NCHW, float32, PyTorch's convolutions and its SGD, the C library's and OpenMP's defaults, a DataLoader
with two workers that augments image by image. Reslab multiplies with what it chooses here. Both train the network of a
shipped recipe at its batch size, or that of its chunks, on images of its size, with data preparation counted on both
sides.

    python benchmarks/train_step.py --steps 60          writes benchmarks/train_step.json
    python benchmarks/train_step.py --slow "reslab, float32" --out benchmarks/train_step-float32.json
"""

import argparse
import functools
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from alternate import Worker, alternate, compare, serve
from record import write_record
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from reslab import models
from reslab.data.batches import Batches
from reslab.data.images import ImageSet
from reslab.machine import Precision, kernels
from reslab.machine.launch import choose_settings
from reslab.machine.memory import keep_freed_memory
from reslab.machine.precision import multiplying, pick_precision
from reslab.recipe.recipe import Recipe, derive
from reslab.recipe.shipped import find_recipe
from reslab.recipe.shipped.lab import CIFAR10_PIXELS
from reslab.training.objective import make_objective
from reslab.training.optim import make_optimizer
from reslab.training.step import make_forward, update

CPU = torch.device("cpu")
BATCHES = 100  # of an epoch


def read_recipe(name: str) -> Recipe:
    """Find a shipped recipe, with one chunk a batch and images of one size; NAME@N takes batches of N."""
    shipped, _, size = name.partition("@")
    recipe = find_recipe(shipped)
    batch_size = int(size) if size else recipe.micro_batch_size or recipe.batch_size
    return derive(recipe, name=shipped, batch_size=batch_size, micro_batch_size=None, progressive_resizing=())


def make_images(num: int, *, side: int) -> ImageSet:
    """Noise of CIFAR's type: the time of a step does not depend on what the images show."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num, 3, side, side), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (num,), generator=generator)
    return ImageSet(images, labels, tuple("0123456789"), "noise", "train")


class ByHand(Dataset[tuple[Tensor, int]]):
    """One image at a time: flip, pad and crop, standardise."""

    def __init__(self, images: ImageSet) -> None:
        self.images, self.labels = images.images[:].numpy(), images.labels.numpy()
        self.mean = np.array(CIFAR10_PIXELS.mean, dtype=np.float32)[:, None, None]
        self.std = np.array(CIFAR10_PIXELS.std, dtype=np.float32)[:, None, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = (self.images[index].astype(np.float32) - self.mean) / self.std
        if np.random.random() < 0.5:
            image = image[:, :, ::-1]
        image = np.pad(image, ((0, 0), (4, 4), (4, 4)))
        top, left = np.random.randint(0, 9, 2)
        window = image[:, top : top + image.shape[1] - 8, left : left + image.shape[2] - 8]
        return torch.from_numpy(np.ascontiguousarray(window)), int(self.labels[index])


def steps_by_hand(recipe: Recipe, images: ImageSet, *, precision: Precision = "float32") -> Iterator[None]:
    """Train as most tutorials do; a step each time that the iterator is advanced."""
    model = models.build(recipe.model, num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=2e-4)
    while True:
        loader = DataLoader(ByHand(images), batch_size=recipe.batch_size, shuffle=True, num_workers=2)
        for batch, labels in loader:
            optimizer.zero_grad()
            with multiplying(precision, device=CPU):
                logits = model(batch)
            loss = F.cross_entropy(logits.float(), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()
            yield


def steps_of_reslab(
    recipe: Recipe, images: ImageSet, *, precision: str = "auto", compiled: bool = False
) -> Iterator[None]:
    """Train as `reslab train` does."""
    keep_freed_memory()
    kernels.enable(CPU)
    model = models.build(recipe.model, num_classes=10)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(model, settings=recipe.optimizer)
    multiplied = pick_precision(precision, device=CPU)
    forward = make_forward(model, device=CPU, precision=multiplied, compiled=compiled)
    objective = make_objective(recipe, images=images, teacher=None, device=CPU)
    batches = Batches(images, recipe=recipe, by=CIFAR10_PIXELS, seed=0, device=CPU)
    for epoch in range(10**6):
        for batch, labels in batches.epoch(epoch):
            loss, _ = update(forward, optimizer, objective=objective, chunks=[(batch, labels)], rate=1.0)
            loss.item()
            yield


LOOPS: dict[str, Callable[[Recipe, ImageSet], Iterator[None]]] = {
    "by hand": steps_by_hand,
    "by hand, bfloat16": functools.partial(steps_by_hand, precision="bfloat16"),
    "reslab": steps_of_reslab,
    "reslab, float32": functools.partial(steps_of_reslab, precision="float32"),
    "reslab, compiled": functools.partial(steps_of_reslab, compiled=True),
}


def start(loop: str, recipe: str, *, settings: Mapping[str, str] | None = None) -> Worker:
    """Start one of the loops in a process of its own, with `settings`, else those that it would have."""
    if settings is None:
        settings = choose_settings() if loop.startswith("reslab") else {"RESLAB_KERNELS": "off"}
    return Worker([sys.executable, __file__, "--serve", loop, "--recipe", recipe], environment=settings)


def serve_loop(loop: str, recipe: Recipe) -> None:
    """Be one of the loops."""
    torch.manual_seed(0)
    serve(LOOPS[loop](recipe, make_images(recipe.batch_size * BATCHES, side=recipe.image_size)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--recipe", default="lab-resnet32")
    parser.add_argument("--slow", choices=LOOPS, default="by hand")
    parser.add_argument("--fast", choices=LOOPS, default="reslab")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--serve", choices=LOOPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    recipe = read_recipe(arguments.recipe)
    if arguments.serve is not None:
        serve_loop(arguments.serve, recipe)
        return
    with ExitStack() as stack:
        workers = {
            loop: stack.enter_context(start(loop, arguments.recipe)) for loop in (arguments.slow, arguments.fast)
        }
        times = alternate(workers, steps=arguments.steps)
    rates = {loop: round(recipe.batch_size / statistics.median(taken), 1) for loop, taken in times.items()}
    result = {
        "recipe": recipe.name,
        "steps": arguments.steps,
        "batch_size": recipe.batch_size,
        "images_per_second": rates,
        "ratio": compare(times[arguments.slow], times[arguments.fast]),
    }
    write_record(arguments.out, result)


if __name__ == "__main__":
    main()

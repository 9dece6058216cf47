"""One update with Winograd's convolutions against the same update with PyTorch's, alternated step by step.

The network `fast_conv` with gradients of everything that `fast-conv` trains, a chunk of 250 images of random pixels, at
the image sizes that the recipe grows through. Ratios above 1 are in favour of Winograd's.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from record import write_record
from torch import Tensor

from reslab import models
from reslab.machine import kernels, winograd
from reslab.machine.memory import keep_freed_memory
from reslab.models.layers import ImageClassifier
from reslab.recipe.networks import FastConv

CHUNK, SIZES, WARMUP = 250, (16, 24, 32), 2


def refuse(*_: Tensor) -> bool:
    """Leave every convolution to PyTorch."""
    return False


PATHS: dict[str, Callable[..., bool]] = {"pytorch": refuse, "winograd": winograd.pays}


def take_step(model: ImageClassifier, images: Tensor, labels: Tensor) -> float:
    """Give the seconds of a forward and a backward pass."""
    began = time.perf_counter()
    F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
    model.zero_grad()
    return time.perf_counter() - began


def measure(size: int, *, steps: int) -> dict[str, Any]:
    """Alternate both paths at one image size."""
    torch.manual_seed(0)
    model = models.build(FastConv(), num_classes=10).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(CHUNK, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (CHUNK,))
    times: dict[str, list[float]] = {name: [] for name in PATHS}
    for _ in range(WARMUP + steps):
        for name, pays in PATHS.items():
            winograd.pays = pays
            times[name].append(take_step(model, images, labels))
    kept = {name: taken[WARMUP:] for name, taken in times.items()}
    ratios = [theirs / ours for theirs, ours in zip(kept["pytorch"], kept["winograd"], strict=True)]
    lower, median, upper = statistics.quantiles(ratios, n=4)
    return {
        "images_per_second": {name: round(CHUNK / statistics.median(taken), 1) for name, taken in kept.items()},
        "ratio": {"median": round(median, 3), "lower_quartile": round(lower, 3), "upper_quartile": round(upper, 3)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    keep_freed_memory()
    assert kernels.enable(torch.device("cpu")), "no compiler here"
    write_record(arguments.out, {str(size): measure(size, steps=arguments.steps) for size in SIZES})


if __name__ == "__main__":
    main()

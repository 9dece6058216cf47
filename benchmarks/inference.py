"""Logits by reslab against the network as a person would call it, alternated batch by batch.

By hand: eager, NCHW, batches of 128 under `torch.no_grad()`, PyTorch's convolutions, the C library's and OpenMP's
defaults. Both predict the same 512 images at each step.

    python benchmarks/inference.py --steps 20          writes benchmarks/inference.json
"""

import argparse
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from alternate import Worker, alternate, compare, serve
from record import write_record

from reslab import models
from reslab.machine import kernels
from reslab.machine.launch import choose_settings
from reslab.machine.memory import keep_freed_memory
from reslab.network.inference import predict_logits
from reslab.recipe.networks import MODELS

NAMES = ("preact_resnet32", "resnet20", "fast_conv")
NUM_IMAGES = 512


def steps_by_hand(name: str) -> Iterator[None]:
    model = models.build(MODELS[name], num_classes=10).eval()
    images = torch.randn(NUM_IMAGES, 3, 32, 32)
    while True:
        with torch.no_grad():
            torch.cat([model(images[start : start + 128]) for start in range(0, NUM_IMAGES, 128)])
        yield


def steps_of_reslab(name: str) -> Iterator[None]:
    keep_freed_memory()
    kernels.enable(torch.device("cpu"))
    model = models.build(MODELS[name], num_classes=10)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.randn(NUM_IMAGES, 3, 32, 32)
    while True:
        predict_logits(model, images, prepare=lambda batch: batch)
        yield


LOOPS = {"by hand": steps_by_hand, "reslab": steps_of_reslab}
SETTINGS = {"by hand": {"RESLAB_KERNELS": "off"}, "reslab": choose_settings()}


def measure(name: str, *, steps: int) -> dict[str, Any]:
    """Alternate both ways for one network."""
    with ExitStack() as stack:
        workers = {
            loop: stack.enter_context(
                Worker([sys.executable, __file__, "--serve", loop, "--models", name], environment=SETTINGS[loop])
            )
            for loop in LOOPS
        }
        times = alternate(workers, steps=steps, warmup=2)
    return {
        "images_per_second": {loop: round(NUM_IMAGES / statistics.median(taken), 1) for loop, taken in times.items()},
        "peak_megabytes": {loop: worker.memory // 10**6 for loop, worker in workers.items()},
        "ratio": compare(times["by hand"], times["reslab"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--models", nargs="+", default=NAMES)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--serve", choices=LOOPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(LOOPS[arguments.serve](arguments.models[0]))
        return
    found = {name: measure(name, steps=arguments.steps) for name in arguments.models}
    write_record(arguments.out, {"steps": arguments.steps, "images": NUM_IMAGES, "models": found})


if __name__ == "__main__":
    main()

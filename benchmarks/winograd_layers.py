"""One convolution after the other, by Winograd's algorithm and by PyTorch's own, alternated.

Ratios above 1 are in favour of Winograd's. `machine/winograd.py` decides by `reuse` where they are.

    python benchmarks/winograd_layers.py --threads 1          writes benchmarks/winograd_layers.json and .csv
"""

import argparse
import csv
import statistics
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from record import write_record
from torch import Tensor

from reslab.machine import kernels, winograd
from reslab.machine.memory import keep_freed_memory

IMAGES = (1, 8, 128)
CHANNELS = ((16, 16), (24, 24), (16, 32), (24, 64), (32, 32), (48, 48), (64, 64), (64, 128), (128, 128), (256, 256))
SIDES = (3, 4, 5, 6, 7, 8, 12, 16, 24, 32)
MOST_OPERATIONS = 6e9  # of a layer that is measured
SECONDS = 0.4  # for each layer, about
SPEED = 4e10  # operations a second, about

Conv = Callable[[Tensor, Tensor], Tensor]


def by_pytorch(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=1)


def seconds_forward(conv: Conv, x: Tensor, weight: Tensor) -> float:
    with torch.inference_mode():
        began = time.perf_counter()
        conv(x, weight)
        return time.perf_counter() - began


def seconds_training(conv: Conv, x: Tensor, weight: Tensor, gradient: Tensor) -> float:
    began = time.perf_counter()
    conv(x, weight).backward(gradient)  # type: ignore[no-untyped-call]
    seconds = time.perf_counter() - began
    x.grad = weight.grad = None
    return seconds


def measure(num: int, inputs: int, outputs: int, side: int) -> dict[str, Any] | None:
    """Alternate both on a layer; None where it is too large."""
    operations = 2 * 9 * num * side**2 * inputs * outputs
    if operations > MOST_OPERATIONS:
        return None
    x, gradient = (
        torch.randn(num, each, side, side).contiguous(memory_format=torch.channels_last) for each in (inputs, outputs)
    )
    weight = torch.randn(outputs, inputs, 3, 3).contiguous(memory_format=torch.channels_last)
    x.requires_grad_(), weight.requires_grad_()
    times: dict[str, list[float]] = {
        name: [] for name in ("training", "training pytorch", "forward", "forward pytorch")
    }
    for _ in range(max(5, min(25, int(SECONDS * SPEED / (8 * operations))))):
        for conv, suffix in ((winograd.conv3x3, ""), (by_pytorch, " pytorch")):
            times[f"training{suffix}"].append(seconds_training(conv, x, weight, gradient))
            times[f"forward{suffix}"].append(seconds_forward(conv, x, weight))
    training, training_pytorch, forward, forward_pytorch = (statistics.median(taken) for taken in times.values())
    return {
        "images": num,
        "inputs": inputs,
        "outputs": outputs,
        "side": side,
        "reuse": round(winograd.reuse(x, weight), 2),
        "training": round(training_pytorch / training, 2),
        "forward": round(forward_pytorch / forward, 2),
    }


def share_faster(layers: list[dict[str, Any]], *, way: str, least: float) -> dict[str, float]:
    """Say in how many of the layers from `least` on it is faster, and how much slower at worst."""
    ratios = [each[way] for each in layers if each["reuse"] >= least]
    return {"share": round(sum(each > 1 for each in ratios) / len(ratios), 3), "worst": min(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    keep_freed_memory()
    assert kernels.enable(torch.device("cpu")), "no compiler here"
    measured = [measure(num, *channels, side) for num, channels, side in product(IMAGES, CHANNELS, SIDES)]
    layers = [each for each in measured if each is not None]
    result = {
        "training": share_faster(layers, way="training", least=winograd.MIN_REUSE),
        "forward": share_faster(layers, way="forward", least=winograd.MIN_REUSE_FORWARD),
        "layers": len(layers),
    }
    write_record(Path(__file__).with_suffix(".json"), result)
    with Path(__file__).with_suffix(".csv").open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(layers[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(layers)


if __name__ == "__main__":
    main()

"""Convolutions of few channels in NCHW, in NHWC and in NHWC widened to more channels by zeros, alternated.

A 3x3 kernel from C to C channels on a batch of 128, forward and backward, as `auto` multiplies here, in one thread: the
layers that the first stage of a residual network for small images is made of. Times are the processor's.

    python benchmarks/layouts.py          writes benchmarks/layouts.json
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from alternate import alternate_here, compare
from record import write_record
from torch import Tensor

from reslab.machine.memory import keep_freed_memory
from reslab.machine.precision import multiplying, pick_precision

CPU, IMAGES, SIDE = torch.device("cpu"), 128, 32
CHANNELS, WIDE = (16, 32), 64


def make_layer(channels: int, *, width: int, layout: torch.memory_format) -> Callable[[], None]:
    """Make one step of a layer, whose images and kernel have zeros in the channels from `channels` to `width`."""
    torch.manual_seed(0)
    precision = pick_precision(device=CPU)

    def padded(*shape: int) -> Tensor:
        return F.pad(torch.randn(*shape), (0, 0, 0, 0, 0, width - channels)).to(memory_format=layout).requires_grad_()

    images = padded(IMAGES, channels, SIDE, SIDE)
    kernel = F.pad(torch.randn(channels, channels, 3, 3), (0, 0, 0, 0, *(2 * (0, width - channels))))
    kernel = kernel.to(memory_format=layout).requires_grad_()

    def step() -> None:
        with multiplying(precision, device=CPU):
            results = F.conv2d(images, kernel, padding=1)
        results.backward(torch.ones_like(results))  # type: ignore[no-untyped-call]
        images.grad = kernel.grad = None

    return step


def measure(channels: int, *, steps: int) -> dict[str, Any]:
    """Alternate the layouts of one layer."""
    ways = {
        "NCHW": make_layer(channels, width=channels, layout=torch.contiguous_format),
        "NHWC": make_layer(channels, width=channels, layout=torch.channels_last),
        f"NHWC, {WIDE} channels": make_layer(channels, width=WIDE, layout=torch.channels_last),
    }
    times = alternate_here(ways, turns=steps)
    return {
        "milliseconds": {way: round(1e3 * median(taken), 2) for way, taken in times.items()},
        "ratio to NHWC": {way: compare(taken, times["NHWC"]) for way, taken in times.items() if way != "NHWC"},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    found = {str(channels): measure(channels, steps=options.steps) for channels in CHANNELS}
    write_record(options.out, {"steps": options.steps, "channels": found})


if __name__ == "__main__":
    main()

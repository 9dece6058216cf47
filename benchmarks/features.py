"""Features of EfficientNet-Lite0 by several ways, alternated batch by batch in one thread; times are the processor's.

`plain` is the network as a person would call it. `channels last` only lays the same out otherwise. `folded` and
`onnxruntime` are reslab's routes; `frozen` is the folded network traced and frozen by TorchScript. `enlarge` is what
precedes all of them: CIFAR's 32 pixels to the network's, by a cubic filter.

    python benchmarks/features.py          writes benchmarks/features.json
"""

import argparse
import copy
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from alternate import alternate_here, compare
from numpy.typing import NDArray
from record import write_record

from reslab.data.batches import standardize
from reslab.data.storage.blocks import resize
from reslab.machine.memory import keep_freed_memory
from reslab.models.efficientnet_lite import EfficientNetLiteClassifier, resample
from reslab.network.folding import fold
from reslab.pretrained import BATCH, Pretrained
from reslab.pretrained.routes import Body, by_folding, by_onnxruntime
from reslab.pretrained.weights import STANDARDIZE

NAME, SIZES, WARMUP = "efficientnet_lite0", (128, 192), 2
Way = Callable[[], NDArray[np.float32]]


def make_ways(model: EfficientNetLiteClassifier, pixels: NDArray[np.uint8]) -> dict[str, Way]:
    images = torch.from_numpy(pixels)
    nhwc = images.contiguous(memory_format=torch.channels_last)
    body = Body(model).eval()
    laid_out = Body(copy.deepcopy(model).to(memory_format=torch.channels_last)).eval()  # type: ignore[call-overload]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(fold(body), standardize(nhwc, by=STANDARDIZE))  # type: ignore[no-untyped-call]
        frozen = torch.jit.freeze(traced)

    def by(network: Any, given: torch.Tensor) -> Way:
        @torch.inference_mode()
        def compute() -> NDArray[np.float32]:
            return np.asarray(network(standardize(given, by=STANDARDIZE)))

        return compute

    folded, onnx = by_folding(model, by=STANDARDIZE), by_onnxruntime(model, by=STANDARDIZE)
    return {
        "plain": by(body, images),
        "channels last": by(laid_out, nhwc),
        "folded": lambda: folded(pixels),
        "frozen": by(frozen, nhwc),
        "onnxruntime": lambda: onnx(pixels),
    }


def race(image_size: int, *, turns: int) -> dict[str, Any]:
    network = Pretrained(NAME, image_size=image_size)
    small = torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    network.model.resize, pixels = None, resize(small.numpy(), image_size)
    ways = make_ways(network.model, pixels)
    expected = ways["plain"]()
    differences = {name: float(np.abs(way() - expected).max()) for name, way in ways.items()}
    times = alternate_here(
        {**ways, "enlarge": lambda: resample(small.float(), image_size).numpy()}, turns=turns, warmup=WARMUP
    )
    return {
        "pictures_per_second": {name: round(BATCH / median(taken), 1) for name, taken in times.items()},
        "plain_takes_times_as_long_as": {name: compare(times["plain"], times[name]) for name in list(ways)[1:]},
        "folded_takes_times_as_long_as_onnxruntime": compare(times["folded"], times["onnxruntime"]),
        "largest_difference": {name: float(f"{value:.1e}") for name, value in differences.items()},
        "largest_feature": round(float(expected.max()), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    load_before = os.getloadavg()[0]
    found = {f"{size} pixels": race(size, turns=options.turns) for size in SIZES}
    load = {"load_before": round(load_before, 1), "load_after": round(os.getloadavg()[0], 1)}
    write_record(options.out, {"network": NAME, "batch": BATCH, "turns": options.turns, **load, **found})


if __name__ == "__main__":
    main()

"""Whether an extension with `--keep-old exact` keeps the bits of the old logits: in PyTorch and in exported ONNX files.

Half of the images are training images of the base, half random pixels.

    python benchmarks/keep_old.py runs/base runs/exact          writes benchmarks/keep_old.json
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from record import write_record

from reslab import Network
from reslab.data.recipe_data import read_split
from reslab.exporting import export
from reslab.machine import kernels
from reslab.network.onnx_file import OnnxFile
from reslab.runs import Run

CHUNK = 500

Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("extended", type=Path)
    parser.add_argument("--num", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    kernels.enable(torch.device("cpu"))
    runs = Run.open(options.base), Run.open(options.extended)
    seen = read_split(runs[0].recipe, "train").images[: options.num // 2].numpy()
    random = np.random.default_rng(0).integers(0, 256, (options.num - len(seen), *seen.shape[1:]), dtype=np.uint8)
    images = np.concatenate([seen, random])
    with tempfile.TemporaryDirectory() as folder:
        forms = {"pytorch": [_pytorch(run) for run in runs], "onnx": [_onnx(run, Path(folder)) for run in runs]}
        result = {name: _compare(*both, images=images) for name, both in forms.items()}
    write_record(options.out, {"num_images": len(images)} | result)


def _pytorch(run: Run) -> Predict:
    network = Network.load(run.path)
    return lambda images: network.logits(torch.from_numpy(images)).numpy()


def _onnx(run: Run, folder: Path) -> Predict:
    file = folder / f"{run.path.name}.onnx"
    export(run, to=file)
    return OnnxFile(file).predict_logits


def _compare(base: Predict, extended: Predict, *, images: NDArray[np.uint8]) -> dict[str, float]:
    """Count the old logits whose bits differ."""
    num_different, largest, num_logits = 0, 0.0, 0
    for start in range(0, len(images), CHUNK):
        before = base(images[start : start + CHUNK])
        after = np.ascontiguousarray(extended(images[start : start + CHUNK])[:, : before.shape[1]])
        num_different += int((before.view(np.int32) != after.view(np.int32)).sum())
        largest, num_logits = max(largest, float(np.abs(before - after).max())), num_logits + before.size
    return {"num_logits": num_logits, "num_different": num_different, "largest_difference": largest}


if __name__ == "__main__":
    main()

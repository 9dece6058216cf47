"""Gradients of several processes against one that has the whole batch, and a run of several against a run of one.

The network has no batch norm. A batch of 50 images is unequal parts for three and four processes. Differences are the
largest over all weights; that of gradients is divided by the largest gradient of its tensor.

    python benchmarks/ddp.py          writes benchmarks/ddp.json
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from record import write_record

from reslab.recipe.networks import LeNet
from reslab.recipe.recipe import Linear, Recipe, Sgd, Shift
from reslab.runs import Run, read_weights
from reslab.training import train

SIZES = (1, 2, 3, 4)
RECIPE = Recipe(
    name="ddp",
    source="benchmarks/ddp.py",
    data="digits",
    image_size=16,
    augment=(Shift(fraction=0.1),),
    model=LeNet(),
    optimizer=Sgd(peak_lr=0.05, weight_decay=1e-4),
    schedule=Linear(warmup=0.2),
    epochs=3,
    batch_size=50,
)


def serve(folder: Path) -> None:
    """Train in this process, one of several or alone; keep the first update's gradients."""
    torch.set_num_threads(1)
    step = torch.optim.SGD.step
    kept: dict[str, NDArray[Any]] = {}

    def keep(optimizer: torch.optim.SGD, *arguments: Any, **options: Any) -> Any:
        if not kept:
            parameters = [each for group in optimizer.param_groups for each in group["params"]]
            kept.update({str(place): each.grad.numpy().copy() for place, each in enumerate(parameters)})
        return step(optimizer, *arguments, **options)

    torch.optim.SGD.step = keep  # type: ignore[method-assign,assignment]
    train(RECIPE, out=folder / "run")
    if os.environ.get("RANK", "0") == "0":
        np.savez(folder / "gradients.npz", allow_pickle=False, **kept)


def start(size: int, folder: Path) -> None:
    command = [sys.executable, __file__, "--serve", str(folder)]
    if size > 1:
        launcher = ["-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
        command[1:1] = launcher
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    folder.mkdir()
    subprocess.run(command, env=environment, check=True)


def compare(one: Path, several: Path) -> dict[str, Any]:
    """Give the largest differences between two folders."""
    with np.load(one / "gradients.npz") as alone, np.load(several / "gradients.npz") as together:
        gradients = max(np.abs(alone[name] - together[name]).max() / np.abs(alone[name]).max() for name in alone)
    weights = [read_weights(folder / "run")[0] for folder in (one, several)]
    logs = [Run.open(folder / "run").log for folder in (one, several)]
    return {
        "gradients": float(gradients),
        "weights": float(max(np.abs(weights[0][name] - weights[1][name]).max() for name in weights[0])),
        "training_loss": max(abs(a.train_loss - b.train_loss) for a, b in zip(*logs, strict=True)),
        "training_accuracy": max(abs(a.train_accuracy - b.train_accuracy) for a, b in zip(*logs, strict=True)),
        "milliseconds_per_update": round(
            median(1000 * epoch.seconds / (epoch.updates / epoch.epoch) for epoch in logs[1]), 2
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve)
        return
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            start(size, Path(folder) / str(size))
        found = {str(size): compare(Path(folder) / "1", Path(folder) / str(size)) for size in SIZES}
    write_record(arguments.out, {"recipe": json.loads(RECIPE.model_dump_json()), "processes": found})


if __name__ == "__main__":
    main()

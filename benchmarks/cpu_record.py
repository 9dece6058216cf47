"""A run for the record of processors: `docs/record.md` has the rules.

    export RESLAB_DATA=~/data
    python benchmarks/cpu_record.py fast94 --seeds 0,1,2,3,4 --out results/record/fast94-amx

Each seed is trained by the command in a process of its own and evaluated once, after its last epoch. Its folder keeps
what the command recorded; `record.json` has the minutes of the whole process, beside the least that the processor could
have taken: the recipe's arithmetic over the rate of matrix products, measured before and after each seed.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from record import write_record

from reslab.doctor import measure_gflops
from reslab.machine.precision import pick_precision
from reslab.models.costs import count_multiply_adds
from reslab.network.network import Network
from reslab.runs import Run

KEPT = ("environment.json", "evaluation.json", "log.jsonl", "recipe.json")
PASSES = 3  # forward, and backward to the activations and to the weights


def count_operations(run: Run) -> float:
    """Count the operations of all updates; a multiply-add is two, a smaller image counts by its pixels."""
    recipe, training = run.recipe, run.environment.data[0]
    network = Network.load(run.path)
    image = torch.empty(network.metadata.channels, recipe.image_size, recipe.image_size)
    each = 2 * PASSES * count_multiply_adds(network.module, image=image)
    return each * training.num_images * recipe.epochs * recipe.share_of_pixels


def run_seed(recipe: str, seed: int, *, folder: Path, views: int) -> dict[str, float]:
    """Train and evaluate one seed, and say how long the training took and how well it answers."""

    def reslab(*arguments: str) -> None:
        subprocess.run([sys.executable, "-P", "-m", "reslab", *arguments], cwd=folder.parent, check=True)

    precision = pick_precision(device=torch.device("cpu"))
    before = measure_gflops(precision)
    began = time.perf_counter()
    reslab("train", recipe, "--seed", str(seed), "--out", folder.name)
    seconds = time.perf_counter() - began
    gflops = max(before, measure_gflops(precision))
    reslab("evaluate", folder.name, "--splits", "test", "--views", str(views))
    run = Run(folder)
    test = run.evaluation.splits["test"]
    assert test.test_time_augmentation is not None
    return {
        "seed": seed,
        "minutes": seconds / 60,
        "accuracy": test.accuracy.value,
        "accuracy_with_views": test.test_time_augmentation.figures.accuracy.value,
        "gflops": gflops,
        "least_minutes": count_operations(run) / gflops / 1e9 / 60,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--views", type=int, default=6)
    parser.add_argument("--out", type=Path, required=True)
    wanted = parser.parse_args()
    found = []
    for seed in map(int, wanted.seeds.split(",")):
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made, f"seed{seed}")
            found.append(run_seed(wanted.recipe, seed, folder=folder, views=wanted.views))
            kept = wanted.out / folder.name
            kept.mkdir(parents=True)
            for name in KEPT:
                shutil.copyfile(folder / name, kept / name)
        write_record(wanted.out / "record.json", {"recipe": wanted.recipe, "views": wanted.views, "seeds": found})


if __name__ == "__main__":
    main()

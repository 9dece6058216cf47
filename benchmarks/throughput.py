"""The update of every family against the loop that a person would write by hand, alternated step by step.

The loops are those of `train_step.py`: by hand and by reslab, which multiply with float32 or bfloat16 or what reslab
chooses here, and compiled by reslab. With them alternate the peaks of `peak.py`: a product of two matrices by
`torch.mm`, which a loop's arithmetic is a share of, and multiply-adds that stay in registers. Arithmetic is that of
convolutions done directly, two operations for each multiply-add, three times for forward and backward. Winograd's
algorithm needs fewer, and bfloat16 has units of its own, so that the share can exceed 1.
Memory is the peak that was resident in a loop's process, without the workers that prepare data by hand.

    python benchmarks/throughput.py --steps 40 --keras PYTHON        writes benchmarks/throughput.json
    python benchmarks/throughput.py --steps 8 --recipes zoo-lenet zoo-vgg19@32 --loops "by hand" reslab --out FILE

NAME@N takes batches of N: of the largest networks, one for every loop has to fit into memory.

With --keras, the lab's own network is also trained by `model.fit`, in the environment of that Python: with float32 and
with Keras' own mixture with bfloat16.
"""

import argparse
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import peak
import torch
from alternate import Worker, alternate, compare
from record import write_record
from train_step import LOOPS, read_recipe, start

from reslab import models
from reslab.models.costs import count_multiply_adds
from reslab.recipe.recipe import Recipe

RECIPES = ("lab-resnet32", "resnet-20", "plain-20", "elu-resnet-20", "fast-conv")
KERAS_RECIPE = "lab-resnet32"


def measure(name: str, *, loops: Sequence[str], steps: int, keras: str | None) -> dict[str, Any]:
    """Alternate the loops of one recipe."""
    recipe = read_recipe(name)
    with ExitStack() as stack:
        workers = {loop: stack.enter_context(start(loop, name)) for loop in loops}
        if keras is not None and name == KERAS_RECIPE:
            script = Path(__file__).with_name("keras_step.py")
            for policy in ("float32", "mixed_bfloat16"):
                command = [keras, str(script), str(recipe.batch_size), policy]
                workers[f"keras, {policy}"] = stack.enter_context(Worker(command))
        workers |= {name: stack.enter_context(peak.start(name)) for name in peak.PEAKS}
        times = alternate(workers, steps=steps)
    peaks = {name: peak.gflops(name, statistics.median(times.pop(name))) for name in peak.PEAKS}
    return {
        "batch_size": recipe.batch_size,
        "peak_gflops": round(peaks["mm"], 1),
        "fma_gflops": round(peaks["fma"], 1),
        "loops": {
            loop: describe(recipe, statistics.median(taken), peak_gflops=peaks["mm"])
            | {"peak_megabytes": workers[loop].memory // 10**6}
            for loop, taken in times.items()
        },
        "ratio": {
            other: {loop: compare(taken, times[loop]) for loop in times if loop.startswith("reslab")}
            for other, taken in times.items()
            if not other.startswith("reslab")
        },
    }


def describe(recipe: Recipe, seconds: float, *, peak_gflops: float) -> dict[str, float]:
    """Turn the seconds of a step into rates."""
    model = models.build(recipe.model, num_classes=10)
    operations = 3 * 2 * count_multiply_adds(model, image=torch.zeros(3, recipe.image_size, recipe.image_size))
    rate = recipe.batch_size / seconds
    gflops = rate * operations / 1e9
    return {
        "images_per_second": round(rate, 1),
        "gflops": round(gflops, 1),
        "share_of_peak": round(gflops / peak_gflops, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--loops", nargs="+", default=tuple(LOOPS), choices=LOOPS)
    parser.add_argument("--keras", metavar="PYTHON", help="the Python of an environment with Keras and TensorFlow")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    found = {
        read_recipe(name).name: measure(name, loops=arguments.loops, steps=arguments.steps, keras=arguments.keras)
        for name in arguments.recipes
    }
    write_record(arguments.out, {"steps": arguments.steps, "recipes": found})


if __name__ == "__main__":
    main()

"""Muon's filters made orthogonal one after another, as reslab does, against all of one shape in one product.

Alternated in one thread; beside them, in the same turn, a whole update of the recipe, so that the share of its time
that is to be gained is known too.

    python benchmarks/orthogonalize.py          writes benchmarks/orthogonalize.json
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch
from alternate import alternate_here, compare
from record import write_record
from selection import Updates
from torch import Tensor

from reslab.machine.memory import keep_freed_memory
from reslab.recipe.recipe import Muon
from reslab.recipe.shipped import RECIPES
from reslab.training.muon import COEFFICIENTS, orthogonalize

RECIPE_BATCHES = {"fast-conv": 2000, "fast-resnet20": 500, "fast-resnet56": 500}
WARMUP = 2


def one_by_one(filters: Sequence[Tensor], *, iterations: int) -> list[Tensor]:
    """Make each of the matrices (R, C) orthogonal."""
    return [orthogonalize(each, iterations=iterations) for each in filters]


def batched(filters: Sequence[Tensor], *, iterations: int) -> list[Tensor]:
    """Make them orthogonal, all of one shape at once; those of one shape come out together."""
    shapes: dict[torch.Size, list[Tensor]] = defaultdict(list)
    for each in filters:
        shapes[each.shape].append(each)
    a, b, c = COEFFICIENTS
    results: list[Tensor] = []
    for (rows, columns), alike in shapes.items():
        x = torch.stack(alike)
        x = x.mT if rows > columns else x
        x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
        for _ in range(iterations):
            square = x @ x.mT
            x = a * x + (b * square + c * square @ square) @ x
        results += (x.mT if rows > columns else x).unbind()
    return results


def measure(name: str, *, steps: int) -> dict[str, object]:
    """Alternate both ways and the update of one recipe."""
    recipe = RECIPES[name]
    assert isinstance(recipe.optimizer, Muon)
    updates = Updates(recipe, num_images=RECIPE_BATCHES[name])
    filters = [
        torch.randn(parameter.flatten(1).shape)
        for module in updates.model.modules()
        if isinstance(module, torch.nn.Conv2d) and (parameter := module.weight).requires_grad
    ]
    ways: dict[str, Callable[[], object]] = {
        "one by one": partial(one_by_one, filters, iterations=recipe.optimizer.iterations),
        "batched": partial(batched, filters, iterations=recipe.optimizer.iterations),
        "update": partial(updates.seconds, None),
    }
    times = alternate_here(ways, turns=steps, warmup=WARMUP)
    return {
        "filters": len(filters),
        "milliseconds": {way: round(1e3 * median(taken), 2) for way, taken in times.items()},
        "ratio": compare(times["one by one"], times["batched"]),
        "share_of_update": round(median(times["one by one"]) / median(times["update"]), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    write_record(
        options.out, {"steps": options.steps} | {name: measure(name, steps=options.steps) for name in RECIPE_BATCHES}
    )


if __name__ == "__main__":
    main()

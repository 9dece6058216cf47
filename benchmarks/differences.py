"""How far two trainings of one recipe and seed drift apart where only threads, compiler or precision differ.

python benchmarks/differences.py          writes benchmarks/differences.json
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import write_record

from reslab.recipe.settings import with_settings
from reslab.recipe.shipped import RECIPES
from reslab.runs import Run, read_weights
from reslab.training import train

# Name: threads, and what differs from the first run.
VARIANTS: dict[str, tuple[int, dict[str, Any]]] = {
    "again": (1, {}),
    "deterministic": (1, {"deterministic": True}),
    "two_threads": (2, {}),
    "compiled": (1, {"compile": "on"}),
    "bfloat16": (1, {"precision": "bfloat16"}),
    "bfloat16_again": (1, {"precision": "bfloat16"}),
}
FIRST: dict[str, Any] = {"compile": "off", "precision": "float32"}


def difference(first: Run, second: Run) -> dict[str, float | bool]:
    """Compare the last weights and validation figures of two runs."""
    ours, theirs = read_weights(first.path)[0], read_weights(second.path)[0]
    before, after = first.log[-1], second.log[-1]
    assert before.validation_accuracy is not None
    assert after.validation_accuracy is not None
    return {
        "same_bytes": first.weights_path.read_bytes() == second.weights_path.read_bytes(),
        "largest_weight": round(max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours), 6),
        "train_loss": round(abs(before.train_loss - after.train_loss), 6),
        "validation_accuracy": round(abs(before.validation_accuracy - after.validation_accuracy), 6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    recipe = with_settings(RECIPES["digits-quick"], [f"epochs={options.epochs}", "validation=300"])
    with tempfile.TemporaryDirectory() as folder:
        torch.set_num_threads(1)
        first = train(recipe, out=Path(folder) / "first", **FIRST)
        found = {}
        for name, (threads, changes) in VARIANTS.items():
            torch.set_num_threads(threads)
            run = train(recipe, out=Path(folder) / name, **FIRST | changes)
            found[name] = difference(first, run)
        halves = [(Path(folder) / name / "model.safetensors").read_bytes() for name in ("bfloat16", "bfloat16_again")]
    write_record(
        options.out,
        {"recipe": recipe.name, "epochs": options.epochs, **found, "bfloat16_repeats": halves[0] == halves[1]},
    )


if __name__ == "__main__":
    main()

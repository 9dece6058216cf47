"""What averaging the weights gains on the digits: validation images, five seeds, a falling and a constant rate.

Both networks of a seed are trained alike; only what is handed over differs.

    python benchmarks/averaging.py          writes benchmarks/averaging.json
"""

import argparse
import tempfile
from pathlib import Path
from statistics import fmean

from record import write_record

from reslab.recipe.recipe import Average, Linear, Recipe, derive
from reslab.recipe.shipped import RECIPES
from reslab.training import train

DIGITS = RECIPES["digits-quick"]
SCHEDULES = {"falling": Linear(warmup=0.2), "constant": Linear(warmup=0.2, final=1.0)}
AVERAGES = {"network": None, "average": Average(decay=0.95, epoch=10)}


def validate(recipe: Recipe, *, seeds: int) -> dict[str, float]:
    """Train with every seed; give mean and ends of the validation accuracy after the last epoch, and its mean loss."""
    with tempfile.TemporaryDirectory() as folder:
        ends = [train(recipe, out=Path(folder) / str(seed), seed=seed, compile="off").log[-1] for seed in range(seeds)]
    accuracies = [end.validation_accuracy for end in ends if end.validation_accuracy is not None]
    losses = [end.validation_loss for end in ends if end.validation_loss is not None]
    return {
        "accuracy": round(fmean(accuracies), 5),
        "least": round(min(accuracies), 5),
        "greatest": round(max(accuracies), 5),
        "loss": round(fmean(losses), 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    found = {
        f"{rate}, {name}": validate(
            derive(DIGITS, name="averaging", validation=300, schedule=schedule, average=average), seeds=options.seeds
        )
        for rate, schedule in SCHEDULES.items()
        for name, average in AVERAGES.items()
    }
    write_record(options.out, {"recipe": DIGITS.name, "seeds": options.seeds, "validation_images": 300, **found})


if __name__ == "__main__":
    main()

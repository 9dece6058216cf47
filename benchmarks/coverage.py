"""How often an interval holds the truth: many small test sets drawn from networks of known accuracy.

python benchmarks/coverage.py          writes benchmarks/coverage.json

Every class has test images, as reslab asks of a test split. `skewed` has ten classes, each with 0.7 times the images of
the one before, so that the rarest have a single one: what is known of a class then is next to nothing.
"""

import argparse
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reslab.measure.estimates import macro_figures, proportion
from reslab.measure.intervals import Interval, gain_interval, macro_f1_difference
from reslab.measure.metrics import matrix_figures
from reslab.records import Estimate

SIZES = (20, 36, 100)
ACCURACIES = (0.9, 0.99, 1.0)
CLASSES: dict[str, NDArray[Any]] = {
    "2 classes": np.ones(2),
    "3 classes": np.ones(3),
    "10 classes": np.ones(10),
    "3 unequal classes": np.power(0.7, np.arange(3.0)),
    "skewed": np.power(0.7, np.arange(10.0)),
}
ROUNDING = 1e-9

gain_of = cache(gain_interval)  # few counts occur, often


def coverage(shares: NDArray[np.float64], *, num: int, accuracy: float, trials: int) -> dict[str, float]:
    """Give the share of `trials` in which the interval of each figure holds its value in the population."""
    generator = np.random.default_rng(0)
    supports = _supports(shares / shares.sum(), num)
    errors = np.full((len(shares), len(shares)), (1 - accuracy) / (len(shares) - 1))
    rows = errors + np.diag(accuracy - errors.diagonal())
    truth = matrix_figures(rows * supports[:, None])
    held: dict[str, int] = {}
    for _ in range(trials):
        labels = np.repeat(np.arange(len(shares)), supports)
        first, second = (_predict(labels, accuracy, len(shares), generator) for _ in range(2))
        matrix = np.zeros((len(shares), len(shares)), np.int64)
        np.add.at(matrix, (labels, first), 1)
        right, other = first == labels, second == labels
        f1_difference = macro_f1_difference(labels, first=first, second=second, num_classes=len(shares))[1]
        gain = gain_of(int((other & ~right).sum()), lost=int((right & ~other).sum()), total=len(labels))
        found: dict[str, tuple[Estimate | Interval, Any]] = {
            "accuracy": (proportion(np.asarray(right.sum()), total=np.asarray(len(labels))), accuracy),
            **{name: (each, getattr(truth, name)) for name, each in macro_figures(matrix).items() if "macro" in name},
            "paired difference of accuracy": (gain, 0.0),
            "paired difference of macro F1": (f1_difference, 0.0),
        }
        for name, (interval, value) in found.items():
            held[name] = held.get(name, 0) + bool(interval.low - ROUNDING <= value <= interval.high + ROUNDING)
    return {name: round(times / trials, 4) for name, times in held.items()}


def _supports(shares: NDArray[np.float64], num: int) -> NDArray[np.int64]:
    """Split `num` images between classes by their shares, at least one for each."""
    supports = np.maximum(1, np.floor(shares * num)).astype(np.int64)
    for place in range(num - supports.sum()):
        supports[place % len(supports)] += 1
    return supports


def _predict(
    labels: NDArray[np.int64], accuracy: float, num_classes: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Be right with probability `accuracy`, else name any other class."""
    elsewhere = (labels + generator.integers(1, num_classes, len(labels))) % num_classes
    return np.where(generator.random(len(labels)) < accuracy, labels, elsewhere)


def main() -> None:
    from record import write_record

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=4000)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    found: dict[str, Any] = {
        f"{name}, {num} images, accuracy {accuracy:g}": coverage(
            shares, num=num, accuracy=accuracy, trials=options.trials if accuracy < 1 else 1
        )
        for name, shares in CLASSES.items()
        for num in SIZES
        for accuracy in ACCURACIES
    }
    # Without errors every trial is the same.
    write_record(options.out, {"trials": options.trials, "coverage": found})


if __name__ == "__main__":
    main()

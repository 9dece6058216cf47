"""Which score gives the smallest sets of classes: measured on a run's validation images, in halves that part anew.

One half gives the threshold and the other is measured, in each of 100 trials. `taken before` is what reslab uses; APS
(Romano et al. 2020) without random numbers counts the class itself too; RAPS (Angelopoulos et al. 2021) adds a penalty
for each class; LAC (Sadinle et al. 2019) looks at each class's probability alone. Writes class_sets.json.

    python class_sets.py RUN
"""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from record import write_record

from reslab import Run
from reslab.measure.class_sets import taken_before
from reslab.measure.metrics import softmax

COVERAGES, TRIALS = (0.9, 0.95, 0.99), 100


def make_scores(probabilities: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Give each class a score (N, K) by every method; the lower ones are in a set."""
    before = taken_before(probabilities)
    rank = np.argsort(np.argsort(-probabilities, axis=1, kind="stable"), axis=1)
    return {
        "taken before": before,
        "APS": before + probabilities,
        "RAPS, penalty 0.01": before + 0.01 * rank,
        "RAPS, penalty 0.1": before + 0.1 * rank,
        "LAC": 1 - probabilities,
    }


def measure(score: NDArray[np.float64], labels: NDArray[np.int64], *, coverage: float) -> dict[str, float]:
    """Give the mean coverage, that of the class with the least, and the mean size of sets; none is empty."""
    num, num_classes = score.shape
    rows = []
    for seed in range(TRIALS):
        held, coming = np.split(np.random.default_rng(seed).permutation(num), [num // 2])
        own = np.sort(score[held, labels[held]])
        within = score[coming] <= own[math.ceil((len(held) + 1) * coverage) - 1]
        within[np.arange(len(coming)), score[coming].argmin(axis=1)] = True
        right = within[np.arange(len(coming)), labels[coming]]
        worst = min(right[labels[coming] == label].mean() for label in range(num_classes))
        rows.append((right.mean(), abs(right.mean() - coverage), worst, within.sum(axis=1).mean()))
    means = np.mean(rows, axis=0).round(4).tolist()
    return dict(zip(("coverage", "off_by", "worst_class", "size"), means, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    run = Run.open(parser.parse_args().run)
    logits, labels = run.read_predictions("validation")
    scores = make_scores(softmax(logits))
    found = {
        f"{coverage:g}": {name: measure(score, labels, coverage=coverage) for name, score in scores.items()}
        for coverage in COVERAGES
    }
    write_record(Path(__file__).with_suffix(".json"), {"recipe": run.recipe.name, "trials": TRIALS, "sets": found})


if __name__ == "__main__":
    main()

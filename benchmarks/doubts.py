"""How many doubted test labels of CIFAR-10 are wrong: the least credible ones against the judgement of people.

Five people looked at each of 275 test images whose label other networks had doubted, and most of the five found 54
labels wrong (Northcutt et al. 2021, arXiv:2103.14749, repository cleanlab/label-errors). A doubted label that nobody
looked at counts as right. Writes doubts.json.

    python doubts.py RUN REVIEWS.csv       columns: test_index, given, guessed, votes_given, votes_guessed, ...
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from record import write_record

from reslab import Run
from reslab.evaluation.doubts import find_doubts
from reslab.measure.estimates import proportions
from reslab.measure.metrics import softmax

FIRST, MAJORITY = 50, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("reviews", type=Path)
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    predictions = run.read_predictions("test")
    with arguments.reviews.open(newline="") as file:
        reviews = {int(row["test_index"]): int(row["votes_given"]) for row in csv.DictReader(file)}
    wrong = {index for index, votes in reviews.items() if votes < MAJORITY}
    doubts = find_doubts(predictions)
    assert doubts is not None
    by_confidence = np.argsort(softmax(predictions.logits)[np.arange(len(predictions.labels)), predictions.labels])
    orders = {"reslab": doubts.indices, "least probable labels": by_confidence}
    found = {name: len(wrong & set(order[:FIRST].tolist())) for name, order in orders.items()}
    first = doubts.indices[:FIRST].tolist()
    (precision,) = proportions(np.array([found["reslab"]]), total=np.array([FIRST]))
    result = {
        "recipe": run.recipe.name,
        "seed": run.environment.seed,
        "labels": len(predictions.labels),
        "doubted": len(doubts.indices),
        "reviewed": len(reviews),
        "wrong": len(wrong),
        "first": FIRST,
        "wrong_among_first": found,
        "reviewed_among_first": sum(index in reviews for index in first),
        "precision": precision.model_dump(),
    }
    write_record(Path(__file__).with_suffix(".json"), result)


if __name__ == "__main__":
    main()

"""Which of CIFAR-100's published near duplicates the search finds, by how people judged them.

    RESLAB_DATA=CIFAR python benchmarks/duplicates_missed.py --pairs sample.csv

The pairs are test_index, train_index and judgment: 0 the same pixels, 1 the same shot, 2 other pictures that look very
similar (Barz & Denzler 2020, repository cvjena/cifair, meta/duplicates_cifar100.csv; every tenth of its rows). `missed`
lists those whose test image is not found.
"""

import argparse
import csv
from pathlib import Path

from record import write_record

from reslab.data.check.duplicates import find_overlap
from reslab.data.load import load

JUDGED = {"0": "same_pixels", "1": "same_shot", "2": "very_similar"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=Path, required=True)
    with parser.parse_args().pairs.open(newline="") as file:
        pairs = list(csv.DictReader(file))
    overlap = find_overlap(load("cifar100", "train"), load("cifar100", "test"))
    found = {place for _, place in overlap.exact + overlap.near}
    missed = [pair for pair in pairs if int(pair["test_index"]) not in found]
    result = {
        name: {
            "pairs": sum(pair["judgment"] == judgment for pair in pairs),
            "found": sum(pair["judgment"] == judgment for pair in pairs if pair not in missed),
        }
        for judgment, name in JUDGED.items()
    }
    write_record(Path(__file__).with_suffix(".json"), {"judged": result, "missed": missed})


if __name__ == "__main__":
    main()

"""What `reslab data check` finds in a data expression, with what it was found: for results/checks/.

RESLAB_DATA=CIFAR python benchmarks/checks.py cifar10 --out results/checks/cifar10.json
"""

import argparse
import time
from pathlib import Path

from record import write_record

from reslab.data.check.examine import check
from reslab.data.check.words import describe


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("expression")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    began = time.perf_counter()
    report = check(arguments.expression)
    seconds = round(time.perf_counter() - began, 1)
    lines = describe(report)
    found = report.shortened().model_dump(mode="json")
    write_record(arguments.out, {"seconds": seconds, "lines": lines, "report": found})


if __name__ == "__main__":
    main()

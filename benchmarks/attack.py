"""Attacks on what reslab promises, on this machine alone; it ends by itself within minutes, and with 1 at a defect.

Each trial is a function that is given an empty folder, and tells how many attacks of which kind it made, what it
measured, and what broke a promise. To add a trial, add it to TRIALS.

    python benchmarks/attack.py                                 writes benchmarks/attack.json
    python benchmarks/attack.py --trial burst --out FILE        makes one of them
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import attack_serving
from attack_found import Found
from record import write_record

TRIALS: Mapping[str, Callable[[Path], Found]] = attack_serving.TRIALS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trial", action="append", choices=TRIALS, help="all by default")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    busy = round(os.getloadavg()[0], 1)
    trials, defects = {}, []
    for name in arguments.trial or TRIALS:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            found = TRIALS[name](Path(folder))
        trials[name] = {"seconds": round(time.perf_counter() - began), "counts": found.counts, **found.figures}
        defects += [f"{name}: {defect}" for defect in found.defects]
        print(name, trials[name], *found.defects, sep="\n", flush=True)
    num = sum(sum(trial["counts"].values()) for trial in trials.values())
    write_record(arguments.out, {"load_average_before": busy, "attacks": num, "defects": defects, "trials": trials})
    sys.exit(bool(defects))


if __name__ == "__main__":
    main()

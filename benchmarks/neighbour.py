"""What a program that keeps one core busy costs a training on two, by how OpenMP's threads wait.

Each policy has a training of its own; they alternate, and before every second turn of all of them the neighbour is
stopped. The ratio is the time beside the neighbour to the time without it, turn by turn. OMP_WAIT_POLICY=ACTIVE is not
among them: such threads would spin through the turns of the others, too.

    python benchmarks/neighbour.py --steps 40          writes benchmarks/neighbour.json
"""

import argparse
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from alternate import WARMUP, alternate, compare
from record import write_record
from train_step import start

from reslab.machine.launch import SPINS

POLICIES = {
    "OpenMP's default": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "bound to cores": {"OMP_PROC_BIND": "true"},
    "reslab": {"GOMP_SPINCOUNT": str(SPINS)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--recipe", default="resnet-20")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    cores = set(sorted(os.sched_getaffinity(0))[:2])
    os.sched_setaffinity(0, cores)  # what is started from here on inherits it
    with ExitStack() as stack:
        neighbour = subprocess.Popen([sys.executable, "-P", "-c", "while True: pass"])
        stack.callback(neighbour.kill)
        os.sched_setaffinity(neighbour.pid, {min(cores)})
        workers = {
            name: stack.enter_context(start("reslab", arguments.recipe, settings=settings))
            for name, settings in POLICIES.items()
        }
        neighbour.send_signal(signal.SIGSTOP)
        alternate(workers, steps=0, warmup=WARMUP)
        alone: dict[str, list[float]] = {name: [] for name in workers}
        beside: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(arguments.steps):
            for switch, times in ((signal.SIGSTOP, alone), (signal.SIGCONT, beside)):
                neighbour.send_signal(switch)
                for name, worker in workers.items():
                    times[name].append(worker.step())
    slowdown = {name: compare(beside[name], alone[name]) for name in workers}
    seconds_alone = {name: round(sorted(taken)[len(taken) // 2], 4) for name, taken in alone.items()}
    write_record(arguments.out, {"steps": arguments.steps, "seconds_alone": seconds_alone, "slowdown": slowdown})


if __name__ == "__main__":
    main()

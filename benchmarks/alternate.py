"""Loops that take their steps in turn: whatever else the machine does, it does to all.

Most are processes of their own. A process is started with a command line and answers every line that it is sent with a
step, and a line. How memory is kept and how threads wait are settings of a process, so each loop has its own; only one
computes at a time. What needs no settings takes turns within one process.
"""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

WARMUP = 5


class Worker:
    """A loop in another process; `memory` is its peak so far, in bytes."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            command, env={**os.environ, **(environment or {})}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.memory = 0

    def step(self) -> float:
        """Take a step; return its seconds."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        began = time.perf_counter()
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        taken = time.perf_counter() - began
        if not answer:
            raise RuntimeError(f"{self.process.args!r} has ended")
        self.memory = int(answer)
        return taken

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.communicate()  # the end of its input ends it


def serve(steps: Iterator[None]) -> None:
    """Be such a process: a step for each line of the input, answered with the peak of resident memory in bytes."""
    for _ in sys.stdin:
        next(steps)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)


def alternate(workers: Mapping[str, Worker], *, steps: int, warmup: int = WARMUP) -> dict[str, list[float]]:
    """Let every worker take a step in turn; seconds of every step but the first ones."""
    times: dict[str, list[float]] = {name: [] for name in workers}
    for step in range(warmup + steps):
        for name, worker in workers.items():
            taken = worker.step()
            if step >= warmup:
                times[name].append(taken)
    return times


def alternate_here(
    steps: Mapping[str, Callable[[], object]], *, turns: int, warmup: int = WARMUP
) -> dict[str, list[float]]:
    """Let every function be called in turn; the processor's seconds of every call but the first ones."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(warmup + turns):
        for name, step in steps.items():
            began = time.process_time()
            step()
            if turn >= warmup:
                times[name].append(time.process_time() - began)
    return times


def compare(slow: Sequence[float], fast: Sequence[float]) -> dict[str, float]:
    """Say how many times longer `slow` took, step by step: median and quartiles."""
    lower, median, upper = statistics.quantiles([a / b for a, b in zip(slow, fast, strict=True)], n=4)
    return {"median": round(median, 3), "lower_quartile": round(lower, 3), "upper_quartile": round(upper, 3)}

"""Do a study's runs in several processes on this machine: when one ends, the next run in order begins."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from reslab.errors import Failure
from reslab.machine.launch import count_cores
from reslab.machine.signals import listen_for_stop
from reslab.runs import Run
from reslab.study.plan import (
    REFUSED,
    Assignment,
    Ended,
    Job,
    Lesson,
    Machine,
    Say,
    StudyOutcome,
    conclude,
    find_elsewhere,
)

WORKER: Final = (sys.executable, "-P", "-m", "reslab.study.worker")
SECONDS_BETWEEN_LOOKS: Final = 0.1
SECONDS_TO_SPEAK: Final = 5.0  # processes that it has started may outlive it and hold the pipe


@dataclass(frozen=True)
class Workers:
    """How many runs are done at a time on this machine, and the CPU threads of each."""

    num: int
    threads: int


def read_workers(num: int | None, *, threads: int | None) -> Workers | None:
    """Divide this machine's cores among the requested workers, if any."""
    return None if num is None else Workers(num, threads or max(1, count_cores() // num))


def do_all(
    jobs: Sequence[Job],
    costs: Sequence[float],
    *,
    workers: Workers,
    budget: float | None,
    machine: Machine,
    say: Say,
) -> StudyOutcome:
    """Do all jobs in order, several at a time; a lesson waits for its base.

    Raises: as `conclude` once all others are done; Failure if interrupted.
    """
    latest = None if budget is None else time.monotonic() + budget
    waiting = list(zip(jobs, costs, strict=True))
    running: list[_Worker] = []
    ended: dict[Path, Ended] = {}
    with listen_for_stop() as stop:
        try:
            while not stop.requested:
                while len(running) < workers.num and (job := _take(waiting, running=running, latest=latest)):
                    if (other := find_elsewhere(job)) is not None:
                        ended[job.out.resolve()] = other
                        say(f"{job.out.name}: {other.reason}")
                        continue
                    say(f"{job.out.name}: {'resumes' if job.is_begun else 'begins'}")
                    running.append(_Worker(job, threads=workers.threads, machine=machine, say=say))
                if not running:
                    return conclude(jobs, ended)
                time.sleep(SECONDS_BETWEEN_LOOKS)
                for worker in [each for each in running if each.process.poll() is not None]:
                    running.remove(worker)
                    ended[worker.job.out.resolve()] = result = worker.wait()
                    word = result.reason if result.word == "elsewhere" else result.word
                    say(f"{worker.job.out.name}: {word}, run {len(ended)} of {len(jobs)}")
        finally:
            for worker in running:
                worker.stop()
            for worker in running:
                worker.wait()
    raise Failure("stopped; finished work is saved; the same command resumes the study")


def _take(waiting: list[tuple[Job, float]], *, running: Sequence["_Worker"], latest: float | None) -> Job | None:
    """Remove the first job that can begin now from `waiting`, and those before it that no longer can."""
    not_done = {job.out for job, _ in waiting} | {worker.job.out for worker in running}
    for turn in [*waiting]:
        job, cost = turn
        base = job.task.base if isinstance(job.task, Lesson) else None
        if base in not_done:
            continue
        waiting[:] = [each for each in waiting if each is not turn]
        fits = latest is None or time.monotonic() + cost <= latest
        if find_elsewhere(job) is not None or (fits and (base is None or Run(base).is_finished)):
            return job
    return None


class _Worker:
    """A process that does one run, and a thread that passes on its output."""

    def __init__(self, job: Job, *, threads: int, machine: Machine, say: Say) -> None:
        self.job, self.say, self.last = job, say, ""
        self.process = subprocess.Popen(
            WORKER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            start_new_session=True,  # this process passes on a terminal's Ctrl-C, once
        )
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended already, and said why
            assignment = Assignment(job, replace(machine, silent=False), tuple(sys.argv))
            self.process.stdin.write(assignment.dump())
            self.process.stdin.flush()
        self.reader = threading.Thread(target=self._pass_on, daemon=True)
        self.reader.start()

    def _pass_on(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                if text := line.decode(errors="replace").rstrip():
                    self.last = text
                    self.say(f"{self.job.out.name}: {text}")

    def stop(self) -> None:
        """Ask the process to save and end."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()

    def wait(self) -> Ended:
        """Wait until the process has ended, and return how."""
        code = self.process.wait()
        self.reader.join(SECONDS_TO_SPEAK)
        self.stop()
        if code == 0:
            return Ended("done")
        # Another process may have begun the run at the same moment.
        return find_elsewhere(self.job) or self._failed(code)

    def _failed(self, code: int) -> Ended:
        reason = f"its process was ended by signal {-code}" if code < 0 else self.last
        return Ended("failed", reason, is_refused=code == REFUSED)

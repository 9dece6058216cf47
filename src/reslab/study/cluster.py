"""Do a study's runs on the workers of a cluster: Ray distributes them and replaces workers that die.

Source: Moritz et al. 2018, "Ray: A Distributed Framework for Emerging AI Applications", arXiv:1712.05889.
A run that loses its worker resumes on another one from its newest checkpoint, to byte-identical weights.
"""

import logging
import os
import queue
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import chdir, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from reslab.errors import Failure, UserError, extra
from reslab.machine.launch import set_up_threads
from reslab.machine.signals import listen_for_stop
from reslab.runs import Run
from reslab.runs.files import relative_to
from reslab.study.plan import (
    FAILURES,
    Ended,
    Job,
    Lesson,
    Machine,
    Saved,
    Say,
    StudyOutcome,
    conclude,
    find_elsewhere,
    holds_another,
)
from reslab.study.storage import Storage
from reslab.words import counted

RETRIES: Final = 10  # a run that has crashed this many workers will crash the next one too
SECONDS_TO_STOP: Final = 60.0
SECONDS_TO_ANSWER: Final = 10.0
QUIET: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class Action(Protocol):
    """Does one run, as `study.job.do`."""

    def __call__(self, job: Job, machine: Machine, *, saved: Saved | None = None) -> None: ...


@dataclass(frozen=True)
class Cluster:
    """The Ray cluster at `address`, whose workers do the runs.

    Each run gets `threads` CPU threads and a share of a GPU. With `storage`, the workers keep the run folders there and
    this machine fetches finished runs; without it they write to the study's folder, which all must be able to reach.
    """

    address: str
    threads: int = 1
    gpus_per_run: float = 0.0
    storage: str | None = None


@dataclass(frozen=True)
class _Order:
    """What a worker is told along with the job."""

    action: Action
    machine: Machine
    threads: int
    storage: str | None
    latest: float | None  # the latest time to start
    command: tuple[str, ...]
    folder: str


def do_all(
    jobs: Sequence[Job],
    costs: Sequence[float],
    *,
    action: Action,
    cluster: Cluster,
    budget: float | None,
    machine: Machine,
    say: Say,
) -> StudyOutcome:
    """Distribute all jobs, and wait for them; a lesson waits for its base.

    Raises: UserError if Ray or the storage cannot be reached; as `conclude` once all others are done; Failure if
    interrupted.
    """
    storage = Storage(cluster.storage) if cluster.storage else None
    machine = replace(machine, silent=True, data_dir=machine.data_dir and machine.data_dir.resolve())
    order = _Order(action, machine, cluster.threads, cluster.storage, None, tuple(sys.argv), os.getcwd())
    began = time.time()
    with _connected(cluster) as ray:
        task = ray.remote(_work).options(
            num_cpus=cluster.threads, num_gpus=cluster.gpus_per_run, max_retries=RETRIES, name="reslab"
        )
        references: dict[Path, Any] = {}
        for job, cost in zip(map(_absolute, jobs), costs, strict=True):
            if storage is not None:
                _send_what_is_here(job, storage)
            latest = None if budget is None else began + budget - cost
            base = references.get(job.task.base) if isinstance(job.task, Lesson) else None
            references[job.out] = task.remote(job, replace(order, latest=latest), base)
        say(f"{counted(len(jobs), 'run')} handed to the cluster")
        if lack := _find_lack(ray, cluster):
            say(lack)
        ended = _wait(ray, references, storage=storage, data_dir=machine.data_dir, say=say)
    return conclude(jobs, ended)


def _work(job: Job, order: _Order, base: Ended | None) -> Ended:
    """Do one run in a worker; if that dies, Ray calls this again in another one."""
    has_base = base is None or base.word == "done" or (base.word == "elsewhere" and _base_is_finished(job))
    if not has_base or (order.latest is not None and time.time() > order.latest):
        return Ended("left")
    sys.argv[:] = order.command  # recorded in `environment.json`
    if os.path.isdir(order.folder):
        os.chdir(order.folder)  # a recipe's data may be given relative to it
    set_up_threads()
    import torch

    torch.set_num_threads(order.threads)
    try:
        with _near(job, order.storage) as (near, saved):
            order.action(near, order.machine, saved=saved)
    except FAILURES as error:
        return find_elsewhere(job) or Ended.by(error)
    return Ended("done")


def _base_is_finished(job: Job) -> bool:
    """Return whether the base of a lesson is finished, maybe by another process."""
    return isinstance(job.task, Lesson) and Run(job.task.base).is_finished


@contextmanager
def _near(job: Job, url: str | None) -> Iterator[tuple[Job, Saved | None]]:
    """Yield the job with its folder on this machine, and what keeps that on the storage, if any, at a checkpoint.

    Raises: UserError if the storage holds another run of that name.
    """
    if url is None:
        yield job, None
        return
    storage = Storage(url)
    with tempfile.TemporaryDirectory(prefix="reslab-") as scratch:
        near = replace(job, out=Path(scratch) / job.out.name)
        if isinstance(job.task, Lesson):
            near = replace(near, task=replace(job.task, base=Path(scratch) / job.task.base.name))
            storage.fetch(job.task.base.name, into=Path(scratch) / job.task.base.name)
        storage.fetch(job.out.name, into=near.out)
        if holds_another(near):
            raise UserError(
                f"{url} holds another run {job.out.name} than planned now: choose another --storage, or remove it there"
            )
        yield near, storage.keep
        storage.keep(near.out)


def _absolute(job: Job) -> Job:
    task = replace(job.task, base=job.task.base.resolve()) if isinstance(job.task, Lesson) else job.task
    return replace(job, out=job.out.resolve(), task=task)


def _send_what_is_here(job: Job, storage: Storage) -> None:
    """Upload a run that was begun, or finished, without the storage, and the base of a lesson."""
    folders = [job.out, *([job.task.base] if isinstance(job.task, Lesson) else [])]
    for folder in filter(Run.is_at, folders):
        run = Run(folder)
        if not storage.has(folder.name, file=run.weights_path.name if run.is_finished else "recipe.json"):
            storage.keep(folder)


def _find_lack(ray: Any, cluster: Cluster) -> str | None:
    """Say what a run needs if no machine of the cluster has it, so that all would wait."""
    needs = {"CPU": cluster.threads, "GPU": cluster.gpus_per_run}
    machines = [each["Resources"] for each in ray.nodes() if each["Alive"]]
    if any(all(has.get(name, 0) >= number for name, number in needs.items()) for has in machines):
        return None
    words = " and ".join(f"{number:g} {name}{'' if number == 1 else 's'}" for name, number in needs.items() if number)
    return f"no machine of the cluster has {words}, which each run needs: runs wait until one joins"


def _record_base(run: Run, *, data_dir: Path | None) -> None:
    """Record the base of the data's relative paths as seen from here, and not from a worker's scratch folder."""
    from reslab.data.recipe_data import find_base  # loads PyTorch, whose threads a worker sets up first

    base = find_base(run.recipe.data, data_dir)
    if base is not None:
        data_from = relative_to(base, run.path)
        run.write_environment(run.environment.model_copy(update={"data_from": data_from}))


def _wait(
    ray: Any, references: dict[Path, Any], *, storage: Storage | None, data_dir: Path | None, say: Say
) -> dict[Path, Ended]:
    """Wait for every run, fetch those that are done, and report each."""
    arrived: queue.SimpleQueue[tuple[Path, Future[Ended]]] = queue.SimpleQueue()
    for out, reference in references.items():
        reference.future().add_done_callback(lambda future, out=out: arrived.put((out, future)))
    ended: dict[Path, Ended] = {}
    with listen_for_stop() as stop:
        while len(ended) < len(references):
            try:
                out, future = arrived.get(timeout=1.0)
            except queue.Empty:
                if stop.requested:
                    _stop(ray, [each for out, each in references.items() if out not in ended])
                continue
            ended[out] = _result(ray, future)
            if storage and ended[out].word == "done":
                storage.fetch(out.name, into=out)
                _record_base(Run(out), data_dir=data_dir)
            reason = f", {ended[out].reason}" if ended[out].word == "failed" else ""
            word = ended[out].reason if ended[out].word == "elsewhere" else ended[out].word
            say(f"{out.name}: {word}, run {len(ended)} of {len(references)}{reason}")
    return ended


def _result(ray: Any, future: "Future[Ended]") -> Ended:
    try:
        return future.result()
    except ray.exceptions.RayTaskError as error:
        return Ended.by(error.cause)
    except ray.exceptions.RayError as error:
        return Ended("failed", f"lost its worker {RETRIES + 1} times, the last time by {type(error).__name__}")


def _stop(ray: Any, references: Sequence[Any]) -> None:
    """Ask every run to save and end."""
    for reference in references:
        ray.cancel(reference)
    ray.wait(list(references), num_returns=len(references), timeout=SECONDS_TO_STOP)
    raise Failure("stopped; finished work is saved; the same command resumes the study")


@contextmanager
def _connected(cluster: Cluster) -> Iterator[Any]:
    """Connect to the cluster while the block runs; a connection that the process already has is reused."""
    joined = sys.modules.get("ray")
    if joined is not None and joined.is_initialized():
        yield joined
        return
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with extra("ray"):
        import ray
    try:
        _knock(cluster.address)
        # Ray's workers import first from the driver's working directory, which must not hold a user's files.
        with chdir(os.path.dirname(os.__file__)):
            ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise UserError(f"--ray {cluster.address} cannot be reached: {reason}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Check that host:port answers, since Ray would try for minutes. Raises: OSError."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER).close()


def read_cluster(
    address: str | None, *, threads: int | None, gpus_per_run: float, storage: str | None
) -> Cluster | None:
    """Build the cluster that the options ask for; None if they name none.

    Raises: UserError if the options contradict each other, or the storage cannot be reached.
    """
    if address is None:
        if gpus_per_run or storage:
            raise UserError("--gpus-per-run and --storage are for Ray's workers: add --ray ADDRESS")
        return None
    if gpus_per_run > 1 and gpus_per_run % 1:
        raise UserError(f"--gpus-per-run {gpus_per_run:g}: give a share below 1, or a whole number")
    if storage is not None:
        Storage(storage)
    return Cluster(address, threads or 1, gpus_per_run, storage)

"""A study on a local Ray of two workers: the bytes of the serial one, also where a worker is killed."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from reslab.errors import Failure, UserError
from reslab.runs import Run
from reslab.study import Study, cluster
from reslab.study.cluster import QUIET, Action, Cluster, read_cluster
from reslab.study.execute import run_study
from reslab.study.job import do
from reslab.study.plan import Job, Machine, Saved

NAMES = ("relu-0", "elu-0", "taught-0", "relu-1", "elu-1", "taught-1")
FILES = ("model.safetensors", "predictions-train.npz", "predictions-test.npz")
HERE = Cluster(address="auto")  # the one that the process has joined


@pytest.fixture(scope="module", autouse=True)
def two_workers() -> Iterator[None]:
    """A Ray of its own for this file: two processors, a GPU that nobody computes on, a small store."""
    os.environ.update(QUIET)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers cannot import the tests
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=1,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.fixture
def action(monkeypatch: pytest.MonkeyPatch) -> Callable[[Action], None]:
    """Let workers do something else than a run, which then costs nothing."""

    def put(instead: Action) -> None:
        monkeypatch.setattr("reslab.study.execute.do", instead)
        monkeypatch.setattr("reslab.study.execute._write_gradients", lambda *arguments, **options: None)
        monkeypatch.setattr("reslab.study.execute.estimate", lambda jobs, **options: [10.0 for _ in jobs])

    return put


def results(out: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    """Read weights and predictions, byte for byte, and all that an evaluation says but when it was made."""
    found = {f"{name}/{file}": (out / name / file).read_bytes() for name in names for file in FILES}
    evaluations = {name: Run.open(out / name).evaluation.model_dump_json(exclude={"evaluated"}) for name in names}
    return found | {name: text.encode() for name, text in evaluations.items()}


# ---- a worker is killed


def note_and_wait(job: Job, machine: Machine, *, notes: Path, saved: Saved | None = None) -> None:
    """Do a run; the first process that does relu-0 waits after its first checkpoint, until it is killed."""
    attempts = notes / job.out.name
    attempts.mkdir(parents=True, exist_ok=True)
    (attempts / str(os.getpid())).touch()

    def keep_and_wait(path: Path) -> None:
        if saved is not None:
            saved(path)
        if job.out.name == "relu-0" and len(list(attempts.iterdir())) == 1:
            (notes / "waiting").touch()
            time.sleep(600)

    do(job, machine, saved=keep_and_wait)


def kill_who_waits(notes: Path) -> None:
    while not (notes / "waiting").exists():
        time.sleep(0.01)
    (process,) = (notes / "relu-0").iterdir()
    os.kill(int(process.name), signal.SIGKILL)


@pytest.mark.parametrize(("storage", "names"), [(False, NAMES[:1]), (True, NAMES)], ids=["shared-disk", "storage"])
def test_a_killed_worker_is_replaced_and_all_results_are_the_serial_ones(
    study: Study, ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: bool, names: tuple[str, ...]
) -> None:
    """With a storage all six, which waits for bases and copies each run; on a shared disk the one that is killed."""
    notes, out, said = tmp_path / "notes", tmp_path / "tiny", []
    monkeypatch.setattr("reslab.study.execute.do", partial(note_and_wait, notes=notes))
    killer = threading.Thread(target=kill_who_waits, args=(notes,), daemon=True)
    killer.start()
    where = replace(HERE, storage=f"file://{tmp_path}/kept" if storage else None)
    rows, seeds = ((), None) if names == NAMES else (("relu",), 1)
    outcome = run_study(study, out=out, cluster=where, rows=rows, seeds=seeds, say=said.append)
    assert [job.out.name for job in outcome.done] == list(names)
    assert outcome.left == ()
    assert len(list((notes / "relu-0").iterdir())) == 2
    assert all(len(list((notes / name).iterdir())) == 1 for name in names[1:])
    assert results(out, names) == results(ran, names)
    assert f"{len(names)} {'run' if len(names) == 1 else 'runs'} handed to the cluster" in said
    assert sorted(line for line in said if "done, run" in line)[0].startswith(f"{min(names)}: done, run")
    assert Run.open(out / names[0]).environment.command.split()[0] == Path(sys.argv[0]).name
    if storage:
        assert results(tmp_path / "kept", names) == results(ran, names)


# ---- what workers are told


def tell(job: Job, machine: Machine, *, saved: Saved | None = None) -> None:
    job.out.mkdir(parents=True)
    found = {"resources": ray.get_runtime_context().get_assigned_resources(), "gpus": list(map(str, ray.get_gpu_ids()))}
    (job.out / "told.json").write_text(json.dumps(found))


def test_runs_share_a_gpu(study: Study, tmp_path: Path, action: Callable[..., None]) -> None:
    action(tell)
    run_study(study, out=tmp_path, rows=["relu"], seeds=2, cluster=replace(HERE, gpus_per_run=0.25))
    for name in ("relu-0", "relu-1"):
        told = json.loads((tmp_path / name / "told.json").read_text())
        assert told == {"resources": {"CPU": 1.0, "GPU": 0.25}, "gpus": ["0"]}


def fail_the_first(job: Job, machine: Machine, *, saved: Saved | None = None) -> None:
    if job.out.name == "relu-0":
        raise Failure("the loss is not finite")
    job.out.mkdir(parents=True)


def test_a_run_that_fails_is_named_and_the_others_are_done(
    study: Study, tmp_path: Path, action: Callable[..., None]
) -> None:
    action(fail_the_first)
    with pytest.raises(Failure, match=r"^relu-0: the loss is not finite; the same command resumes the study$"):
        run_study(study, out=tmp_path, cluster=HERE)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["elu-0", "elu-1", "relu-1", "taught-1"]


def test_the_budget_holds_for_every_worker(study: Study, tmp_path: Path, action: Callable[..., None]) -> None:
    action(fail_the_first)
    outcome = run_study(study, out=tmp_path, cluster=HERE, budget=5.0)
    assert (len(outcome.done), len(outcome.left)) == (0, 6)


def die(job: Job, machine: Machine, *, saved: Saved | None = None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_run_that_kills_every_worker_is_given_up(
    study: Study, tmp_path: Path, action: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    action(die)
    monkeypatch.setattr(cluster, "RETRIES", 1)
    with pytest.raises(
        Failure, match=r"^relu-0: lost its worker 2 times, the last time by WorkerCrashedError; the same"
    ):
        run_study(study, out=tmp_path, rows=["relu"], seeds=1, cluster=HERE)


def wait_for_a_stop(job: Job, machine: Machine, *, saved: Saved | None = None) -> None:
    from reslab.machine.signals import listen_for_stop

    with listen_for_stop() as stop:
        job.out.mkdir(parents=True)
        while not stop.requested:
            time.sleep(0.01)
    (job.out / "saved").touch()
    raise Failure("stopped after 3 updates")


@pytest.fixture
def heeded() -> Iterator[None]:
    """Let SIGINT count, also where these tests run in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
def test_ctrl_c_asks_every_worker_to_save(study: Study, tmp_path: Path, action: Callable[..., None]) -> None:
    action(wait_for_a_stop)

    def begun() -> list[Path]:
        return list(tmp_path.glob("relu-*"))

    def interrupt() -> None:
        while len(begun()) < 2:  # any two: Ray keeps no order
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(Failure, match=r"^stopped; finished work is saved; the same command resumes the study$"):
        run_study(study, out=tmp_path, rows=["relu"], seeds=3, cluster=HERE)
    assert len(begun()) == 2
    assert all((run / "saved").exists() for run in begun())


# ---- what does not fit together


def test_what_no_machine_of_the_cluster_has_is_said() -> None:
    assert cluster._find_lack(ray, replace(HERE, threads=2, gpus_per_run=0.5)) is None
    lack = cluster._find_lack(ray, replace(HERE, threads=3))
    assert lack == "no machine of the cluster has 3 CPUs, which each run needs: runs wait until one joins"
    lack = cluster._find_lack(ray, replace(HERE, gpus_per_run=2))
    assert lack == "no machine of the cluster has 1 CPU and 2 GPUs, which each run needs: runs wait until one joins"


def test_wrong_wishes_get_a_sentence() -> None:
    plain: dict[str, Any] = {"threads": None, "gpus_per_run": 0.0, "storage": None}
    assert read_cluster(None, **plain) is None
    assert read_cluster("auto", **plain | {"threads": 3}) == Cluster("auto", threads=3)
    with pytest.raises(UserError, match="add --ray ADDRESS"):
        read_cluster(None, **plain | {"gpus_per_run": 0.25})
    with pytest.raises(UserError, match="add --ray ADDRESS"):
        read_cluster(None, **plain | {"storage": "file:///kept"})
    with pytest.raises(UserError, match=r"--gpus-per-run 1\.5: give a share below 1, or a whole number"):
        read_cluster("auto", **plain | {"gpus_per_run": 1.5})
    with pytest.raises(UserError, match="--storage tape://reel: reslab does not open tape: addresses"):
        read_cluster("auto", **plain | {"storage": "tape://reel"})


def test_a_cluster_that_is_not_there_is_named(
    study: Study, tmp_path: Path, action: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    action(tell)

    def absent(**options: object) -> None:
        raise ConnectionError(f"no answer from {options['address']}\nand a long story")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", absent)
    with pytest.raises(UserError, match=r"^--ray auto cannot be reached: no answer from auto$"):
        run_study(study, out=tmp_path, cluster=Cluster(address="auto"))
    for address in ("127.0.0.1:9", "ray://127.0.0.1:9"):  # where Ray itself would wait for minutes
        with pytest.raises(UserError, match=rf"^--ray {address} cannot be reached: Connection refused$"):
            run_study(study, out=tmp_path, cluster=Cluster(address=address))

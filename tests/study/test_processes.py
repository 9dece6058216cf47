"""A study by several processes of this machine: the runs of the serial one, stopped and gone on with, without Ray."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reslab.errors import Failure, UserError
from reslab.recipe.recipe import Recipe, derive
from reslab.runs import Run
from reslab.study import Study, processes, worker
from reslab.study.execute import run_study
from reslab.study.plan import Assignment, Ended, Job, Lesson, Machine, make_jobs
from reslab.study.processes import Workers, _Worker, read_workers

TWO = Workers(2, threads=1)

# Stands for a worker: it notes when it was there, and ends as it is told by the file `how` in its run's name.
PRETENDER = """
import json, os, pathlib, sys, time
told = json.loads(sys.stdin.readline())
out = pathlib.Path(told["job"]["out"])
out.mkdir(parents=True)
(out / "began").write_text(repr(time.monotonic()))
(out / "threads").write_text(os.environ["OMP_NUM_THREADS"])
how = (out.parent / "how").read_text() if (out.parent / "how").exists() else ""
if how == f"fail {out.name}":
    sys.exit("the loss is not finite")
if how == f"refuse {out.name}":
    print("no such column", flush=True)
    sys.exit(2)
if how == f"die {out.name}":
    os.kill(os.getpid(), 9)
if how == "wait":
    sys.stdin.read()
    (out / "saved").touch()
    sys.exit("stopped after 3 updates")
time.sleep(0.3)
print("epoch 1/1")
(out / "model.safetensors").touch()
(out / "ended").write_text(repr(time.monotonic()))
"""


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let workers train nothing, and let that cost 10 seconds."""
    program = tmp_path / "pretender.py"
    program.write_text(PRETENDER)
    monkeypatch.setattr(processes, "WORKER", (sys.executable, "-I", str(program)))
    monkeypatch.setattr("reslab.study.execute._write_gradients", lambda *arguments, **options: None)
    monkeypatch.setattr("reslab.study.execute.estimate", lambda jobs, **options: [10.0 for _ in jobs])


def when(out: Path, name: str, moment: str) -> float:
    return float((out / name / moment).read_text())


# ---- real runs


def test_two_workers_end_with_the_bytes_of_one_process(study: Study, ran: Path, tmp_path: Path) -> None:
    said: list[str] = []
    outcome = run_study(study, out=tmp_path, rows=["relu", "elu"], seeds=1, workers=TWO, say=said.append)
    assert [job.out.name for job in outcome.done] == ["relu-0", "elu-0"]
    for name in ("relu-0", "elu-0"):
        for file in ("model.safetensors", "predictions-test.npz"):
            assert (tmp_path / name / file).read_bytes() == (ran / name / file).read_bytes()
    assert any(line.startswith("elu-0: epoch   1/3") for line in said)
    environment = json.loads((tmp_path / "elu-0/environment.json").read_text())
    assert environment["threads"] == 1
    assert environment["command"].split()[0] == Path(sys.argv[0]).name
    assert "ray" not in environment["command"]


def test_a_job_survives_json(study: Study, tmp_path: Path) -> None:
    jobs = make_jobs(study, out=tmp_path, seeds=1)
    assert {type(job.task) for job in jobs} > {Lesson}
    for job in jobs:
        told = Assignment(job, Machine("cpu", None, True, threads=2), ("reslab", "study"))
        assert b"\n" not in told.dump()[:-1]
        assert Assignment.load(told.dump()) == told


def begin_and_stop(job: Job, machine: Machine, *, threads: int, epochs: int) -> Ended:
    """Let a worker train until so many epochs are logged."""
    worker = _Worker(job, threads=threads, machine=machine, say=lambda line: None)
    while not ((log := job.out / "log.jsonl").exists() and log.read_text().count("\n") >= epochs):
        assert worker.process.poll() is None, worker.last
        time.sleep(0.05)
    worker.stop()
    return worker.wait()


def test_a_worker_whose_input_ends_saves_and_ends(small_recipe: Recipe, tmp_path: Path) -> None:
    """So it does where the process that has started it was killed."""
    job = Job("long", 0, tmp_path / "long-0", derive(small_recipe, name="long", epochs=500))
    ended = begin_and_stop(job, Machine(), threads=1, epochs=1)
    run = Run.open(job.out)
    assert ended.word == "failed"
    assert ended.reason.startswith(f"stopped after {run.read_checkpoint().state['updates']} updates, all of them saved")
    with run.locked():
        assert not run.is_finished


@pytest.mark.parametrize(
    ("error", "reason", "code"),
    [
        (Failure("the loss is not finite"), "the loss is not finite", "1"),
        (torch.OutOfMemoryError("CUDA out of memory.\nSee the documentation"), "CUDA out of memory.", "1"),
        (MemoryError(), "MemoryError", "1"),
        (UserError("no such column"), "no such column", "2"),
    ],
)
def test_a_worker_whose_run_fails_says_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    error: Exception,
    reason: str,
    code: str,
) -> None:
    def fail(job: Job, machine: Machine) -> None:
        raise error

    job = Job("taught", 0, tmp_path / "taught-0", Lesson(tmp_path / "base-0", "digits:0@20", "frozen"))
    told = Assignment(job, Machine("cpu"), ("reslab", "study"))
    monkeypatch.setattr("reslab.study.worker.do", fail)
    monkeypatch.setattr(worker, "_read_line", told.dump)
    monkeypatch.setattr(worker, "_stop_with_the_input", lambda: None)
    monkeypatch.setattr(sys, "argv", [])
    with pytest.raises(SystemExit, match=code):
        worker.main()
    assert capfd.readouterr().err == f"{reason}\n"


def test_threads_that_were_asked_for_take_over_from_those_before(small_recipe: Recipe, tmp_path: Path) -> None:
    job = Job("long", 0, tmp_path / "long-0", derive(small_recipe, name="long", epochs=1000))
    threads = []
    for machine, here in ((Machine(), 1), (Machine(threads=2), 2)):
        begin_and_stop(job, machine, threads=here, epochs=len(Run(job.out).log) + 1 if job.is_begun else 1)
        threads.append(Run.open(job.out).environment.newest.threads)
    assert threads == [1, 2]


# ---- who does what when


@pytest.mark.usefixtures("pretended")
def test_each_takes_the_next_run_and_a_lesson_waits_for_its_base(
    make_study: Callable[..., Study], tmp_path: Path
) -> None:
    study = make_study(order=(("elu", 1), ("relu", 1), ("taught", 1)))
    said: list[str] = []
    outcome = run_study(study, out=tmp_path, workers=replace(TWO, threads=3), say=said.append)
    assert (len(outcome.done), outcome.left) == (6, ())
    begins = [line.partition(":")[0] for line in said if line.endswith(": begins")]
    assert begins[:2] == ["elu-1", "relu-1"]
    assert sorted(begins) == sorted(job.out.name for job in outcome.done)
    assert when(tmp_path, "elu-1", "ended") > when(tmp_path, "relu-1", "began")
    for seed in "01":
        assert when(tmp_path, f"taught-{seed}", "began") > when(tmp_path, f"relu-{seed}", "ended")
    spans = [(when(tmp_path, name, "began"), when(tmp_path, name, "ended")) for name in begins]
    for begin, _ in spans:
        assert sum(began <= begin < end for began, end in spans) <= 2
    assert (tmp_path / "elu-1/threads").read_text() == "3"
    assert "elu-1: epoch 1/1" in said
    assert said[-1].endswith("done, run 6 of 6")


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize(
    ("how", "reason"), [("fail", "the loss is not finite"), ("die", "its process was ended by signal 9")]
)
def test_a_run_that_fails_is_named_and_the_others_are_done(study: Study, tmp_path: Path, how: str, reason: str) -> None:
    (tmp_path / "how").write_text(f"{how} relu-0")
    with pytest.raises(Failure, match=rf"^relu-0: {reason}; the same command resumes the study$"):
        run_study(study, out=tmp_path, workers=TWO)
    ended = {path.parent.name for path in tmp_path.glob("*/ended")}
    assert ended == {"elu-0", "elu-1", "relu-1", "taught-1"}  # all but what is taught to it


@pytest.mark.usefixtures("pretended")
def test_a_run_that_is_refused_is_not_resumed_by_the_same_command(study: Study, tmp_path: Path) -> None:
    (tmp_path / "how").write_text("refuse relu-0")
    with pytest.raises(UserError, match=r"^relu-0: no such column$"):
        run_study(study, out=tmp_path, workers=TWO)


@pytest.mark.usefixtures("pretended")
def test_a_run_of_another_process_and_its_lesson_are_left_to_that_one(study: Study, tmp_path: Path) -> None:
    """It holds one run from the beginning, and takes another away from a worker that has just begun it."""
    (tmp_path / "how").write_text("fail elu-0")
    (tmp_path / "relu-0").mkdir()
    with Run(tmp_path / "relu-0").locked(), ExitStack() as others:

        def take(line: str) -> None:
            if line == "elu-0: the loss is not finite":
                others.enter_context(Run(tmp_path / "elu-0").locked())

        outcome = run_study(study, out=tmp_path, workers=Workers(1, threads=1), say=take)
    assert [job.out.name for job in outcome.elsewhere] == ["relu-0", "elu-0", "taught-0"]
    assert [job.out.name for job in outcome.done] == ["relu-1", "elu-1", "taught-1"]


@pytest.mark.usefixtures("pretended")
def test_the_budget_holds_for_every_worker(study: Study, tmp_path: Path) -> None:
    outcome = run_study(study, out=tmp_path, workers=TWO, budget=5.0)
    assert (len(outcome.done), len(outcome.left)) == (0, 6)


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_asks_every_worker_to_save(study: Study, tmp_path: Path, number: int) -> None:
    (tmp_path / "how").write_text("wait")
    before = signal.signal(number, signal.default_int_handler)  # SIGINT is ignored in the background of a shell

    def interrupt() -> None:
        while len(list(tmp_path.glob("*/threads"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(Failure, match=r"^stopped; finished work is saved; the same command"):
            run_study(study, out=tmp_path, workers=TWO)
    finally:
        signal.signal(number, before)
    assert {path.parent.name for path in tmp_path.glob("*/saved")} == {"relu-0", "elu-0"}


def test_the_cores_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "count_cores", lambda: 8)
    assert read_workers(None, threads=2) is None
    assert read_workers(3, threads=None) == Workers(3, threads=2)
    assert read_workers(16, threads=None) == Workers(16, threads=1)
    assert read_workers(2, threads=1) == Workers(2, threads=1)

"""A study that is run, killed, gone on with, and put into the wrong folder."""

import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch

from reslab.data import recipe_data
from reslab.data.load import load
from reslab.errors import Failure, UserError
from reslab.recipe.recipe import Imported, LinearHead, Recipe, StartingWeights, derive
from reslab.records import SplitName
from reslab.runs import Run
from reslab.study import Study, cluster
from reslab.study.execute import read_budget, run_study
from reslab.study.folder import read_gradients
from reslab.study.job import do
from reslab.study.plan import Ended, Job, Lesson, Machine, Saved, find_missing, make_jobs
from reslab.study.results import read_results
from reslab.study.storage import Storage
from reslab.training.progress import Display

RUNS = ["relu-0", "elu-0", "taught-0", "relu-1", "elu-1", "taught-1"]  # seed by seed


def weights(out: Path) -> dict[str, bytes]:
    return {name: (out / name / "model.safetensors").read_bytes() for name in RUNS if (out / name).exists()}


def stamps(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


# ---- from the beginning to the end


def test_every_run_is_an_ordinary_one(study: Study, ran: Path) -> None:
    assert sorted(path.name for path in ran.iterdir() if path.is_dir()) == sorted(RUNS)
    for name in RUNS:
        run = Run.open(ran / name)
        assert run.environment.seed == int(name[-1])
        assert len(run.log) == run.recipe.epochs
        assert list(run.evaluation.splits) == ["train", "test"]
        assert [data.split for data in run.environment.data] == ["train", "validation", "test"]
    assert Run.open(ran / "elu-1").recipe.model.activation == "elu"
    assert Run.open(ran / "elu-1").recipe.name == "elu"
    assert Run.open(ran / "taught-1").recipe.extension.base == Run.open(ran / "taught-1").base_digest
    assert (ran / "taught-1/base.safetensors").read_bytes() == weights(ran)["relu-1"]
    assert len(set(weights(ran).values())) == len(RUNS)


def test_a_second_time_nothing_is_done(study: Study, copied: Path) -> None:
    before, said = stamps(copied), []
    outcome = run_study(study, out=copied, say=said.append)
    assert outcome.done == ()
    assert said == ["tiny: 6 of 6 runs done"]
    assert stamps(copied) == before


def test_a_base_whose_weights_are_gone_is_trained_for_a_missing_lesson_and_measured_again(
    study: Study, copied: Path
) -> None:
    """On another machine its weights may be others, of which the earlier lessons know nothing."""
    (copied / "relu-1/model.safetensors").unlink()
    (copied / "taught-1/evaluation.json").unlink()
    (copied / "taught-1/model.safetensors").unlink()
    before = stamps(copied)
    outcome = run_study(study, out=copied)
    assert [job.out.name for job in outcome.done] == ["relu-1", "taught-1"]
    assert stamps(copied)[copied / "relu-1/evaluation.json"] > before[copied / "relu-1/evaluation.json"]
    weights = copied / "relu-1/model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    assert run_study(study, out=copied).done == ()


def test_a_base_that_is_trained_again_is_not_measured_until_its_end(
    study: Study, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copied / "relu-1/model.safetensors").unlink()
    shutil.rmtree(copied / "relu-1/checkpoint")
    shutil.rmtree(copied / "taught-1")
    monkeypatch.setattr(Display, "epoch", lambda self, done: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Failure, match=r"^relu-1: stopped"):
        run_study(study, out=copied, rows=["taught"])
    results = read_results(study, out=copied)
    assert ([run.seed for run in results.runs["relu"]], results.num_unfinished) == ([0], 1)


def test_more_seeds_add_runs_and_leave_the_others(study: Study, copied: Path) -> None:
    before, said = stamps(copied), []
    outcome = run_study(study, out=copied, seeds=3, rows=["relu"], say=said.append)
    assert [job.out.name for job in outcome.done] == ["relu-2"]
    assert {path: time for path, time in stamps(copied).items() if path in before} == before
    assert said[0] == "tiny: 2 of 3 runs done"
    assert re.fullmatch(r"relu: 3 epochs of \d+\.\d\ss here: about \d+\.\d\ss", said[2])


def test_training_opens_no_test_split(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the cost nor the gradients do."""
    asked: list[str] = []

    def note(expression: str, split: SplitName, **options: Any) -> Any:
        asked.append(split)
        return load(expression, split, **options)

    monkeypatch.setattr(recipe_data, "load", note)
    monkeypatch.setattr("reslab.evaluation.evaluate", lambda run, **options: None)
    run_study(study, out=tmp_path / "tiny", seeds=1, rows=["relu"])
    assert len(asked) >= 3
    assert set(asked) == {"train"}  # which the validation images are cut out of


def test_one_run_can_be_sent_elsewhere(study: Study, ran: Path, tmp_path: Path) -> None:
    job = make_jobs(study, out=tmp_path, seeds=1)[0]
    sent, machine = pickle.loads(pickle.dumps((job, Machine())))
    assert isinstance(sent, Job)
    do(sent, machine)
    assert weights(tmp_path)["relu-0"] == weights(ran)["relu-0"]
    before = stamps(tmp_path)
    do(sent, machine)  # as who does not hear that it has been done would
    assert stamps(tmp_path) == before


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": LinearHead(penalty=1.0)},
        {"start": StartingWeights(file="theirs.pth", sha256="0" * 64)},
    ],
)
def test_a_recipe_that_is_not_trained_from_scratch_is_no_row(
    make_study: Callable[..., Study], small_recipe: Recipe, tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "other.json"
    path.write_text(derive(small_recipe, name="other", **change).model_dump_json())
    rows = ({"label": "other", "job": {"kind": "training", "recipe": str(path)}},)
    study = make_study(rows=rows, contrasts=(), gradients=())
    with pytest.raises(UserError, match=r"^row other names a recipe of reslab fit, reslab extend or train --from"):
        make_jobs(study, out=tmp_path, seeds=1)


def test_a_recipe_of_an_imported_network_is_planned_as_it_is_trained(
    make_study: Callable[..., Study], small_recipe: Recipe, tmp_path: Path
) -> None:
    """Without where the weights came from, which such a training does not use."""
    imported = Imported(file="theirs.pth", sha256="0" * 64, map="resnet")
    path = tmp_path / "other.json"
    path.write_text(derive(small_recipe, name="other", epochs=1, imported=imported).model_dump_json())
    rows = ({"label": "other", "job": {"kind": "training", "recipe": str(path)}},)
    study = make_study(rows=rows, contrasts=(), gradients=())
    run_study(study, out=tmp_path / "tiny", seeds=1)
    assert run_study(study, out=tmp_path / "tiny", seeds=1).done == ()


def test_a_lesson_may_be_written_with_spaces(make_study: Callable[..., Study], study: Study, copied: Path) -> None:
    """The recipe of its run has none."""
    job = {"kind": "teaching", "base": "relu", "data": " digits:0@20  ", "method": "frozen"}
    spaced = make_study(rows=(*study.rows[:2], {"label": "taught", "job": job}))
    assert run_study(spaced, out=copied).done == ()
    two = make_study(rows=(*study.rows[:2], {"label": "taught", "job": job | {"data": "digits:0 + digits:2"}}))
    assert make_jobs(two, out=copied, seeds=1)[2].task.data == "digits:0+digits:2"


def test_runs_are_not_compared_each_with_each(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which took seconds for some thousands of them."""
    jobs = make_jobs(study, out=tmp_path, seeds=3)
    monkeypatch.delattr(Job, "__hash__")
    monkeypatch.setattr(Job, "__eq__", lambda one, other: pytest.fail("it compared two"))
    assert list(map(id, find_missing(jobs))) == list(map(id, jobs))


def test_a_base_comes_before_what_is_taught_to_it_in_any_order(
    make_study: Callable[..., Study], tmp_path: Path
) -> None:
    study = make_study(order=(("taught", 1), ("elu", 1), ("relu", 1)))
    names = [job.out.name for job in make_jobs(study, out=tmp_path, seeds=2)]
    assert names == ["relu-1", "taught-1", "elu-1", "relu-0", "elu-0", "taught-0"]


# ---- interrupted


def run_on_one_thread(study: Study, out: Path) -> None:
    torch.set_num_threads(1)  # as here
    run_study(study, out=out, rows=["relu", "elu"], seeds=1)


@pytest.mark.parametrize("moment", ["elu-0/checkpoint/newest.safetensors", "relu-0/evaluation.json", "elu-0/.lock"])
def test_a_killed_study_goes_on_to_the_same_bytes(study: Study, ran: Path, tmp_path: Path, moment: str) -> None:
    """In a run, between two, and while one begins."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reslab.training.loop", "reslab.study.cost", "sklearn.datasets"])
    out = tmp_path / "tiny"
    process = context.Process(target=run_on_one_thread, args=(study, out))
    process.start()
    while not (out / moment).exists() and process.is_alive():
        time.sleep(0.002)
    process.kill()
    process.join()
    assert process.exitcode == -9
    assert not (out / "elu-0/evaluation.json").exists()
    outcome = run_study(study, out=out, rows=["relu", "elu"], seeds=1)
    assert [job.out.name for job in outcome.done] == ["elu-0"]
    assert weights(out) == {name: weights(ran)[name] for name in ("relu-0", "elu-0")}


def test_ctrl_c_is_a_sentence_and_the_same_call_goes_on(
    study: Study, ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Display, "epoch", lambda self, done: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Failure, match=r"^relu-0: stopped after \d+ updates.*the same command"):
            run_study(study, out=tmp_path, rows=["relu"])
    assert not Run.open(tmp_path / "relu-0").is_finished
    said: list[str] = []
    run_study(study, out=tmp_path, rows=["relu"], say=said.append)
    assert "relu-0: resumes, run 1 of 2" in said
    assert "relu-1: begins, run 2 of 2" in said
    assert weights(tmp_path) == {name: weights(ran)[name] for name in ("relu-0", "relu-1")}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Failure("the loss is not finite"), "the loss is not finite"),
        (OSError("disk"), "disk"),
        (MemoryError(), "MemoryError"),
        (torch.OutOfMemoryError("CUDA out of memory.\nSee the documentation"), "CUDA out of memory."),
    ],
)
def test_a_run_that_fails_is_named_and_the_others_are_done(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    done: list[str] = []

    def pretend(job: Job, machine: Machine) -> None:
        if job.out.name == "relu-0":
            raise error
        done.append(job.out.name)
        job.out.mkdir()
        (job.out / "model.safetensors").touch()

    monkeypatch.setattr("reslab.study.execute.do", pretend)
    monkeypatch.setattr("reslab.study.execute._write_gradients", lambda *arguments, **options: None)
    monkeypatch.setattr("reslab.study.execute.estimate", lambda jobs, **options: [1.0 for _ in jobs])
    said: list[str] = []
    with pytest.raises(Failure, match=rf"^relu-0: {reason}; the same command resumes the study$"):
        run_study(study, out=tmp_path, say=said.append)
    assert done == ["elu-0", "relu-1", "elu-1", "taught-1"]  # all but what is taught to it
    assert f"relu-0: failed, {reason}" in said


@pytest.mark.parametrize("others", [0, 1])
def test_a_run_that_is_refused_is_not_resumed_by_the_same_command(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """Unless another one failed by what may be over."""

    def pretend(job: Job, machine: Machine) -> None:
        if job.out.name == "relu-0":
            raise UserError("no such column")
        if job.out.name == "elu-0" and others:
            raise Failure("the disk is full")

    monkeypatch.setattr("reslab.study.execute.do", pretend)
    monkeypatch.setattr("reslab.study.execute._write_gradients", lambda *arguments, **options: None)
    monkeypatch.setattr("reslab.study.execute.estimate", lambda jobs, **options: [1.0 for _ in jobs])
    kind, words = (Failure, r" \(and 1 more\); the same command resumes the study") if others else (UserError, "")
    with pytest.raises(kind, match=rf"^relu-0: no such column{words}$"):
        run_study(study, out=tmp_path)


def test_what_another_process_does_is_left_to_it_and_to_what_it_teaches_next(study: Study, copied: Path) -> None:
    """Also where that process has begun it since this one looked for locks, or has done it since it began."""
    for name in ("relu-1", "taught-1"):
        (copied / name / "model.safetensors").unlink()
        (copied / name / "evaluation.json").unlink()
    said: list[str] = []
    with Run(copied / "relu-1").locked():
        outcome = run_study(study, out=copied, say=said.append)
    assert (outcome.done, outcome.left) == ((), ())
    assert [job.out.name for job in outcome.elsewhere] == ["relu-1", "taught-1"]
    assert said[-2:] == [
        "relu-1: another process is doing it, so it is left to that one",
        "taught-1: another process is training relu-1, so it is left to that one",
    ]


def test_of_two_that_begin_a_run_at_once_one_leaves_it_to_the_other(
    study: Study, ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reslab.study.execute.estimate", lambda jobs, **options: [1.0 for _ in jobs])
    with ExitStack() as others:

        def lose(job: Job, machine: Machine) -> None:
            """Find the first run begun by another process, and that it does the second one in the meantime."""
            if job.out.name == "relu-0":
                job.out.mkdir()
                others.enter_context(Run(job.out).locked())
                shutil.copytree(ran / "elu-0", tmp_path / "elu-0")
            raise UserError("another process works on it")

        monkeypatch.setattr("reslab.study.execute.do", lose)
        said: list[str] = []
        outcome = run_study(study, out=tmp_path, rows=["relu", "elu"], seeds=1, say=said.append)
    assert [job.out.name for job in outcome.elsewhere] == ["relu-0", "elu-0"]
    assert said[-2:] == [
        "relu-0: another process is doing it, so it is left to that one",
        "elu-0: another process has done it",
    ]


def test_an_error_that_nobody_expected_is_one_runs_too() -> None:
    """Without Ray: in the worker, and as Ray passes it on."""
    job = Job("relu", 0, Path("relu-0"), Lesson(Path("base-0"), "digits:0@20", "frozen"))

    def fail(job: Job, machine: Machine, *, saved: Saved | None = None) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nSee the documentation")

    assert cluster._work(job, make_order(fail), None) == Ended("failed", "CUDA out of memory.")

    class RayTaskError(Exception):
        cause = ZeroDivisionError("division by zero")

    future: Future[Ended] = Future()
    future.set_exception(RayTaskError("a traceback"))
    ray = SimpleNamespace(exceptions=SimpleNamespace(RayTaskError=RayTaskError, RayError=Exception))
    assert cluster._result(ray, future) == Ended("failed", "division by zero")


def make_order(action: Any, *, url: str | None = None) -> cluster._Order:
    """Tell a worker what to do, without Ray."""
    return cluster._Order(action, Machine(), torch.get_num_threads(), url, None, tuple(sys.argv), os.getcwd())


def test_another_run_on_the_storage_is_not_taken_for_the_planned_one(study: Study, ran: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/kept"
    Storage(url).keep(ran / "relu-0")
    job = make_jobs(study, out=tmp_path / "tiny", seeds=1, scale=0.5)[0]
    complaint = f"{url} holds another run relu-0 than planned now: choose another --storage, or remove it there"
    assert cluster._work(job, make_order(do, url=url), None) == Ended("failed", complaint, is_refused=True)
    assert cluster._work(make_jobs(study, out=tmp_path, seeds=1)[0], make_order(do, url=url), None) == Ended("done")


def test_a_base_that_was_finished_here_replaces_its_part_on_the_storage(
    study: Study, ran: Path, tmp_path: Path
) -> None:
    url = f"file://{tmp_path}/kept"
    base, lesson = (ran / name for name in ("relu-0", "taught-0"))
    (tmp_path / "kept/relu-0").mkdir(parents=True)
    for name in ("recipe.json", "environment.json"):
        shutil.copy(base / name, tmp_path / "kept/relu-0")
    job = Job("taught", 0, tmp_path / "tiny/taught-0", Lesson(base, "digits:0@20", "frozen"))
    cluster._send_what_is_here(job, Storage(url))
    assert cluster._work(job, make_order(do, url=url), None) == Ended("done")
    kept = tmp_path / "kept/taught-0/model.safetensors"
    assert kept.read_bytes() == (lesson / "model.safetensors").read_bytes()


@pytest.mark.parametrize("data_dir", [None, "shared"])
def test_a_run_that_was_fetched_records_where_its_data_are(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_dir: str | None
) -> None:
    """As seen from its folder here; the worker has recorded it as seen from its own."""
    (tmp_path / "shared/pictures").mkdir(parents=True)
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    run = Run(copied / "relu-0")
    run.write_recipe(run.recipe.model_copy(update={"data": "folder:pictures"}))
    run.write_environment(run.environment.model_copy(update={"data_from": "../../away"}))
    storage = Storage(f"file://{tmp_path}/kept")
    storage.keep(run.path)
    done: Future[Ended] = Future()
    done.set_result(Ended("done"))
    shared = None if data_dir is None else tmp_path / data_dir
    fetched = tmp_path / "runs/a/b/c/relu-0"
    references = {fetched: SimpleNamespace(future=lambda: done)}
    cluster._wait(SimpleNamespace(), references, storage=storage, data_dir=shared, say=lambda line: None)
    assert Run(fetched).data_from == (shared or tmp_path / "away")


@pytest.mark.parametrize(("is_finished", "word"), [(True, "done"), (False, "left")])
def test_a_base_that_another_process_has_done_is_taught(
    ran: Path, tmp_path: Path, is_finished: bool, word: Literal["done", "left"]
) -> None:
    base = ran / "relu-0" if is_finished else tmp_path / "relu-0"
    job = Job("taught", 0, tmp_path / "taught-0", Lesson(base, "digits:0@20", "frozen"))
    order = make_order(lambda job, machine, *, saved: None)
    assert cluster._work(job, order, Ended("elsewhere", "another process has done it")) == Ended(word)
    assert cluster._work(job, order, Ended("failed")) == Ended("left")


def test_what_was_trained_but_not_evaluated_is_only_evaluated(study: Study, copied: Path) -> None:
    for name in ("elu-1", "taught-1"):
        (copied / name / "evaluation.json").unlink()
    before = (copied / "elu-1/model.safetensors").stat().st_mtime_ns
    assert [job.out.name for job in run_study(study, out=copied).done] == ["elu-1", "taught-1"]
    assert (copied / "elu-1/model.safetensors").stat().st_mtime_ns == before


# ---- what it costs, and what there is time for


def test_the_budget_leaves_out_what_does_not_fit(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def pretend(job: Job, machine: Machine) -> None:
        done.append(job.out.name)
        job.out.mkdir()
        (job.out / "model.safetensors").touch()

    monkeypatch.setattr("reslab.study.execute.do", pretend)
    monkeypatch.setattr(
        "reslab.study.execute.estimate", lambda jobs, **options: [9.0 if job.label == "elu" else 1.0 for job in jobs]
    )
    outcome = run_study(study, out=tmp_path, budget=5.0)
    assert done == ["relu-0", "taught-0", "relu-1", "taught-1"]
    assert [job.out.name for job in outcome.left] == ["elu-0", "elu-1"]


def test_what_is_taught_waits_for_its_base(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "reslab.study.execute.estimate", lambda jobs, **options: [9.0 if job.label == "relu" else 0.0 for job in jobs]
    )
    monkeypatch.setattr("reslab.study.execute.do", lambda job, machine: None)
    outcome = run_study(study, out=tmp_path, budget=5.0, seeds=1)
    assert [job.out.name for job in outcome.done] == ["elu-0"]
    assert [job.out.name for job in outcome.left] == ["relu-0", "taught-0"]


def test_no_budget_is_the_cost_alone(study: Study, tmp_path: Path) -> None:
    said: list[str] = []
    outcome = run_study(study, out=tmp_path / "tiny", budget=0.0, say=said.append)
    assert (len(outcome.done), len(outcome.left)) == (0, 6)
    waits = [
        "measuring the gradients of relu",
        "estimating the cost on this machine, from a few updates of each network",
    ]
    assert [line.partition(":")[0] for line in said] == ["tiny", *waits, "relu", "elu", "taught", "together"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("2h", 7200), ("1.5d", 129600), ("0s", 0), ("30min", 1800)]
)
def test_budgets(text: str, seconds: float) -> None:
    assert read_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "2 weeks", "nan h", "1e9h"])
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="write a number and s, m, h or d"):
        read_budget(text)


# ---- gradients


def test_gradients_are_measured_once(study: Study, copied: Path) -> None:
    found = read_gradients(copied).norms
    assert list(found) == ["relu"]
    assert next(iter(found["relu"])) == "stem"
    assert list(found["relu"])[-1] == "head"
    assert all(norm > 0 for norm in found["relu"].values())
    before = (copied / "gradients.json").stat().st_mtime_ns
    run_study(study, out=copied, seeds=3, rows=["relu"])
    assert (copied / "gradients.json").stat().st_mtime_ns == before


def test_gradients_of_a_changed_row_are_measured_again(make_study: Callable[..., Study], tmp_path: Path) -> None:
    """As after a look at the cost; a file by an older version says nothing of the recipe."""
    study = make_study(gradients=("relu", "elu"))
    run_study(study, out=tmp_path, rows=["relu", "elu"], budget=0.0)
    before = read_gradients(tmp_path)
    assert before.norms["relu"] != before.norms["elu"]
    rows = [row.model_dump() for row in study.rows]
    rows[0]["job"]["settings"] += ("model.activation=elu",)
    said: list[str] = []
    run_study(make_study(rows=tuple(rows), gradients=("relu", "elu")), out=tmp_path, budget=0.0, say=said.append)
    assert said[1] == "measuring the gradients of relu"
    assert read_gradients(tmp_path).norms == {"relu": before.norms["elu"], "elu": before.norms["elu"]}
    (tmp_path / "gradients.json").write_text(json.dumps({"norms": before.norms}))
    run_study(study, out=tmp_path, rows=["elu"], budget=0.0)
    assert read_gradients(tmp_path).recipes == {"elu": before.recipes["elu"]}


@pytest.mark.parametrize("gradients", [(), ("relu",)])
def test_a_row_whose_data_are_not_there_is_named(
    make_study: Callable[..., Study], study: Study, tmp_path: Path, gradients: tuple[str, ...]
) -> None:
    rows = [row.model_dump() for row in study.rows[:2]]
    rows[0]["job"]["settings"] += ("data=folder:absent",)
    wrong = make_study(rows=tuple(rows), gradients=gradients)
    with pytest.raises(UserError, match=r"^row relu: \S*absent is not a folder"):
        run_study(wrong, out=tmp_path)


# ---- the wrong folder


def test_a_folder_of_another_study_or_scale_is_refused(
    study: Study, make_study: Callable[..., Study], copied: Path
) -> None:
    before = stamps(copied)
    with pytest.raises(UserError, match=r"holds runs of tiny at 1 of the epochs, not of tiny at 0.5: choose another"):
        run_study(study, out=copied, scale=0.5)
    with pytest.raises(UserError, match=r"holds runs of tiny at 1 of the epochs, not of other at 1: choose another"):
        run_study(make_study(name="other"), out=copied)
    assert stamps(copied) == before


def test_a_folder_without_a_run_is_free(study: Study, copied: Path) -> None:
    """As after `--budget 0s`, or where the data were not there."""
    for name in RUNS:
        shutil.rmtree(copied / name)
    said: list[str] = []
    run_study(study, out=copied, scale=0.5, budget=0.0, say=said.append)
    assert json.loads((copied / "study.json").read_text())["epochs_scale"] == 0.5
    assert said[0] == "tiny: none of 6 runs done"


def test_another_process_may_claim_the_folder_until_a_run_begins(
    study: Study, ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def estimate(jobs: list[Job], **options: Any) -> list[float]:
        shutil.copy(ran / "study.json", tmp_path / "study.json")
        shutil.copytree(ran / "elu-0", tmp_path / "elu-0")
        return [1.0 for _ in jobs]

    monkeypatch.setattr("reslab.study.execute.estimate", estimate)
    with pytest.raises(UserError, match=r"holds runs of tiny at 1 of the epochs, not of tiny at 0.5: choose another"):
        run_study(study, out=tmp_path, scale=0.5, rows=["relu"])


def test_a_run_has_its_folder_for_itself(study: Study, copied: Path) -> None:
    """As `runs/digits`, which is that of a run and of a study of that name in the examples."""
    before = stamps(copied)
    with pytest.raises(UserError, match=r"relu-0 is the folder of a run, not of a study: choose another --out$"):
        run_study(study, out=copied / "relu-0")
    with pytest.raises(UserError, match=r"tiny exists and is not empty: choose another folder"):
        Run.create(copied)
    assert stamps(copied) == before


def test_a_row_that_was_changed_since_is_refused(study: Study, copied: Path) -> None:
    rows = [row.model_dump() for row in study.rows]
    rows[1]["job"]["settings"] += ("epochs=4",)
    changed = Study.model_validate(study.model_dump() | {"rows": rows})
    before = stamps(copied)
    with pytest.raises(UserError, match=r"elu-0 does not hold row elu with seed 0 as planned now"):
        run_study(changed, out=copied)
    assert stamps(copied) == before


def test_a_published_figure_may_be_corrected_later(study: Study, copied: Path) -> None:
    content = json.loads((copied / "relu-0/recipe.json").read_text())
    content |= {"published": {"low": 0.5, "high": 0.5, "source": "somebody"}, "source": "another"}
    (copied / "relu-0/recipe.json").write_text(json.dumps(content))
    assert run_study(study, out=copied).done == ()


@pytest.mark.parametrize("name", ["relu-1", "taught-1"])
def test_a_folder_with_another_seed_is_refused(study: Study, copied: Path, name: str) -> None:
    """Where the base of a lesson is another, so is the lesson."""
    shutil.rmtree(copied / name)
    shutil.copytree(copied / name.replace("1", "0"), copied / name)
    with pytest.raises(UserError, match=f"{name} does not hold row"):
        run_study(study, out=copied)


def test_a_file_in_the_way_is_a_failure(study: Study, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Failure, match="file/tiny cannot be written"):
        run_study(study, out=tmp_path / "file/tiny")

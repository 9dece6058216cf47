"""Damaged run folders and disks that refuse: one sentence, 2 or 1, and what was there stays there."""

import errno
import json
import os
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reslab.recipe.recipe import Recipe
from reslab.runs import Run

Refuse = Callable[..., str]


def cut(name: str) -> Callable[[Path], object]:
    """Keep the first half of a file."""

    def damage(run: Path) -> None:
        whole = (run / name).read_bytes()
        (run / name).write_bytes(whole[: len(whole) // 2])

    return damage


def forget(name: str) -> Callable[[Path], object]:
    return lambda run: (run / name).unlink()


def edit(name: str, **changes: Any) -> Callable[[Path], object]:
    """Set fields of a JSON file."""

    def damage(run: Path) -> None:
        (run / name).write_text(json.dumps(json.loads((run / name).read_text()) | changes))

    return damage


def pipe(name: str, make: Callable[[Path], object] = os.mkfifo) -> Callable[[Path], object]:
    """Put a pipe, or what else is made, in the place of a file."""

    def damage(run: Path) -> None:
        (run / name).unlink()
        make(run / name)

    return damage


def forget_the_test_split(run: Path) -> None:
    evaluation = json.loads((run / "evaluation.json").read_text())
    del evaluation["splits"]["test"]
    (run / "evaluation.json").write_text(json.dumps(evaluation))


WEIGHTS, FIGURES, ANSWERS = "model.safetensors", "evaluation.json", "predictions-test.npz"

DAMAGES = {
    "a cut network": (cut(WEIGHTS), "evaluate report predict", "model.safetensors cannot be read as a safetensors"),
    "no network": (forget(WEIGHTS), "evaluate report predict", "resume with reslab train --resume small"),
    "cut figures": (
        cut(FIGURES),
        "report compare",
        "evaluation.json is damaged: .*; measure it again: run reslab evaluate small",
    ),
    "no figures": (forget(FIGURES), "report compare", "small has not been evaluated: run reslab evaluate small"),
    "no figures of the test": (forget_the_test_split, "report compare", "run reslab evaluate small"),
    "cut predictions": (cut(ANSWERS), "report compare", "predictions-test.npz is damaged"),
    "no predictions": (forget(ANSWERS), "report compare", "predictions-test.npz is missing: run reslab evaluate small"),
    "other classes": (edit(FIGURES, classes=["a", "b", "c", "d"]), "report compare", "run reslab evaluate small"),
    "a cut recipe": (cut("recipe.json"), "evaluate report compare", "recipe.json is not a recipe in JSON"),
    "no recipe": (forget("recipe.json"), "evaluate report compare", "small is not a run folder"),
    "another recipe": (edit("recipe.json", epochs=-1), "evaluate report", "recipe.json: epochs should be greater"),
    "a newer schema": (edit(FIGURES, schema_version=9), "evaluate report compare", "schema 9, .* upgrade reslab"),
    "a cut environment": (cut("environment.json"), "evaluate report compare", "environment.json is damaged"),
    "a pipe for a record": (pipe("environment.json"), "evaluate report compare", "environment.json is not a file"),
    "a pipe for a network": (pipe(WEIGHTS), "evaluate report predict", "model.safetensors is not a file: move it away"),
    "a folder for figures": (pipe(FIGURES, os.mkdir), "report compare", "evaluation.json is not a file"),
    "a pipe for a recipe": (pipe("recipe.json"), "evaluate report compare", "small is not a run folder"),
    "a wrong log": (lambda run: (run / "log.jsonl").write_text("{}\n"), "report compare", "log.jsonl:1 is damaged"),
}
ARGUMENTS = {"predict": ("small", "a.png"), "compare": ("small", "twin")}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_run_is_refused_and_left_as_it_is(refuse: Refuse, finished: Run, case: str) -> None:
    damage, commands, expected = DAMAGES[case]
    shutil.copytree("small", "twin")
    damage(Path("small"))
    for command in commands.split():
        said = refuse(command, *ARGUMENTS.get(command, ("small",)))
        assert re.search(expected, said), said


@pytest.fixture
def half_done(finished: Run) -> Path:
    """A run without its weights, which lie in `whole`, to be gone on with from its checkpoint."""
    finished.weights_path.rename("whole")
    return finished.path / "checkpoint"


def test_a_corrupt_checkpoint_gives_way_to_the_one_before(reslab: Callable[..., Any], half_done: Path) -> None:
    newest = half_done / "newest.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"\x7f")
    assert (half_done / "previous.safetensors").exists()
    outcome = reslab("train", "--resume", "small")
    assert outcome.code == 0
    assert "epoch   3/3" in outcome.err
    assert "epoch   2/3" not in outcome.err


@pytest.mark.parametrize(("damage", "expected"), [(-1, "its checksum does not match"), (100, "cannot be read")])
def test_two_corrupt_checkpoints_are_refused(refuse: Refuse, half_done: Path, damage: int, expected: str) -> None:
    for path in half_done.iterdir():
        whole = path.read_bytes()
        path.write_bytes(whole[:damage] + bytes([whole[damage] ^ 1]) if damage < 0 else whole[:damage])
    said = refuse("train", "--resume", "small")
    assert "newest.safetensors" in said
    assert expected in said


def test_a_checkpoint_of_another_network_is_refused(refuse: Refuse, half_done: Path) -> None:
    edit("recipe.json", model={"kind": "plain", "depth": 8, "width": 8})(Path("small"))
    assert "does not fit the run's recipe" in refuse("train", "--resume", "small")


def test_damaged_figures_are_measured_anew(reslab: Callable[..., Any], finished: Run) -> None:
    sound = finished.evaluation.splits
    cut(FIGURES)(finished.path)
    assert reslab("evaluate", "small", "--views", 2).code == 0
    assert finished.evaluation.splits == sound


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")]
)
def test_too_little_memory_is_told_in_one_sentence(
    refuse: Refuse, finished: Run, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("reslab.training.resume", fail)
    assert refuse("train", "--resume", "small", code=1).startswith(
        "there is not enough memory: try a smaller batch_size"
    )


@pytest.mark.parametrize(
    ("answer", "where"), [("stop", "of 6: lower"), ("retry", "of 6 again, at a lower rate: lower")]
)
def test_a_loss_that_is_not_finite_ends_with_one_sentence(
    reslab: Callable[..., Any], small_recipe: Recipe, answer: str, where: str
) -> None:
    Path("small.json").write_text(small_recipe.model_dump_json())
    wild = ("--set", "optimizer.peak_lr=1e30", "--out", "run")
    outcome = reslab("train", "small.json", *wild, "--on-nonfinite", answer)
    assert outcome.code == 1
    assert re.search(rf"not finite in epoch 1, batch . {where} optimizer.peak_lr", outcome.err.splitlines()[-1])


# ---- disks


@contextmanager
def files_up_to(num_bytes: int) -> Iterator[None]:
    """Let the system refuse to make any file longer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_the_system_refuses(reslab: Callable[..., Any], small_recipe: Recipe) -> None:
    """A checkpoint does not fit, what came before it does; with room again the run is finished."""
    Path("small.json").write_text(small_recipe.model_dump_json())
    with files_up_to(20_000):
        outcome = reslab("train", "small.json", "--out", "run")
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1].startswith("reslab: run/checkpoint/newest.safetensors cannot be written: ")
    assert "Traceback" not in outcome.err
    assert sorted(path.name for path in Path("run").rglob("*") if path.is_file()) == [
        "environment.json",
        "log.jsonl",
        "recipe.json",
    ]
    assert reslab("train", "--resume", "run").code == 0
    assert [epoch.epoch for epoch in Run("run").log] == [1, 2, 3]


def test_a_quota_hit_in_the_middle_of_a_run(reslab: Callable[..., Any], half_done: Path) -> None:
    """The checkpoints stay as they are, and with room again the run ends with the same bytes."""
    losses = [epoch.train_loss for epoch in Run("small").log]
    (half_done / "newest.safetensors").unlink()
    kept = (half_done / "previous.safetensors").read_bytes()
    with files_up_to(20_000):
        assert reslab("train", "--resume", "small").code == 1
    assert [path.name for path in half_done.iterdir()] == ["previous.safetensors"]
    assert (half_done / "previous.safetensors").read_bytes() == kept
    assert reslab("train", "--resume", "small").code == 0
    assert Path("small/model.safetensors").read_bytes() == Path("whole").read_bytes()
    assert [epoch.train_loss for epoch in Run("small").log] == losses


def full(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("refused", ["fsync", "replace"])
@pytest.mark.parametrize(
    "command", ["evaluate small", "report small", "compare small twin --out small/figures", "train --resume half"]
)
def test_a_full_disk(
    refuse: Refuse, finished: Run, monkeypatch: pytest.MonkeyPatch, refused: str, command: str
) -> None:
    """Every file is as it was, and none half-written lies beside one."""
    shutil.copytree("small", "twin")
    shutil.copytree("small", "half")
    Path("half/model.safetensors").unlink()
    monkeypatch.setattr(os, refused, full)
    assert refuse(*command.split(), code=1).endswith("cannot be written: the disk is full")


@pytest.mark.parametrize(
    "command",
    [
        "train digits-quick --out small/recipe.json/run",
        "compare small twin --out small/recipe.json/chart",
        "lab --out small/recipe.json/run",
    ],
)
def test_a_place_where_nothing_can_be_made(refuse: Refuse, finished: Run, command: str) -> None:
    """Below a regular file, which refuses even the superuser."""
    shutil.copytree("small", "twin")
    assert "small/recipe.json/" in refuse(*command.split(), code=1)

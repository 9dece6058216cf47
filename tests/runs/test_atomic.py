import errno
import json
import os
import time
from pathlib import Path

import pytest

from reslab.errors import Failure
from reslab.recipe.shipped import RECIPES
from reslab.runs import Run, pack_weights, write_bytes, write_json
from reslab.runs.files import is_left, name_part, name_place

STEPS = ["open", "write", "fsync", "replace"]
WRITERS = {
    "recipe.json": lambda run, _, seed: run.write_recipe(RECIPES[["lab-resnet32", "plain-20"][seed]]),
    "environment.json": lambda run, sample, seed: run.write_environment(
        sample.environment.model_copy(update={"seed": seed})
    ),
    "evaluation.json": lambda run, sample, seed: run.write_evaluation(
        sample.evaluation.model_copy(update={"recipe": str(seed)})
    ),
    "model.safetensors": lambda run, sample, seed: run.write_weights(
        pack_weights(sample.tensors(seed), sample.weights)
    ),
    "predictions-test.npz": lambda run, sample, seed: run.write_predictions("test", sample.predictions(seed)),
    "predictions-test-tta.npz": lambda run, sample, seed: run.write_predictions(
        "test", sample.predictions(seed), augmented=True
    ),
    "examples-test.npz": lambda run, sample, seed: run.write_examples("test", sample.examples(seed)),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EIO, "Input/output error"),
        (errno.EROFS, "Read-only file system"),
    ],
)
def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, step, number, reason, sample):
    path = tmp_path / "file.json"
    write_json(path, {"old": 1})
    before = sample.listing(tmp_path)
    with monkeypatch.context() as broken:
        sample.break_step(broken, step, OSError(number, os.strerror(number)))
        with pytest.raises(Failure) as error:
            write_json(path, {"new": 2})
    assert str(error.value) == f"{path} cannot be written: {reason}"
    assert sample.listing(tmp_path) == before
    write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"new": 2}


@pytest.mark.parametrize("path", ["", ".", "/"])
def test_a_path_without_a_name_is_a_folder(path: str) -> None:
    with pytest.raises(Failure, match="cannot be written: it is a folder"):
        write_bytes(Path(path), b"")


@pytest.mark.parametrize("step", STEPS)
def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, step, sample):
    write_bytes(tmp_path / "file", b"old")
    with monkeypatch.context() as broken:
        sample.break_step(broken, step, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            write_bytes(tmp_path / "file", b"new")
    assert sample.listing(tmp_path) == {"file": b"old"}


@pytest.mark.parametrize("name", WRITERS)
def test_every_file_of_a_run_is_written_all_or_nothing(tmp_path, monkeypatch, name, sample):
    run = Run.create(tmp_path / "run")
    for step in STEPS:
        WRITERS[name](run, sample, 0)
        before = sample.listing(run.path)
        assert list(before) == [name]
        with monkeypatch.context() as broken:
            sample.break_step(broken, step, OSError(errno.ENOSPC, "No space left on device"))
            with pytest.raises(Failure, match="the disk is full"):
                WRITERS[name](run, sample, 1)
        assert sample.listing(run.path) == before
    WRITERS[name](run, sample, 1)
    assert sample.listing(run.path) != before


def test_a_file_is_flushed_before_it_takes_its_name_and_the_folder_after(tmp_path, monkeypatch):
    steps = []
    for step in ("fsync", "replace"):
        real = getattr(os, step)
        monkeypatch.setattr(os, step, lambda *args, step=step, real=real: (steps.append(step), real(*args)))
    write_bytes(tmp_path / "file", b"new")
    assert steps == ["fsync", "replace", "fsync"]


def test_a_missing_folder_is_a_failure_in_one_sentence(tmp_path):
    with pytest.raises(Failure, match="cannot be written: No such file or directory"):
        write_bytes(tmp_path / "absent" / "file", b"new")


def test_half_written_files_of_dead_writers_go_and_those_of_others_stay(tmp_path: Path) -> None:
    """A process of another host may have the number of one that is dead here; only time tells whether it is gone."""
    here, elsewhere, day = name_place(), "0123456789ab", 24 * 3600
    dead, nobody, alive, other, old, older = (
        tmp_path / f".a.json.{name}.part"
        for name in (
            f"{here}.4194305.00",
            f"{here}.nobody.00",
            f"{here}.{os.getppid()}.00",
            f"{elsewhere}.4194305.00",
            f"{elsewhere}.{os.getppid()}.00",
            "4194305",  # of an earlier version
        )
    )
    for path in (dead, nobody, alive, other, old, older):
        path.touch()
    for path in (old, older):
        os.utime(path, (time.time() - day - 60,) * 2)
    write_json(tmp_path / "a.json", {})
    assert set(tmp_path.iterdir()) == {tmp_path / "a.json", alive, other}


def test_a_folder_that_is_being_written_to_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (part := tmp_path / ".a.0123456789ab.4194305.0.part").mkdir()
    (part / "file").touch()
    past = (time.time() - 24 * 3600 - 60,) * 2
    os.utime(part, past)
    assert not is_left(part)
    os.utime(part / "file", past)
    assert is_left(part)
    (part := name_part(tmp_path / "b")).mkdir()
    monkeypatch.setattr("reslab.runs.files.os.name", "other")  # where nobody can tell whether a process runs
    assert not is_left(part)


def test_writers_with_the_same_number_on_two_hosts_do_not_share_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = []

    def check(part: Path) -> None:
        parts.append(part.name)
        if len(parts) == 1:
            with monkeypatch.context() as other:
                other.setattr("reslab.runs.files.name_place", lambda: "0123456789ab")
                write_bytes(tmp_path / "file", b"theirs", check=check)
        assert part.exists()

    write_bytes(tmp_path / "file", b"ours", check=check)
    assert len(set(parts)) == 2
    assert (tmp_path / "file").read_bytes() == b"ours"

"""Disks that refuse: every write, flush and rename of a run once, one that fills up, and one that is read-only."""

import errno
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reslab.errors import Failure
from reslab.recipe.recipe import Recipe, derive
from reslab.runs import Run
from reslab.training import resume, train

NUM_STEPS = 23  # a log cut, a line, a checkpoint and the weights: open, write, flush, sync, rename(s), sync the folder
Copy = Callable[[str], Run]


@pytest.fixture(scope="module")
def tiny(small_recipe: Recipe) -> Recipe:
    """Three epochs of two updates."""
    return derive(small_recipe, name="tiny", data="digits:1,4,7@10", validation=3, batch_size=14)


@pytest.fixture(scope="module")
def whole(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that nothing disturbs, with a copy of itself beside it of when its second epoch was saved."""
    folder, save = tmp_path_factory.mktemp("whole"), Run.write_checkpoint

    def keep(run: Run, tensors: Any, state: Any) -> None:
        save(run, tensors, state)
        if state["epochs"] == 2:
            shutil.copytree(run.path, folder / "half", ignore=shutil.ignore_patterns(".lock"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "write_checkpoint", keep)
        return train(tiny, out=folder / "whole")


@pytest.fixture
def half(whole: Run, tmp_path: Path) -> Copy:
    """Make copies of the run with one epoch left."""

    def copy(name: str) -> Run:
        shutil.copytree(whole.path.parent / "half", tmp_path / name)
        return Run.open(tmp_path / name)

    return copy


def assert_finished_alike(run: Run, whole: Run) -> None:
    timeless = {"seconds", "images_per_second"}
    assert run.weights_path.read_bytes() == whole.weights_path.read_bytes()
    assert [e.model_dump(exclude=timeless) for e in run.log] == [e.model_dump(exclude=timeless) for e in whole.log]
    assert not list(run.path.rglob("*.part"))


# ---- every step of writing


class Steps:
    """Counts the steps of writing, and refuses one of them; of a refused write the first half arrives."""

    def __init__(self, patch: pytest.MonkeyPatch, *, refused: int) -> None:
        self.taken, self.refused = 0, refused
        for name in ("fsync", "replace"):
            patch.setattr(os, name, self.guard(getattr(os, name)))
        self.open = Path.open
        patch.setattr(Path, "open", lambda path, mode="r", *rest, **more: self.open_guarded(path, mode, *rest, **more))

    def guard(self, real: Callable[..., Any], before: Callable[..., Any] = lambda *_: None) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.taken += 1
            if self.taken - 1 == self.refused:
                before(*arguments)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments)

        return call

    def open_guarded(self, path: Path, mode: str, *rest: Any, **more: Any) -> Any:
        if mode not in ("wb", "ab"):
            return self.open(path, mode, *rest, **more)
        return Guarded(self.guard(self.open)(path, mode), self)


class Guarded:
    """A file whose writes and flushes are steps."""

    def __init__(self, file: Any, steps: Steps) -> None:
        self.file, self.fileno = file, file.fileno
        self.write = steps.guard(file.write, before=lambda content: file.write(content[: len(content) // 2]))
        self.flush = steps.guard(file.flush)

    def __enter__(self) -> "Guarded":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


def test_whichever_step_of_writing_fails_nothing_is_lost(
    half: Copy, whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for refused in itertools.count():
        run = half(f"run{refused}")
        saved = run.read_checkpoint().state["updates"]
        with monkeypatch.context() as patch:
            steps = Steps(patch, refused=refused)
            if refused == NUM_STEPS:
                break
            with pytest.raises(Failure, match=r"cannot be written: the disk is full$"):
                resume(run.path)
        assert steps.taken == refused + 1
        assert run.read_checkpoint().state["updates"] in (saved, whole.read_checkpoint().state["updates"])
        assert not list(run.path.rglob("*.part"))
        resume(run.path)
        assert_finished_alike(run, whole)
    with monkeypatch.context() as patch:
        steps = Steps(patch, refused=-1)
        resume(run.path)
    assert steps.taken == NUM_STEPS


# ---- whole disks


class Disk:
    """A folder on a small disk of its own where that is allowed to mount, else one that acts like it."""

    def __init__(self, folder: Path, *, num_bytes: int, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.num_bytes, self.patch = folder, num_bytes, patch
        self.mounted = mount("-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", folder)
        if not self.mounted:
            self.open = Path.open
            patch.setattr(Path, "open", self.open_small)

    def open_small(self, path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        file = self.open(path, mode, *rest, **more)
        if mode in ("wb", "ab") and path.is_relative_to(self.folder):
            return Small(file, self)
        return file

    def used(self) -> int:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def protect(self) -> None:
        """Make it read-only."""
        if self.mounted:
            assert mount("-o", "remount,ro", self.folder)
            return

        def refuse(*arguments: Any, **options: Any) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        self.patch.setattr(os, "open", refuse)


class Small:
    """A file on the disk that only acts like one."""

    def __init__(self, file: Any, disk: Disk) -> None:
        self.file, self.disk, self.flush, self.fileno = file, disk, file.flush, file.fileno

    def write(self, content: bytes) -> None:
        if self.disk.used() + len(content) > self.disk.num_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.file.write(content)

    __enter__, __exit__ = Guarded.__enter__, Guarded.__exit__


def mount(*arguments: object) -> bool:
    command = shutil.which("mount")
    return bool(command) and subprocess.run([str(command), *map(str, arguments)], capture_output=True).returncode == 0


@pytest.fixture
def disk(tmp_path: Path, whole: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Room for a run with two checkpoints and a third that is being written, and little more."""
    (tmp_path / "disk").mkdir()
    room = sum(path.stat().st_size for path in whole.path.rglob("*") if path.is_file())
    room += (whole.path / "checkpoint/newest.safetensors").stat().st_size
    with monkeypatch.context() as patch:
        disk = Disk(tmp_path / "disk", num_bytes=room + 40_000, patch=patch)
        yield disk
    if disk.mounted:
        subprocess.run(["umount", "--lazy", str(disk.folder)], check=True)


def test_a_disk_that_fills_up_during_a_checkpoint(disk: Disk, tiny: Recipe, whole: Run) -> None:
    ballast = disk.folder / "ballast"
    ballast.write_bytes(bytes((whole.path / "checkpoint/newest.safetensors").stat().st_size))
    with pytest.raises(Failure, match=r"newest\.safetensors cannot be written: the disk is full$"):
        train(tiny, out=disk.folder / "run")
    run = Run.open(disk.folder / "run")
    assert [one.state["epochs"] for one in run.read_checkpoints()] == [2, 1]
    assert not list(run.path.rglob("*.part"))
    ballast.unlink()
    resume(run.path)
    assert_finished_alike(run, whole)


def test_a_read_only_disk(disk: Disk, whole: Run) -> None:
    path = disk.folder / "run"
    shutil.copytree(whole.path.parent / "half", path)
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.MonkeyPatch.context() as patch:
        disk.patch = patch
        disk.protect()
        with pytest.raises(Failure, match=r"run/\.lock cannot be written: Read-only file system"):
            resume(path)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before

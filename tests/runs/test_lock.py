"""One writer for a run folder, until it ends in whatever way."""

import fcntl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from reslab.errors import UserError
from reslab.runs import Run
from reslab.runs.lock import ATTEMPTS

HOLD = "import sys; from reslab.runs import Run\nwith Run(sys.argv[1]).locked(): print(flush=True); sys.stdin.read()"


def test_the_second_process_is_refused_while_the_first_lives_and_not_after_it_was_killed(run: Run) -> None:
    command = [sys.executable, "-c", HOLD, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with (
            pytest.raises(UserError, match=r"another process works on .*run: wait until it ends, or stop it"),
            run.locked(),
        ):
            pass
        assert run.recipe  # to read is allowed
        assert run.is_locked
        first.kill()
        first.wait()
    with run.locked():
        pass


def test_to_ask_whether_a_folder_is_locked_takes_no_lock_from_anybody(run: Run) -> None:
    assert run.is_locked is False
    asking = threading.Event()

    def ask() -> None:
        while not asking.is_set():
            run.is_locked  # noqa: B018
            time.sleep(0.001)

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        for _ in range(50):
            with run.locked():
                assert run.is_locked
    finally:
        asking.set()
        asker.join()
    assert run.is_locked is False


def test_a_lock_that_a_dead_process_left_is_free(run: Run) -> None:
    (run.path / ".lock").touch()
    assert run.is_locked is False
    with run.locked():
        assert run.is_locked


@pytest.mark.parametrize("asked", [1, ATTEMPTS - 1, ATTEMPTS])
def test_whoever_only_asks_delays_a_writer_for_a_moment(asked: int, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([True] * asked)
    flock = fcntl.flock

    def busy(handle: int, how: int) -> None:
        if next(answers, False):
            raise BlockingIOError
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", busy)
    if asked == ATTEMPTS:
        with pytest.raises(UserError, match="another process works on"), run.locked():
            pass
    else:
        with run.locked():
            pass


def test_a_lock_leaves_nothing_behind(run: Run, sample: Any) -> None:
    before, handles = sample.listing(run.path), count_handles()
    with run.locked(), pytest.raises(UserError), run.locked():
        pass
    assert sample.listing(run.path) == before
    assert count_handles() == handles


def count_handles() -> int:
    """Count this process's open files, where the system lists them."""
    return sum(1 for _ in Path("/proc/self/fd").glob("*"))


def test_a_beginning_that_was_killed_is_not_in_the_way(tmp_path: Path) -> None:
    for name in (".lock", "environment.json", ".recipe.json.7.part"):
        (tmp_path / name).touch()
    assert Run.create(tmp_path).path == tmp_path
    (tmp_path / "log.jsonl").touch()
    with pytest.raises(UserError, match="not empty"):
        Run.create(tmp_path)

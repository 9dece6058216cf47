from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from reslab.data.storage.locks import discard_lock, lock_of, locked


def test_who_waits_for_a_lock_whose_file_is_removed_holds_it_alone(tmp_path: Path) -> None:
    waiting, entered, leaving = Event(), Event(), Event()

    def wait() -> None:
        waiting.set()
        with locked(tmp_path / "entry"):
            entered.set()
            leaving.wait(10)

    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path / "entry"):
            pool.submit(wait)
            assert waiting.wait(10)
            assert not entered.wait(0.2)
            discard_lock(tmp_path / "entry")
            assert not lock_of(tmp_path / "entry").exists()
        assert entered.wait(10)
        try:
            with pytest.raises(BlockingIOError), locked(tmp_path / "entry", wait=False):
                pass
        finally:
            leaving.set()

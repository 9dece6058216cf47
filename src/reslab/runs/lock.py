"""One writer for a run folder: a lock that dies with the process that holds it, however that ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reslab.errors import UserError
from reslab.runs.files import writing

try:
    import fcntl
except ImportError:  # Windows: there is no such lock, and two writers are a person's own affair
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder` while the block runs; other processes may read.

    Raises: UserError where another process holds it; Failure where the folder takes no file.
    """
    handle = _open(folder)
    try:
        yield
    finally:
        with suppress(OSError):  # a disk that has become read-only: what was to be said of it has been said
            (folder / NAME).unlink(missing_ok=True)  # while it is still held, or somebody else's could go
        os.close(handle)


def _open(folder: Path) -> int:
    while True:
        handle: int = writing(folder / NAME, lambda: os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o666))
        try:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_ino == os.stat(folder / NAME).st_ino:
                return handle
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(handle)
            raise UserError(f"another process works on {folder}: wait until it ends, or stop it") from None
        except OSError:  # a network disk without locks
            return handle
        # The holder before has taken the file away between our two steps.
        os.close(handle)

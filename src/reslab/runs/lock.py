"""One writer for a run folder: a lock that dies with the process that holds it, however that ends."""

import os
import time
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
ATTEMPTS = 5


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


def is_locked(folder: Path) -> bool | None:
    """Say whether a process writes into `folder`; None where that cannot be told, for want of locks."""
    try:
        handle = os.open(folder / NAME, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, AttributeError):  # a network disk without locks; Windows
        return None
    finally:
        os.close(handle)
    return False


def beat(folder: Path, said: bytes) -> None:
    """Tell other programs, which may see no locks, that the writer is alive, and what it says.

    The lock's time of modification is now. Whoever reads while it is written sees a part, or nothing.
    """
    with suppress(OSError):
        handle = os.open(folder / NAME, os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(handle, said)
            os.utime(handle)
        finally:
            os.close(handle)


def last_said(folder: Path) -> bytes:
    """Give what the writer of `folder` said last; nothing where there is none."""
    try:
        return (folder / NAME).read_bytes()
    except OSError:
        return b""


def last_beat(folder: Path) -> float | None:
    """Say when the writer of `folder` was last alive, in seconds since 1970; None where there is none."""
    try:
        return (folder / NAME).stat().st_mtime
    except OSError:
        return None


def _open(folder: Path) -> int:
    attempts = ATTEMPTS
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
            attempts -= 1
            if not attempts:
                raise UserError(f"another process works on {folder}: wait until it ends, or stop it") from None
            time.sleep(0.01)  # whoever only asks holds it for some microseconds
            continue
        except OSError:  # a network disk without locks
            return handle
        # The holder before has taken the file away between our two steps.
        os.close(handle)

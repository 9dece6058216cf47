"""The write lock of a run folder, which is released when its process ends in any way."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reslab.errors import UserError
from reslab.runs.files import writing

try:
    import fcntl
except ImportError:  # Windows has no such lock, so users must avoid two writers themselves
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
ATTEMPTS = 5


@contextmanager
def locked(folder: Path, *, name: str = NAME) -> Iterator[None]:
    """Hold the lock of `folder`, or another one in it, while the block runs; other processes may read.

    Raises: UserError if another process holds it; Failure if the lock file cannot be created.
    """
    handle = _open(folder, name)
    try:
        yield
    finally:
        with suppress(OSError):  # the disk has become read-only, which is already reported
            (folder / name).unlink(missing_ok=True)  # while still held, or another process's could be removed
        os.close(handle)


def is_locked(folder: Path) -> bool | None:
    """Return whether a process is writing into `folder`; None if that is unknown because there are no locks."""
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
    """Write a message of the writer into the lock file, so that programs without locks see that it is alive.

    This sets the file's modification time to now. A concurrent reader may see part of the message, or nothing.
    """
    with suppress(OSError):
        handle = os.open(folder / NAME, os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(handle, said)
            os.utime(handle)
        finally:
            os.close(handle)


def last_said(folder: Path) -> bytes:
    """Return the last message of the writer of `folder`; empty if there is none."""
    try:
        return (folder / NAME).read_bytes()
    except OSError:
        return b""


def _open(folder: Path, name: str) -> int:
    attempts = ATTEMPTS
    while True:
        handle: int = writing(folder / name, lambda: os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o666))
        try:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_ino == os.stat(folder / name).st_ino:
                return handle
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(handle)
            attempts -= 1
            if not attempts:
                raise UserError(f"another process works on {folder}: wait until it ends, or stop it") from None
            time.sleep(0.01)  # a process that only checks holds it for some microseconds
            continue
        except OSError:  # a network disk without locks
            return handle
        # The previous holder has removed the file between our two steps.
        os.close(handle)

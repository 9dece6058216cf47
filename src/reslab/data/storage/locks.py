"""Locks of files, which the system releases when their process ends in any way.

Windows and some network disks have none: there, everyone gets a lock at once.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reslab.runs.files import writing

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a path, which need not exist; others wait or get a BlockingIOError."""
    lock = lock_of(path)
    while True:
        handle: int = writing(lock, lambda: os.open(lock, os.O_RDWR | os.O_CREAT, 0o666))
        try:
            if take(handle, wait=wait) and not _is_file(handle, lock):
                continue
            yield
            return
        finally:
            os.close(handle)


def lock_of(path: Path) -> Path:
    """Return the file whose lock is that of a path."""
    return path.with_name(f".{path.name}.lock")


def discard_lock(path: Path) -> None:
    """Remove the file of a lock that is held; those who wait for it make a new one."""
    with suppress(OSError):  # Windows removes no file that is open
        lock_of(path).unlink()


def take(handle: int, *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file; return False if there are no locks. Raises: BlockingIOError if it is not to wait but must."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _is_file(handle: int, path: Path) -> bool:
    """Return whether an open file is still the one at a path."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), os.stat(path))
    return False

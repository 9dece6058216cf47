"""Notes for the user on how data was read, each printed once per process."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from reslab.words import printable

_is_known: ContextVar[bool] = ContextVar("is_known", default=False)


def say_once(line: str) -> None:
    """Print a line to the progress output, only the first time."""
    if not _is_known.get():
        _say(line)


@contextmanager
def already_said() -> Iterator[None]:
    """Print no notes within the block, because they were already printed during training."""
    token = _is_known.set(True)
    try:
        yield
    finally:
        _is_known.reset(token)


@cache
def _say(line: str) -> None:
    print(printable(f"reslab: {line}"), file=sys.stderr)

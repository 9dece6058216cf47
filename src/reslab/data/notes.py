"""What a person should know of how data was read: a line each, once in a process."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

from reslab.words import printable

_is_known: ContextVar[bool] = ContextVar("is_known", default=False)


def say_once(line: str) -> None:
    """Print a line where progress is printed, the first time that it is said."""
    if not _is_known.get():
        _say(line)


@contextmanager
def already_said() -> Iterator[None]:
    """Say nothing in the block: whoever trained on these images was told."""
    token = _is_known.set(True)
    try:
        yield
    finally:
        _is_known.reset(token)


@cache
def _say(line: str) -> None:
    print(printable(f"reslab: {line}"), file=sys.stderr)

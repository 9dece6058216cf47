"""What a person should know of how data was read: a line each, once in a process."""

import sys
from functools import cache

from reslab.words import printable


@cache
def say_once(line: str) -> None:
    """Print a line where progress is printed, the first time that it is said."""
    print(printable(f"reslab: {line}"), file=sys.stderr)

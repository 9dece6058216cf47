"""Packages that only some commands need: an absent one is named in a sentence, with the extra that brings it."""

from collections.abc import Iterator
from contextlib import contextmanager

from reslab.errors import UserError


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import what reslab[name] brings. Raises: UserError where it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed: pip install 'reslab[{name}]'") from None

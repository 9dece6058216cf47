"""Packages that only some commands need: an absent one is named in a sentence, with the extra that brings it."""

import warnings
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


@contextmanager
def without_widgets() -> Iterator[None]:
    """Import a package that looks for a notebook's progress bars, none of which reslab shows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        yield

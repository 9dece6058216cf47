"""Regular expressions on the names of files, which give labels and groups."""

import re
from collections.abc import Callable

from reslab.errors import UserError


def compile_rule(pattern: str, *, option: str) -> Callable[[str], str | None]:
    """Make a function that finds an expression's first group, or all of it, in a name; None where it isn't there.

    Raises: UserError where it is no regular expression.
    """
    try:
        rule = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UserError(f"{option}={pattern} is no regular expression: {error}") from None

    def find(name: str) -> str | None:
        match = rule.search(name)
        return None if match is None else (match[1] if rule.groups else match[0])

    return find

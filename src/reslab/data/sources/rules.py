"""Regular expressions that extract labels and groups from file names."""

import re
from collections.abc import Callable

from reslab.errors import UserError


def compile_rule(pattern: str, *, option: str) -> Callable[[str], str | None]:
    """Return a function that finds the pattern's first group, or its whole match, in a name; None without a match.

    Raises: UserError if the regular expression is invalid.
    """
    try:
        rule = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UserError(f"{option}={pattern} is not a valid regular expression: {error}") from None

    def find(name: str) -> str | None:
        match = rule.search(name)
        return None if match is None else (match[1] if rule.groups else match[0])

    return find

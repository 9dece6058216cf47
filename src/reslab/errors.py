"""Errors shown to users: one sentence with the wrong value, what is allowed and what to do.

The command line prints only the message. Any other exception is a bug.
"""

import difflib
import json
import os
import reprlib
import shlex
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


class UserError(ValueError):
    """A wrong argument, expression, file or folder: what is wrong with which value, then what to do.

    The command line prints the message and exits with status 2.

    Examples
    --------
    >>> import reslab
    >>> try:
    ...     reslab.find_recipe("digit-quick")
    ... except reslab.UserError as error:
    ...     print(error)
    unknown recipe 'digit-quick': did you mean 'digits-quick'? (reslab recipes lists them; a file's name ends in .json)
    """


class Failure(RuntimeError):  # noqa: N818 - not every failure is an error of the program
    """Something failed through no fault of the request: the loss, the disk, the network, or an interruption.

    The command line prints the message and exits with status 1.

    Examples
    --------
    >>> import reslab
    >>> issubclass(reslab.Failure, reslab.UserError)
    False
    """


class Stopped(Failure):
    """A run was asked to stop, and has saved its state."""


# What is wanted instead of pydantic's error type, or of all types that begin with the same word.
_WANTED = {
    "bool": "true or false",
    "dict": "an object with fields",
    "finite": "a finite number",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "model": "an object with fields",
    "none_required": "null",
    "string": "text",
    "string_pattern_mismatch": "text that matches {pattern}",
    "string_too_long": "text of at most {max_length} characters",
    "string_too_short": "text of at least {min_length} characters",
    "too_long": "a list of at most {max_length}",
    "too_short": "a list of at least {min_length}",
    "tuple": "a list",
}


def first_complaint(error: "ValidationError", content: Any) -> str:
    """Describe the first error in the JSON-like `content` in one sentence, with its location and value."""
    first = error.errors()[0]
    place, kind, context = _find_place(first["loc"], content), first["type"], first.get("ctx", {})
    match kind:
        case "missing":
            return f"{place} is missing"
        case "unknown_field":
            field = ".".join(filter(None, (place, context["name"])))
            return f"{field} is not a known field" + (f": {context['hint']}" if context["hint"] else "")
        case "union_tag_not_found":
            return f"{place}.kind is missing"
        case "union_tag_invalid":
            return f"{place}.kind should be one of {context['expected_tags']}, not {show(context['tag'])}"
        case "value_error":
            return f"{place}: {context['error']}" if place else str(context["error"])
    if (
        kind in ("literal_error", "int_type", "int_parsing")
        and len(first["loc"]) > 1
        and "literal" in str(first["loc"][-1])
    ):
        choices = context.get("expected", "one of its names")
        return f"{_find_place(first['loc'][:-1], content)} should be {choices} or a number, not {show(first['input'])}"
    return f"{place or 'it'} should be {describe_wanted(first)}, not {show(first['input'])}"


def describe_wanted(error: "ErrorDetails") -> str:
    """Name what one of pydantic's errors wants instead of the value."""
    kind = error["type"]
    words = _WANTED.get(kind) or _WANTED.get(kind.split("_")[0])
    return words.format(**error.get("ctx", {})) if words else error["msg"].removeprefix("Input should be ")


def show(value: Any) -> str:
    """Format a value as JSON, shortened if it is long; of an object that JSON does not have, only its kind."""
    match value:
        case None | bool():
            return json.dumps(value)
        case list() | tuple():
            return "[…]" if value else "[]"
        case dict():
            return "{…}" if value else "{}"
        case str() | int() | float() | Path():
            return reprlib.repr(value)
    return f"a {type(value).__name__}"


def in_shell(text: object) -> str:
    """Quote a path or an expression for a command that users copy into a shell."""
    return shlex.quote(str(text))


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str) -> str:
    """Suggest the known name closest to `name`, or return `otherwise` if none is close, or several equally."""
    near = difflib.get_close_matches(name.lower(), known, n=2, cutoff=0.5)
    best = [difflib.SequenceMatcher(None, each, name.lower()).ratio() for each in near]
    return otherwise if not near or best[0] in best[1:] else f"did you mean {near[0]!r}?"


def find_similar(path: Path | str) -> Path | None:
    """Find the file or folder beside a missing `path` whose name is closest to it, if one is close."""
    path = Path(path)
    try:
        beside = os.listdir(path.parent)
    except (OSError, ValueError):  # there is no such folder, or no disk takes the name
        return None
    near = difflib.get_close_matches(path.name, sorted(beside), n=1, cutoff=0.7)
    return path.with_name(near[0]) if near else None


def _find_place(path: tuple[int | str, ...], content: Any) -> str:
    """Join a path with dots, leaving out the kinds that pydantic adds when it chooses a member of a union."""
    names = []
    for part in path:
        if isinstance(content, dict) and part == content.get("kind") and part not in content:
            continue
        if isinstance(part, str) and not isinstance(content, dict):
            continue  # a member of a union of a number and a list
        if part != "[key]":  # which stands behind the key itself
            names.append(str(part))
        try:
            content = content[part]
        except (LookupError, TypeError):
            content = None
    return ".".join(names)


@contextmanager
def naming_problem(problem: str) -> Iterator[None]:
    """Read input that may be broken in the block; readers raise anything then.

    Raises: UserError that begins with `problem`; UserError and Failure of the block pass.
    """
    try:
        yield
    except (UserError, Failure):
        raise
    except Exception as error:
        raise UserError(f"{problem}: {getattr(error, 'strerror', None) or error}") from None


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import packages of the extra reslab[name]. Raises: UserError if one is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed: pip install 'reslab[{name}]'") from None


@contextmanager
def without_widgets() -> Iterator[None]:
    """Silence the warning of packages that miss notebook progress bars, which reslab does not use."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        yield


def check_kind(path: Path | str) -> None:
    """Raises: UserError if `path` exists but is not a file: reading a pipe, for example, could block forever."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{path} is not a file: move it away")

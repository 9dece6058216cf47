"""The data expression: which classes of which sources, in which order, as a value. Nothing is read here.

    expression = source { "+" source }              classes are numbered in the order written; equal names are refused
    source     = named [ ":" class { "," class } ] [ "@" number ]
               | ( "folder" | "npz" ) ":" path [ "@" number ]
    named      = "cifar10" | "cifar100" | "cifar100-coarse" | "digits"
    class      = the name of a class; of `cifar100` also of a superclass, which stands for its five classes in their
                 official order; of `digits` also a range, as in 0-6; without any, all classes in their official order
    number     = take at most so many training images of each class, the same ones each time; the test split stays whole

`cifar100-coarse` has the 20 superclasses as its classes. A "+" belongs to a path unless a source's name follows it
(`folder:a+b` is one path, `folder:a+digits` is two sources); a path that itself ends in "@5" is written with a "/"
after it. Spaces around names are left out.
"""

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from reslab.data.catalog import CIFAR10_CLASSES, CIFAR100_CLASSES, CIFAR100_SUPERCLASSES
from reslab.errors import UserError

Named = Literal["cifar10", "cifar100", "cifar100-coarse", "digits"]
Located = Literal["folder", "npz"]

CLASSES: dict[Named, tuple[str, ...]] = {
    "cifar10": CIFAR10_CLASSES,
    "cifar100": CIFAR100_CLASSES,
    "cifar100-coarse": tuple(CIFAR100_SUPERCLASSES),
    "digits": tuple("0123456789"),
}
_LOCATED: tuple[Located, ...] = get_args(Located)
_SOURCES: tuple[str, ...] = (*CLASSES, *_LOCATED)
_NAMES_SHOWN = 12


@dataclass(frozen=True)
class NamedTerm:
    """Some classes of a known set, in the order wanted; at most `limit` training images of each."""

    source: Named
    classes: tuple[str, ...]
    limit: int | None


@dataclass(frozen=True)
class LocatedTerm:
    """All classes of a folder or file of the user's; at most `limit` training images of each."""

    source: Located
    path: Path
    limit: int | None


Term = NamedTerm | LocatedTerm


def parse(expression: str) -> tuple[Term, ...]:
    """Read a data expression. Raises: UserError that names what is wrong and the nearest right name."""
    terms = tuple(_parse_source(text.strip(), expression) for text in _split(expression))
    check_distinct((name for term in terms if isinstance(term, NamedTerm) for name in term.classes), expression)
    return terms


def check_distinct(names: Iterable[str], expression: str) -> None:
    """Refuse a class name that stands twice in a sum. Raises: UserError."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"the class {name!r} is in {expression!r} twice: take each class once, or rename one")
        seen.add(name)


def _split(expression: str) -> list[str]:
    """Cut at each "+", except inside a path."""
    sources: list[str] = []
    for piece in expression.split("+"):
        in_path = sources and sources[-1].lstrip().startswith(tuple(f"{name}:" for name in _LOCATED))
        if in_path and not _starts_source(piece):
            sources[-1] += "+" + piece
        else:
            sources.append(piece)
    return sources


def _starts_source(piece: str) -> bool:
    return re.split("[:@]", piece.strip(), maxsplit=1)[0] in _SOURCES


def _parse_source(text: str, expression: str) -> Term:
    if not text:
        raise UserError(
            f"the data expression {expression!r} lacks a source: write for example cifar10+cifar100:reptiles"
        )
    body, limit = _parse_limit(text)
    source, colon, rest = (part.strip() for part in body.partition(":"))
    if source in _LOCATED:
        if not rest:
            raise UserError(f"{text!r} lacks a path: write {source}:PATH")
        return LocatedTerm(source, Path(os.path.expanduser(rest)), limit)
    if source not in CLASSES:
        raise UserError(f"{source!r} is not a data source; {_nearest(source, _SOURCES)}")
    items = [item.strip() for item in rest.split(",")] if colon else CLASSES[source]
    return NamedTerm(source, tuple(name for item in items for name in _expand(source, item)), limit)


def _parse_limit(text: str) -> tuple[str, int | None]:
    """Take a trailing @N off."""
    match = re.fullmatch(r"(.*)@\s*(\d+)", text, re.DOTALL)
    if match is None:
        return text, None
    if int(match[2]) == 0:
        raise UserError(f"{text!r} asks for 0 training images of each class: write @1 or more, or leave the @ out")
    return match[1], int(match[2])


def _expand(source: Named, item: str) -> tuple[str, ...]:
    """Resolve a class, a superclass or a range of digits to names of classes."""
    if item in CLASSES[source]:
        return (item,)
    if source == "cifar100" and item in CIFAR100_SUPERCLASSES:
        return CIFAR100_SUPERCLASSES[item]
    if source == "digits":
        if (ends := re.fullmatch(r"(\d)\s*-\s*(\d)", item)) and ends[1] <= ends[2]:
            return CLASSES[source][int(ends[1]) : int(ends[2]) + 1]
        raise UserError(
            f"{item!r} is not a class of digits; it has 0 to 9, alone (digits:1,3) or in a range (digits:0-6)"
        )
    known = (*CLASSES[source], *(CIFAR100_SUPERCLASSES if source == "cifar100" else ()))
    raise UserError(f"{item!r} is not a class of {source}; {_nearest(item, known)}")


def _nearest(name: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    return (
        f"it has {', '.join(known)}" if len(known) <= _NAMES_SHOWN else f"it has {', '.join(known[:_NAMES_SHOWN])}, …"
    )

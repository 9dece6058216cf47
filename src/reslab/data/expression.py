"""The data expression as a value: which classes of which sources, in which order. Nothing is read here.

    expression = source { "+" source }              classes are numbered in the order written, each taken once
    source     = named [ ":" class { "," class } ] [ "@" number ]
               | ( "folder" | "csv" | "npz" ) ":" path [ ":" choice { "," choice } ] [ "?" option { "&" option } ]
                 [ "@" number ]
               | "shards" ":" ( path | URL ) [ "@" number ]
    choice     = the name of a class to take, in that order; or, with "-" before all of them, of a class to leave out
    option     = ( "label" | "group" | "file" | "split" | "level" | "folder" ) "=" text
    named      = "cifar10" | "cifar100" | "cifar100-coarse" | "digits"
    class      = the name of a class; of `cifar100` also of a superclass, which stands for its five classes in their
                 official order; of `digits` also a range, as in 0-6; without any, all classes in their official order
    number     = take at most this many training images of each class, always the same ones; with 0 the classes are
                 known but have no training images; the test split stays complete

`cifar100-coarse` has the 20 superclasses as its classes. A "+" belongs to a path unless a source's name follows it
(`folder:a+b` is one path, `folder:a+digits` is two sources); a path that itself ends in "@5" or has a ":" in its last
part needs a "/" after it. Spaces around names are ignored. If two sources have a class of the same name, loading
the expression fails unless such classes are merged.
"""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

from reslab.data.addresses import is_remote
from reslab.data.names import can_be_chosen, choose_without, nfc, write_choice
from reslab.data.sources.catalog import CIFAR10_CLASSES, CIFAR100_CLASSES, CIFAR100_SUPERCLASSES
from reslab.data.sources.options import NO_OPTIONS, NONE, Options
from reslab.errors import UserError, did_you_mean, find_similar

Named = Literal["cifar10", "cifar100", "cifar100-coarse", "digits"]
Located = Literal["folder", "csv", "npz"]

CLASSES: dict[Named, tuple[str, ...]] = {
    "cifar10": CIFAR10_CLASSES,
    "cifar100": CIFAR100_CLASSES,
    "cifar100-coarse": tuple(CIFAR100_SUPERCLASSES),
    "digits": tuple("0123456789"),
}
ABOUT = {  # syntax and meaning
    "cifar10": "50,000 training and 10,000 test images of 32x32 in ten classes",
    "cifar100": "as many in a hundred classes; cifar100:reptiles and cifar100:lizard,snake take some of them",
    "cifar100-coarse": "the same images in twenty superclasses",
    "digits": "1,797 handwritten digits of 8x8, which come with scikit-learn; digits:0-6 takes some",
    "folder:PATH": "pictures in a folder or archive, a subfolder for each class; folder:PATH:cat,dog takes two classes",
    "csv:FILE": "pictures that a table lists with their labels",
    "npz:FILE": "arrays saved by NumPy",
    "shards:PATH": "shards written by reslab data pack, in a folder or at a URL",
}
_LOCATED: tuple[str, ...] = (*get_args(Located), "shards")
_SOURCES: tuple[str, ...] = (*CLASSES, *_LOCATED)
_OPTIONS = ("label", "group", "file", "split", "level", "folder")
_OPTION = rf"[?&](?=(?:{'|'.join(_OPTIONS)})=)"  # before each option
_ALLOWED: dict[Located, tuple[str, ...]] = {
    "folder": ("label", "group", "level"),
    "csv": ("file", "label", "split", "group", "folder"),
    "npz": (),
}
_KINDS = {".npz": "npz", ".npy": "npz", ".csv": "csv", ".tsv": "csv", ".parquet": "csv"}
_NAMES_SHOWN = 12


@dataclass(frozen=True)
class NamedTerm:
    """Some classes of an official set, in the order given; at most `limit` training images of each."""

    source: Named
    classes: tuple[str, ...]
    limit: int | None

    @property
    def origin(self) -> str:
        """Where the images come from, as in an expression."""
        return self.source


@dataclass(frozen=True)
class LocatedTerm:
    """Classes of a user's folder or file: all, the chosen ones in that order, or all `without` some.

    At most `limit` training images of each are taken.
    """

    source: Located
    path: Path
    limit: int | None
    classes: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    options: Options = NO_OPTIONS

    @property
    def origin(self) -> str:
        """Where the images come from, as in an expression."""
        return f"{self.source}:{self.path}"


@dataclass(frozen=True)
class ShardsTerm:
    """All classes of shards in a folder or at an address; at most `limit` training images of each."""

    url: str
    limit: int | None
    source: Literal["shards"] = "shards"
    classes: ClassVar[tuple[str, ...]] = ()  # cannot be chosen
    without: ClassVar[tuple[str, ...]] = ()

    @property
    def origin(self) -> str:
        """Where the images come from, as in an expression."""
        return f"shards:{self.url}"


Term = NamedTerm | LocatedTerm | ShardsTerm


def parse(expression: str) -> tuple[Term, ...]:
    """Parse a data expression. Raises: UserError that says what is wrong and suggests the nearest valid name."""
    terms = tuple(_parse_source(text, expression) for text in split_sources(expression))
    _check_taken_once(terms, expression)
    return terms


def find_remote(expression: str) -> list[str]:
    """List the addresses of an expression that are on other machines, even if nothing would be read from them."""
    places: list[str] = []
    for term in parse(expression):
        if isinstance(term, ShardsTerm):
            places.append(term.url)
        elif isinstance(term, LocatedTerm):
            places += [str(term.path), str(term.options.folder or "")]
    return [place for place in places if is_remote(place)]


def join_expressions(old: str, new: str, *, old_limit: int | None) -> str:
    """Join two expressions, limiting the sources of `old` to at most `old_limit` training images per class.

    A source with a smaller limit keeps it. Raises: UserError if one is wrong, or both take the same class.
    """
    for expression in (old, new):
        parse(expression)
    joined = "+".join([*(_lower_limit(text, old_limit) for text in split_sources(old)), *split_sources(new)])
    parse(joined)
    return joined


def find_groupings(expression: str) -> list[str]:
    """List the rules by which an expression groups pictures, such as time:5."""
    rules = [term.options.group for term in parse(expression) if isinstance(term, LocatedTerm)]
    return [rule for rule in rules if rule is not None and rule != NONE]


def find_taken_again(
    old: str, new: str, *, known: Sequence[str], locate: Callable[[Path], Path] = lambda path: path
) -> list[str]:
    """List the classes that both expressions take from the same source.

    A source of which no class is chosen takes the `known` ones; `locate` resolves the path of a source.
    """

    def taken(expression: str) -> list[tuple[str, str]]:
        found = []
        for term in parse(expression):
            place = os.path.realpath(locate(term.path)) if isinstance(term, LocatedTerm) else term.origin
            without = () if isinstance(term, NamedTerm) else term.without
            found += [(place, name) for name in term.classes or known if name not in without]
        return found

    before = set(taken(old))
    return list(dict.fromkeys(name for place, name in taken(new) if (place, name) in before))


def name_classes(expression: str, classes: Sequence[str]) -> str:
    """Write out the classes of the only source that takes all of its classes, if there is exactly one such source.

    They are those of `classes` that no other source takes. With a limit of 0 the source then need not be read.
    """
    terms, texts = parse(expression), split_sources(expression)
    named = {name for term in terms for name in term.classes}
    places = [place for place, term in enumerate(terms) if not term.classes]
    rest = [name for name in classes if name not in named]
    if len(places) != 1 or isinstance(terms[places[0]], ShardsTerm) or not all(map(can_be_chosen, rest)):
        return expression
    texts[places[0]] = _choosing(texts[places[0]], rest)
    return "+".join(texts)


def leave_out(expression: str, classes: Sequence[str]) -> str | None:
    """Leave classes out of the only source of an expression; None if it has several, or they cannot be written."""
    first, *others = parse(expression)
    if others or not isinstance(first, LocatedTerm) or not all(map(can_be_chosen, classes)):
        return None
    choice = write_choice(first.classes, first.without)
    return _choosing(expression.strip(), choose_without(classes, choice=choice))


def _choosing(text: str, choice: Sequence[str]) -> str:
    """Replace the choice of classes in the text of a source."""
    body, limit = _parse_limit(text)
    source, _, given = (part.strip() for part in body.partition(":"))
    place = _parse_options(given, source)[0]  # type: ignore[arg-type]
    path = _path_text(source, given)
    return f"{source}:{path}:{','.join(choice)}{given[len(place) :]}" + ("" if limit is None else f"@{limit}")


def with_grouping(expression: str, term: LocatedTerm, rule: str) -> str:
    """Group the pictures of a source of an expression by a rule, such as time:5."""
    return "+".join(
        _grouping(text, rule) if each == term else text
        for text, each in zip(split_sources(expression), parse(expression), strict=True)
    )


def _grouping(text: str, rule: str) -> str:
    """Add the option to the text of a source, in place of one that it has."""
    body, limit = _parse_limit(text)
    place, *options = re.split(_OPTION, body)
    options = [each for each in options if not each.startswith("group=")]
    return f"{place}?{'&'.join([*options, f'group={rule}'])}" + ("" if limit is None else f"@{limit}")


def leave_out_empty(expression: str) -> str:
    """Drop the sources from which no image is taken, whose folders need not exist."""
    texts = split_sources(expression)
    return "+".join([text for text in texts if _parse_limit(text)[1] != 0] or texts)


def find_relative(expression: str) -> list[Path]:
    """List the relative paths of an expression."""
    return [path for text in split_sources(expression) if (path := _relative_path(text)) is not None]


def move_relative(expression: str, move: Callable[[Path], Path]) -> str:
    """Replace the relative paths of an expression."""
    return "+".join(_move(text, move) for text in split_sources(expression))


def _move(text: str, move: Callable[[Path], Path]) -> str:
    path = _relative_path(text)
    if path is None or (new := move(path)) == path:
        return text
    source, _, rest = (part.strip() for part in text.partition(":"))
    old = _path_text(source, rest)
    end = "/" if old.endswith("/") else ""  # it marks the end of a path that has a colon or an @
    return f"{source}:{str(new).rstrip('/')}{end}{rest[len(old) :]}"


def _relative_path(text: str) -> Path | None:
    source, _, rest = (part.strip() for part in text.partition(":"))
    if source not in _LOCATED or is_remote(place := _path_text(source, rest)):
        return None
    path = Path(os.path.expanduser(place))
    return None if path.is_absolute() else path


def _path_text(source: str, rest: str) -> str:
    """Return the path in the text of a source, without classes, options and limit."""
    body, _ = _parse_limit(rest)
    return body.strip() if source == "shards" else _part(_parse_options(body, source)[0])[0]  # type: ignore[arg-type]


def _lower_limit(text: str, num: int | None) -> str:
    body, own = _parse_limit(text)
    limits = [limit for limit in (own, num) if limit is not None]
    return f"{body.rstrip()}@{min(limits)}" if limits else text


def restore_limits(expression: str, *, before: str, lowered: int | None, num_old: int) -> str:
    """Undo that `join_expressions` has lowered limits.

    The first sources get the limits that they have in `before`; of the others among the first `num_old`, those that
    were `lowered` lose theirs.
    """
    limits = [term.limit for term in parse(before)]
    restored = []
    for place, text in enumerate(split_sources(expression)):
        body, own = _parse_limit(text)
        is_first, was_lowered = place < len(limits), place < num_old and own == lowered
        limit = limits[place] if is_first else None if was_lowered else own
        restored.append(body if limit is None else f"{body}@{limit}")
    return "+".join(restored)


def _check_taken_once(terms: tuple[Term, ...], expression: str) -> None:
    """Refuse a sum that would contain the same images twice."""
    seen: set[str] = set()
    for term in terms:
        of = "" if isinstance(term, NamedTerm) else f" of {term.origin}"
        for item in [f"the class {name!r}{of}" for name in term.classes] or [repr(term.origin)]:
            if item in seen:
                raise UserError(f"{item} is in {expression!r} twice: take it once")
            seen.add(item)


def split_sources(expression: str) -> list[str]:
    """Split at each "+", except inside a path."""
    sources: list[str] = []
    for piece in expression.split("+"):
        in_path = sources and _source_of(sources[-1]) in _LOCATED
        if in_path and _source_of(piece) not in _SOURCES:
            sources[-1] += "+" + piece
        else:
            sources.append(piece)
    return [source.strip() for source in sources]


def _source_of(text: str) -> str:
    return re.split("[:@]", text, maxsplit=1)[0].strip()


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
        if source == "shards":
            return ShardsTerm(os.path.expanduser(rest), limit)
        return _parse_located(source, rest, limit)  # type: ignore[arg-type]
    if source not in CLASSES:
        if os.path.exists(path := os.path.expanduser(text)):
            kind = "folder" if os.path.isdir(path) else _KINDS.get(Path(path).suffix.lower(), "folder")
            raise UserError(f"{text!r} is a path, not a data source: did you mean {kind}:{text}?")
        raise UserError(f"{source!r} is not a data source; {_nearest_source(source)}")
    items = [item.strip() for item in rest.split(",")] if colon else CLASSES[source]
    return NamedTerm(source, tuple(name for item in items for name in _expand(source, item)), limit)


def _parse_located(source: Located, rest: str, limit: int | None) -> LocatedTerm:
    """Parse path, choice of classes and options."""
    place, options = _parse_options(rest, source)
    bare, early = _parse_limit(place)
    if early is not None and place != rest:
        whole = f"{source}:{bare}{rest[len(place) :]}@{early}"
        raise UserError(f"@{early} belongs at the end, after the options: write {whole}")
    path, last = _part(place)
    root = Path(os.path.expanduser(path))
    if last is None:
        return LocatedTerm(source, root, limit, options=options)
    names = [nfc(name.strip()) for name in last.split(",")]
    left_out = [name.startswith("-") for name in names]
    if not all(names) or any(left_out) != all(left_out):
        raise UserError(
            f"{last!r} after {path} chooses no classes: write names to take (:cat,dog), or to leave out (:-cat,-dog)"
        )
    if any(left_out):
        return LocatedTerm(source, root, limit, without=tuple(name[1:] for name in names), options=options)
    return LocatedTerm(source, root, limit, classes=tuple(names), options=options)


def _part(place: str) -> tuple[str, str | None]:
    """Split a path from the choice of classes after it, if there is one."""
    path, colon, last = place.rpartition(":")
    return (place, None) if not colon or not path or "/" in last or "\\" in last else (path.rstrip(), last)


def _parse_options(rest: str, source: Located) -> tuple[str, Options]:
    """Split off the options, which begin at the first "?" followed by the name of an option."""
    place, *texts = re.split(_OPTION, rest)
    if (unknown := re.search(r"[?&]([a-z]+)=", place)) and not os.path.exists(os.path.expanduser(_part(place)[0])):
        name = unknown.group(1)
        if hint := did_you_mean(name, _ALLOWED[source], otherwise=""):
            raise UserError(f"{name!r} in {source}:{rest} is not an option: {hint}")
    given: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not value or name in given or name not in _ALLOWED[source]:
            allowed = " and ".join(_ALLOWED[source]) or "no options"
            raise UserError(f"{text!r} in {source}:{rest}: {source}: has {allowed}, each once and with a value")
        given[name] = value
    level = given.pop("level", None)
    if level not in (None, "1", "2"):
        raise UserError(f"level={level}: classes lie at level 1 or 2 of a folder")
    return place.strip(), Options(**given, level=None if level is None else int(level))


def _parse_limit(text: str) -> tuple[str, int | None]:
    """Split off a trailing @N."""
    match = re.fullmatch(r"(.*)@\s*([0-9]{1,9})", text, re.DOTALL)
    return (text, None) if match is None else (match[1], int(match[2]))


def _expand(source: Named, item: str) -> tuple[str, ...]:
    """Resolve a class, a superclass or a range of digits to class names."""
    if item in CLASSES[source]:
        return (item,)
    if source == "cifar100" and item in CIFAR100_SUPERCLASSES:
        return CIFAR100_SUPERCLASSES[item]
    if source == "digits":
        if (ends := re.fullmatch(r"([0-9])\s*-\s*([0-9])", item)) and ends[1] <= ends[2]:
            return CLASSES[source][int(ends[1]) : int(ends[2]) + 1]
        raise UserError(
            f"{item!r} is not a class of digits; it has 0 to 9, alone (digits:1,3) or in a range (digits:0-6)"
        )
    known = (*CLASSES[source], *(CIFAR100_SUPERCLASSES if source == "cifar100" else ()))
    raise UserError(f"{item!r} is not a class of {source}; {_nearest(item, known)}")


def _nearest_source(source: str) -> str:
    """Suggest the source closest in name, or a folder of pictures that exists."""
    otherwise = f"write folder:PATH for a folder of pictures, or take one of {', '.join(CLASSES)}"
    folder = find_similar(path := os.path.expanduser(source))
    if folder is None or not folder.is_dir():
        return did_you_mean(source, _SOURCES, otherwise=otherwise)
    return did_you_mean(Path(path).name, (*_SOURCES, folder.name), otherwise=otherwise).replace(
        repr(folder.name), f"folder:{folder}"
    )


def _nearest(name: str, known: tuple[str, ...]) -> str:
    more = ", …" if len(known) > _NAMES_SHOWN else ""
    return did_you_mean(name, known, otherwise=f"it has {', '.join(known[:_NAMES_SHOWN])}{more}")

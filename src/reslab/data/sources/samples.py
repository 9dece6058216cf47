"""Labelled pictures on the way to a listing: the choice and order of classes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from reslab.data.images import Split
from reslab.data.names import advise_leaving_out, write_choice
from reslab.data.pictures import SYNSETS, has_picture_ending
from reslab.data.sources.listing import Listing, Unused, describe_all_unused
from reslab.errors import UserError, did_you_mean
from reslab.words import counted, named, some
from reslab.words import listing as sentence

_SHOWN = 3  # names in a sentence
Samples = list[tuple[str, Split | None, Path, str]]  # class, split, file, name of the file inside the source


class EmptyClasses(UserError):  # noqa: N818 - a kind of error, not its name
    """Some classes of a source have no pictures."""

    def __init__(self, message: str, names: Sequence[str]) -> None:
        super().__init__(message)
        self.names = tuple(names)


@dataclass(frozen=True)
class Contents:
    """Pictures with their classes, the classes without pictures, and the unused files."""

    pictures: Samples
    empty: tuple[str, ...] = ()
    unused: tuple[Unused, ...] = ()


def choose(found: Contents, path: Path, *, classes: Sequence[str], without: Sequence[str]) -> Contents:
    """Keep the requested classes. Raises: UserError if one of them does not exist or is empty."""
    synsets = _read_synsets(path)
    there = list(dict.fromkeys([*(each[0] for each in found.pictures), *found.empty]))
    for name in (*classes, *without):
        if name not in there and name not in (synsets.get(each) for each in there):
            raise UserError(
                f"{path} has no class {name!r}: {did_you_mean(name, there, otherwise='it has ' + named(there))}"
            )

    def is_wanted(name: str) -> bool:
        both = {name, synsets.get(name)}
        return not both & set(without) and (not classes or bool(both & set(classes)))

    if empty := [name for name in found.empty if is_wanted(name)]:
        has_some = {each[0] for each in found.pictures}
        empty = [name for name in empty if name not in has_some] or empty
        reasons = " ".join(describe_all_unused(found.unused))
        raise EmptyClasses(
            f"{path} holds no picture of {named(empty)}: add some, remove the folder, or leave it out with "
            f"folder:{path}:{','.join('-' + name for name in empty)}" + (f"; {reasons}" if reasons else ""),
            names=empty,
        )
    kept = [each for each in found.pictures if is_wanted(each[0])]
    left = [
        Unused(each[3], f"pictures of the class {each[0]!r}, which is left out", "")
        for each in found.pictures
        if not is_wanted(each[0])
    ]
    return replace(found, pictures=kept, unused=(*found.unused, *left))


def assemble(
    path: Path,
    found: Contents,
    *,
    source: str,
    chosen: Sequence[str],
    places: Mapping[Split, str],
    notes: Sequence[str] = (),
) -> Listing:
    """Build the listing, with classes in the order chosen, else by number or name.

    `source` is the kind of source, as in an expression; `places` names the splits.

    Raises: UserError if a class has pictures in only one split.
    """
    classes = sorted({each[0] for each in found.pictures})
    if chosen:
        synsets = _read_synsets(path)
        classes.sort(key=lambda name: chosen.index(name if name in chosen else synsets[name]))
    elif all(re.fullmatch(r"[0-9]{1,9}", name) for name in classes):
        classes.sort(key=int)
    splits = tuple(each[1] for each in found.pictures)
    own = tuple(split for split in splits if split is not None)
    if own:
        _check_same_classes(path, found.pictures, places, source=source)
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.array([numbers[each[0]] for each in found.pictures], dtype=np.int64)
    order = np.argsort(labels, kind="stable")
    if unnamed := [each[3] for each in found.pictures if not has_picture_ending(each[2])]:
        notes = (
            *notes,
            f"{counted(len(unnamed), 'file')} without the ending of a picture read by content: "
            f"{some(unnamed, len(unnamed), _SHOWN)}",
        )
    result = Listing(
        root=path,
        files=tuple(each[2] for each in found.pictures),
        names=tuple(each[3].encode("utf-8", "backslashreplace").decode() for each in found.pictures),
        labels=labels,
        classes=tuple(classes),
        splits=own if own else None,
        unused=found.unused,
        notes=tuple(notes),
    )
    return result.subset(order)


def _check_same_classes(path: Path, pictures: Samples, folders: Mapping[Split, str], *, source: str) -> None:
    both: tuple[Split, Split] = ("train", "test")
    has = {split: {each[0] for each in pictures if each[1] == split} for split in both}
    lacking = {
        name: [folders[split] for split in both if name not in has[split]]
        for name in sorted({each[0] for each in pictures})
    }
    wrong = {name: places for name, places in lacking.items() if places}
    if wrong:
        words = sentence([f"{name!r} (not in {sentence(places)})" for name, places in wrong.items()])
        raise UserError(
            f"{path} must hold the same classes in {folders['train']} and {folders['test']}, but only one has "
            f"{words}: add pictures, or leave them out with {source}:{path}:{','.join('-' + name for name in wrong)}"
        )


# ---- ImageNet's names


def rename_synsets(listing: Listing) -> Listing:
    synsets = _read_synsets(listing.root)
    return replace(listing, classes=tuple(synsets.get(name, name) for name in listing.classes))


def _read_synsets(path: Path) -> dict[str, str]:
    """Read ImageNet's class names if their file is beside the folders; a name of two classes gets its number."""
    places = [folder / SYNSETS for folder in (path, *list(path.absolute().parents)[:3])]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        return {}
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = [
        (number, words.split(",")[0].strip()) for number, _, words in (line.partition(" ") for line in lines) if words
    ]
    twice = {name for _, name in pairs if [other for _, other in pairs].count(name) > 1}
    return {number: f"{name} ({number})" if name in twice else name for number, name in pairs}

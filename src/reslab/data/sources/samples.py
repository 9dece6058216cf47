"""Labelled pictures on the way to a listing: the choice and order of classes."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from reslab.data.names import advise_leaving_out, find_twin, write_choice
from reslab.data.pictures import SYNSETS, has_picture_ending
from reslab.data.sources.listing import Listing, Unused, describe_all_unused
from reslab.errors import UserError, did_you_mean, naming_problem
from reslab.records import SplitName
from reslab.words import counted, named, some
from reslab.words import listing as sentence

_SHOWN = 3  # names in a sentence
_COMPARED = 50  # names with each other, to find misspelt ones
Samples = list[tuple[str, SplitName | None, Path, str]]  # class, split, file, name of the file inside the source


class EmptyClasses(UserError):  # noqa: N818 - a kind of error, not its name
    """Some classes of a source have no pictures, or, if `are_all`, none has."""

    def __init__(self, message: str, names: Sequence[str], *, are_all: bool) -> None:
        super().__init__(message)
        self.names, self.are_all = tuple(names), are_all


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
    names_of = {name: {name, synsets.get(name, name)} for name in there}
    known = set[str]().union(*names_of.values())
    for name in (*classes, *without):
        if name not in known:
            raise UserError(
                f"{path} has no class {name!r}: {did_you_mean(name, there, otherwise='it has ' + named(there))}"
            )
    taken, left_out = set(classes) or known, set(without)
    wanted = {name for name, names in names_of.items() if names & taken and not names & left_out}
    has_some = {each[0] for each in found.pictures}
    if empty := [name for name in found.empty if name in wanted and name not in has_some]:
        are_all = not wanted & has_some
        leave_out = advise_leaving_out(empty, choice=write_choice(classes, without))
        advice = "add some" if are_all else f"add some, remove the folder, or {leave_out}"
        reasons = "; ".join(describe_all_unused(found.unused))
        raise EmptyClasses(
            f"{path} holds no picture of {named(empty)}: {advice}" + (f"; {reasons}" if reasons else ""),
            names=empty,
            are_all=are_all,
        )
    kept = [each for each in found.pictures if each[0] in wanted]
    left = [
        Unused(each[3], f"pictures of the class {each[0]!r}, which is left out", "", expected=True)
        for each in found.pictures
        if each[0] not in wanted
    ]
    return replace(found, pictures=kept, unused=(*found.unused, *left))


def assemble(
    path: Path,
    found: Contents,
    *,
    classes: Sequence[str],
    without: Sequence[str],
    places: Mapping[SplitName, str],
    notes: Sequence[str] = (),
) -> Listing:
    """Build the listing of what `choose` has kept, with classes in the order chosen, else by number or name.

    Validation pictures are the test split if no test picture has a label. `places` names the splits.

    Raises: UserError if a class has pictures in only one split.
    """
    choice = write_choice(classes, without)
    pictures, places, notes = _settle_splits(path, found.pictures, places, notes)
    own = tuple(split for _, split, _, _ in pictures if split is not None)
    if own:
        _check_same_classes(path, pictures, places, choice=choice)
    there = sorted({each[0] for each in pictures})
    if classes:
        synsets = _read_synsets(path)
        there.sort(key=lambda name: classes.index(name if name in classes else synsets[name]))
    elif all(re.fullmatch(r"[0-9]{1,9}", name) for name in there):
        there.sort(key=int)
    numbers = {name: number for number, name in enumerate(there)}
    labels = np.array([numbers[each[0]] for each in pictures], dtype=np.int64)
    order = np.argsort(labels, kind="stable")
    if unnamed := [each[3] for each in pictures if not has_picture_ending(each[2])]:
        notes = (
            *notes,
            f"{counted(len(unnamed), 'file')} without the ending of a picture read by content: "
            f"{some(unnamed, len(unnamed), _SHOWN)}",
        )
    result = Listing(
        root=path,
        files=tuple(each[2] for each in pictures),
        names=tuple(each[3].encode("utf-8", "backslashreplace").decode() for each in pictures),
        labels=labels,
        classes=tuple(there),
        choice=choice,
        splits=own if own else None,
        unused=found.unused,
        notes=tuple(notes),
    )
    return result.subset(order)


def _settle_splits(
    path: Path, pictures: Samples, places: Mapping[SplitName, str], notes: Sequence[str]
) -> tuple[Samples, Mapping[SplitName, str], Sequence[str]]:
    """Decide by the labelled pictures alone which split is the test, or that one has to be cut (None)."""
    there = {each[1] for each in pictures if each[1] is not None}
    if there and "train" not in there:
        raise UserError(
            f"{path} has labelled pictures only in {sentence([places[split] for split in sorted(there)])}: add some to "
            f"{places['train']}, or, of a table, make new splits with ?split=none"
        )
    if there == {"train"}:
        return [(label, None, file, name) for label, _, file, name in pictures], places, notes
    if there != {"train", "validation"}:
        return pictures, places, notes
    tested: Samples = [
        (label, "test" if split == "validation" else split, file, name) for label, split, file, name in pictures
    ]
    note = f"{places['validation']} is the test split, since there are no labelled test pictures"
    return tested, {**places, "test": places["validation"]}, [*notes, note]


def _check_same_classes(
    path: Path, pictures: Samples, places: Mapping[SplitName, str], *, choice: Sequence[str]
) -> None:
    both: tuple[SplitName, SplitName] = ("train", "test")
    has = {split: {each[0] for each in pictures if each[1] == split} for split in both}
    lacking = {
        name: [places[split] for split in both if name not in has[split]]
        for name in sorted({each[0] for each in pictures})
    }
    wrong = {name: lacks for name, lacks in lacking.items() if lacks}
    if wrong:
        words = named([f"{name!r} (not in {sentence(lacks)})" for name, lacks in wrong.items()])
        # Without a common class, leaving out what is not in training leaves a test split to be cut.
        needless = [name for name in wrong if has["train"] & has["test"] or name not in has["train"]]
        missing = [name for name in wrong if name not in has["train"]]
        trained = [name for name in wrong if name in has["train"]]
        pairs = ((name, twin) for name in trained[:_COMPARED] if (twin := find_twin(name, missing[:_COMPARED])))
        rename = "".join(f"rename {name!r} or {twin!r} if they are one class, " for name, twin in islice(pairs, _SHOWN))
        raise UserError(
            f"{path} must hold the same classes in {places['train']} and {places['test']}, but only one has {words}: "
            f"{rename}add pictures, or {advise_leaving_out(needless, choice=choice)}"
        )


# ---- ImageNet's names


def rename_synsets(listing: Listing) -> Listing:
    synsets = _read_synsets(listing.root)
    return replace(listing, classes=tuple(synsets.get(name, name) for name in listing.classes))


def _read_synsets(path: Path) -> dict[str, str]:
    """Read ImageNet's class names if their file is beside the folders; a name of two classes gets its number."""
    places = [folder / SYNSETS for folder in (path, *list(path.absolute().parents)[:3])]
    file = next((place for place in places if os.path.isfile(place)), None)
    if file is None:
        return {}
    with naming_problem(f"{file} cannot be read"):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = [
        (number, words.split(",")[0].strip()) for number, _, words in (line.partition(" ") for line in lines) if words
    ]
    counts = Counter(name for _, name in pairs)
    return {number: f"{name} ({number})" if counts[name] > 1 else name for number, name in pairs}

"""Pictures in folders, a folder per class: PATH/CLASS/*, or PATH/train/CLASS/*, PATH/test/CLASS/*, PATH/val/CLASS/*.

Split names may be in any case and common spelling (Training, seg_test, valid, dev). Without a test folder, val/ is the
test split, and without both, 20 % of each class becomes the test split, chosen by content. Sub-folders of a class
belong to the class. Pictures are recognised by their ending, or without one by their first bytes; unused files are
listed with the reason.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reslab.data.images import Split
from reslab.data.names import WHERE, advise_leaving_out, can_be_chosen, nfc, write_choice
from reslab.data.pictures import advice_for, is_junk, is_picture
from reslab.data.sources.groups import group_by
from reslab.data.sources.listing import Listing, Unused, describe_all_unused
from reslab.data.sources.options import NO_OPTIONS, Options
from reslab.data.sources.rules import compile_rule
from reslab.data.sources.samples import Contents, Samples, assemble, choose, rename_synsets
from reslab.errors import UserError, find_similar
from reslab.words import listing as sentence
from reslab.words import named

LAYOUTS = (
    "reslab reads PATH/CLASS/* and cuts a test split off, or PATH/train/CLASS/* and PATH/test/CLASS/*, with "
    "PATH/val/CLASS/* if there is one"
)
TABLES = (".csv", ".tsv", ".parquet")
_SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trainset", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "valset"), "validation"),
    **dict.fromkeys(("test", "testing", "testset", "tst"), "test"),
}
_FILLERS = {"seg", "set", "data", "dataset", "images", "imgs", "split"}
_WITHOUT_LABELS = re.compile("submi|test")  # in names of Kaggle's tables
_FROM_NAMES = "; to take the classes from file names, add for example ?label=^([a-z]+)"
_ADVICE = {
    **dict.fromkeys(TABLES, "if it names the classes, read csv:FILE"),
    ".npy": "stack them into images.npy, put labels.npy beside it, and read npz:FOLDER",
    **dict.fromkeys((".npz", ".mat"), "read arrays with npz:FILE"),
    **dict.fromkeys((".zip", ".tar", ".tgz"), "read it with folder:FILE, or unpack it"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv"), "save frames of it as JPEG"),
    **dict.fromkeys(("", ".txt", ".md", ".json", ".xml", ".html", ".doc", ".docx", ".xlsx", ".pdf"), ""),
}


@dataclass(frozen=True)
class _Folder:
    """A folder with its contents; `name` is its path inside the source, with "/"."""

    path: Path
    name: str
    pictures: tuple[str, ...]
    unused: tuple[Unused, ...]
    folders: tuple["_Folder", ...]

    @property
    def own_name(self) -> str:
        return self.path.name

    def walk(self) -> Iterator["_Folder"]:
        yield self
        for folder in self.folders:
            yield from folder.walk()

    @property
    def has_pictures(self) -> bool:
        return any(folder.pictures for folder in self.walk())

    @property
    def class_folders(self) -> tuple["_Folder", ...]:
        """Its sub-folders that contain pictures at any depth."""
        return tuple(folder for folder in self.folders if folder.has_pictures)

    def all_unused(self) -> list[Unused]:
        return [each for folder in self.walk() for each in folder.unused]

    def as_unused(self, reason: str, advice: str) -> list[Unused]:
        """List all its pictures as unused."""
        pictures = [
            Unused(_join(folder.name, name), reason, advice) for folder in self.walk() for name in folder.pictures
        ]
        return [*pictures, *self.all_unused()]

    def of_classes(self) -> "_Folder":
        """Mark the pictures beside the class folders as unused."""
        beside = tuple(
            Unused(_join(self.name, name), "pictures outside of a class folder", "") for name in self.pictures
        )
        return replace(self, pictures=(), unused=(*self.unused, *beside))


@dataclass(frozen=True)
class _Layout:
    """The places of the class folders, each with its split, or None if the test split has to be cut."""

    places: tuple[tuple[Split | None, _Folder], ...]
    unused: tuple[Unused, ...] = ()
    notes: tuple[str, ...] = ()


def list_folder(
    path: Path, *, classes: Sequence[str] = (), without: Sequence[str] = (), options: Options = NO_OPTIONS
) -> Listing:
    """List the pictures of a folder; `classes` selects and orders classes, `without` leaves some out.

    Raises: UserError if the layout is not recognised, or a class has no pictures.
    """
    if not path.is_dir():
        near = None if path.exists() else find_similar(path)
        if near is not None and near.is_dir():
            raise UserError(f"{path.absolute()} is not a folder: did you mean folder:{near}?")
        raise UserError(
            f"{path.absolute()} is not a folder: folder:PATH needs one with a folder of pictures for each class"
        )
    tree = _walk(path, "", ())
    _refuse_detection(tree)
    has_class_in_name = options.label is not None
    explicit = any(split_of(name) for name in classes)
    layout = _Layout(((None, tree),)) if explicit else _find_splits(tree, has_class_in_name=has_class_in_name)
    found = _by_file_name(layout, options.label) if options.label else _by_folder(layout, tree, options.level, without)
    found = choose(found, path, classes=classes, without=without)
    found = replace(found, unused=(*layout.unused, *found.unused))
    places = {split: f"{folder.own_name}/" for split, folder in layout.places if split is not None}
    result = rename_synsets(assemble(path, found, source="folder", chosen=classes, places=places, notes=layout.notes))
    return result if options.group is None else group_by(result, options.group)


def split_of(name: str) -> Split | None:
    """Return the split that a folder's name stands for, if any."""
    words = [word for word in _words(name) if word and word not in _FILLERS]
    return _SPLITS.get(words[0]) if len(words) == 1 else None


def split_in(file: Path) -> Split | None:
    """Return the split that a word of a file's name stands for, if any; if the first word does, it decides.

    Raises: UserError if other words stand for different splits.
    """
    splits = [_SPLITS.get(word) for word in _words(file.name)]
    found = list(dict.fromkeys(split for split in splits if split is not None))
    if len(found) > 1 and splits[0] is None:
        raise UserError(f"{file} names the splits {sentence(found)}: rename it, so that its name begins with one")
    return found[0] if found else None


def _words(name: str) -> list[str]:
    return re.split(r"[\W\d_]+", name.lower())


# ---- what lies there


def _walk(path: Path, name: str, above: tuple[str, ...]) -> _Folder:
    try:
        with os.scandir(path) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    above = (*above, os.path.realpath(path))
    pictures: list[str] = []
    unused: list[Unused] = []
    folders: list[_Folder] = []
    for entry in found:
        inside = _join(name, entry.name)
        if is_junk(entry.name):
            continue
        if os.path.isdir(entry.path):  # False for a link to itself, for which DirEntry.is_dir raises
            if os.path.realpath(entry.path) in above:
                unused.append(Unused(inside, "links to a folder above", ""))
            else:
                folders.append(_walk(Path(entry.path), inside, above))
        elif not os.path.isfile(entry.path):
            unused.append(Unused(inside, "broken links" if entry.is_symlink() else "special files", ""))
        elif is_picture(Path(entry.path)):
            pictures.append(entry.name)
        else:
            ending = Path(entry.name).suffix.lower()
            advice = advice_for(ending) or _ADVICE.get(ending, "save them as JPEG or PNG")
            unused.append(Unused(inside, f"{ending} files" if ending else "files without an ending", advice))
    return _Folder(path, name, tuple(pictures), tuple(unused), tuple(folders))


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


# ---- splits


def _find_splits(tree: _Folder, *, has_class_in_name: bool) -> _Layout:
    """Find train/, val/ and test/. Raises: UserError if their layout is invalid."""
    by_split: dict[Split, _Folder] = {}
    for folder in tree.folders:
        if (split := split_of(folder.own_name)) and folder.has_pictures:
            if split in by_split:
                raise UserError(
                    f"{tree.path} holds {by_split[split].own_name}/ and {folder.own_name}/, which both name the "
                    f"{split} split: join or rename one of them"
                )
            by_split[split] = folder
    if not by_split:
        return _Layout(((None, tree),))
    flat = [] if has_class_in_name else [folder for folder in by_split.values() if not folder.class_folders]
    others = [folder for folder in tree.folders if folder not in by_split.values() and not split_of(folder.own_name)]
    if "train" not in by_split:
        _refuse_without_train(tree, [*by_split.values()], flat)
    if by_split["train"] in flat:
        _refuse_flat_splits(tree, flat, others)
    unused = list(tree.of_classes().unused)
    for folder in flat:
        unused += folder.as_unused("pictures without a class", "")
    names = sentence([f"{folder.own_name}/" for folder in by_split.values()])
    for folder in others:
        unused += folder.as_unused(f"pictures beside {names}", "")
    notes: list[str] = []
    places: dict[Split, _Folder] = {split: folder for split, folder in by_split.items() if folder not in flat}
    if "validation" in places and "test" not in places:
        places["test"] = places.pop("validation")
        notes.append(f"{places['test'].own_name}/ is the test split, since there is no test/ with class folders")
    if set(places) == {"train"}:
        return _Layout(((None, places["train"]),), tuple(unused), tuple(notes))
    return _Layout(tuple(places.items()), tuple(unused), tuple(notes))


def _refuse_without_train(tree: _Folder, there: list[_Folder], flat: list[_Folder]) -> None:
    names = sentence([f"{folder.own_name}/" for folder in there])
    hint = ""
    if len(there) == 1 and not flat:
        hint = f"; to cut a test split off it, write folder:{there[0].path}"
    raise UserError(f"{tree.path} holds {names} but no train/: {LAYOUTS}{hint}")


def _refuse_flat_splits(tree: _Folder, flat: list[_Folder], others: list[_Folder]) -> None:
    _hint_at_table(tree, [tree, *flat])
    names = sentence([f"{folder.own_name}/" for folder in flat])
    hint = ""
    if any(folder.has_pictures for folder in others):
        folders = ",".join(folder.own_name for folder in (*flat, *others))
        hint = f"; if they are classes, name them: folder:{tree.path}:{folders}"
    raise UserError(f"{tree.path} has pictures directly in {names}, without a folder for each class: {LAYOUTS}{hint}")


def _hint_at_table(tree: _Folder, folders: Sequence[_Folder]) -> None:
    """Refuse pictures without class folders if there is a table beside them."""
    for folder in folders:
        for each in folder.unused:
            if each.path.lower().endswith(TABLES):
                raise UserError(
                    f"there is a table beside the pictures of {tree.path}: write csv:{tree.path / each.path}"
                )


def _refuse_detection(tree: _Folder) -> None:
    for folder in tree.walk():
        inside = {each.own_name.lower(): each for each in folder.folders}
        if (
            "images" in inside
            and "labels" in inside
            and any(each.path.endswith(".txt") for each in inside["labels"].all_unused())
        ):
            raise UserError(
                f"{tree.path} is a detection set (boxes in {inside['labels'].name}/*.txt, as YOLO has them), and "
                "reslab classifies whole pictures: cut the boxes out, and save them in a folder for each class"
            )


# ---- classes


def _by_folder(layout: _Layout, tree: _Folder, level: int | None, without: Sequence[str]) -> Contents:
    """Take folder names as classes. Raises: UserError if the level of the classes is ambiguous."""
    pictures: Samples = []
    empty: list[str] = []
    unused: list[Unused] = []
    for split, place in layout.places:
        if split is None:
            _check_classes(place, tree, without)
    if level is None:
        _check_level([place for _, place in layout.places], tree, without)
    for split, place in layout.places:
        place = place.of_classes()
        unused += place.unused
        folders = [folder for folder in place.folders if split is not None or not _is_empty_split(folder)]
        if level == 2:
            unused += [each for folder in folders for each in folder.of_classes().unused]
            folders = [inner for folder in folders for inner in folder.folders]
        for folder in folders:
            if not folder.has_pictures:
                empty.append(folder.own_name)
            for each in folder.walk():
                pictures += [
                    (folder.own_name, split, each.path / name, _join(each.name, name)) for name in each.pictures
                ]
            unused += folder.all_unused()
    return Contents(pictures, tuple(dict.fromkeys(empty)), tuple(unused))


def _is_empty_split(folder: _Folder) -> bool:
    return split_of(folder.own_name) is not None and not folder.has_pictures


def _check_classes(place: _Folder, tree: _Folder, without: Sequence[str]) -> None:
    """Refuse a place whose folders are not classes, suggesting what it may be."""
    folders = _without(place, without)
    if len(folders) == 1 and (wrapped := _wrapped(folders[0])):
        raise UserError(f"{place.path} holds a folder of classes: did you mean folder:{wrapped.path}?")
    if len(folders) < 2:
        _hint_at_table(tree, [place, *folders])
    if not folders and (place.pictures or not place.folders):
        what = " ".join(describe_all_unused(place.all_unused()))
        hint = f"; to take the classes from file names, write for example folder:{place.path}?label=^([a-z]+)"
        raise UserError(
            f"{place.path} holds no pictures in class folders: {LAYOUTS}{hint if place.pictures else ''}"
            + (f"; {what}" if what else "")
        )
    inner = [each for folder in folders for each in folder.class_folders]
    if any(split_of(each.own_name) for each in inner):
        raise UserError(
            f"{place.path} holds splits inside of its classes ({inner[0].name}/): move them up, since {LAYOUTS}"
        )


def _check_level(places: Sequence[_Folder], tree: _Folder, without: Sequence[str]) -> None:
    """Refuse places whose folders all hold several folders of pictures and no pictures: either may be the classes."""
    folders = [folder for place in places for folder in _without(place, without)]
    if folders and all(not folder.pictures and len(folder.class_folders) > 1 for folder in folders):
        inner = [each for folder in folders for each in folder.class_folders]
        raise UserError(
            f"the folders of {places[0].path} hold folders of pictures: are its classes "
            f"{_name_all(folders)} (write folder:{tree.path}?level=1) or {_name_all(inner)} (?level=2)?"
        )


def _without(place: _Folder, names: Sequence[str]) -> list[_Folder]:
    return [folder for folder in place.class_folders if folder.own_name not in names]


def _name_all(folders: Sequence[_Folder]) -> str:
    return named(sorted({folder.own_name for folder in folders}), most=4)


def _wrapped(folder: _Folder) -> _Folder | None:
    """Find a folder that looks like a source of its own, at any depth."""
    if folder.pictures:
        return None
    inner = folder.class_folders
    if any(split_of(each.own_name) for each in inner):
        return folder
    if len(inner) == 1:
        return _wrapped(inner[0])
    return folder if len(inner) > 1 else None


def _by_file_name(layout: _Layout, label: str) -> Contents:
    """Take the classes from file names. Raises: UserError if the pattern is invalid or matches nothing."""
    find = compile_rule(label, option="label")
    pictures: Samples = []
    unused: list[Unused] = []
    for split, place in layout.places:
        for folder in place.walk():
            unused += folder.unused
            for name in folder.pictures:
                found = find(name)
                if found:
                    pictures.append((found, split, folder.path / name, _join(folder.name, name)))
                else:
                    unused.append(Unused(_join(folder.name, name), f"names in which {label} finds no label", ""))
    if not pictures:
        raise UserError(f"label={label} matches no file name: write a regular expression such as ^([a-z]+)")
    return Contents(sorted(pictures, key=lambda each: each[0]), (), tuple(unused))

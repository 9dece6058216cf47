"""Pictures in folders, a folder per class: PATH/CLASS/*, or PATH/train/CLASS/*, PATH/test/CLASS/*, PATH/val/CLASS/*.

Split names may be in any case and common spelling (Training, seg_test, valid, dev). Without a test folder, val/ is the
test split, and without both, 20 % of each class becomes the test split, chosen by content. Sub-folders of a class
belong to the class. Pictures are recognised by their ending, or without one by their first bytes; unused files are
listed with the reason.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reslab.data.names import WHERE, advise_leaving_out, can_be_chosen, nfc, write_choice
from reslab.data.pictures import advice_for, is_junk, is_picture
from reslab.data.sources.groups import group_by
from reslab.data.sources.listing import Listing, Unused, describe_all_unused
from reslab.data.sources.options import NO_OPTIONS, NONE, Options
from reslab.data.sources.rules import compile_rule
from reslab.data.sources.samples import Contents, Samples, assemble, choose, rename_synsets
from reslab.errors import UserError, find_similar
from reslab.records import SplitName
from reslab.words import listing as sentence
from reslab.words import named

LAYOUTS = (
    "reslab reads PATH/CLASS/* and cuts a test split off, or PATH/train/CLASS/* and PATH/test/CLASS/*, with "
    "PATH/val/CLASS/* if there is one"
)
TABLES = (".csv", ".tsv", ".parquet")
_SPLITS: dict[str, SplitName] = {
    **dict.fromkeys(("train", "training", "trainset", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "valset"), "validation"),
    **dict.fromkeys(("test", "testing", "testset", "tst"), "test"),
}
_FILLERS = {"seg", "set", "data", "dataset", "images", "imgs", "split"}
_WITHOUT_LABELS = re.compile("submi|test")  # in names of Kaggle's tables
_FROM_NAMES = "; to take the classes from file names, add for example ?label=^([a-z]+)"
_MOST_LEVELS = 200
_ADVICE = {
    **dict.fromkeys(TABLES, "if it names the classes, read csv:FILE"),
    ".npy": "stack them into images.npy, put labels.npy beside it, and read npz:FOLDER",
    **dict.fromkeys((".npz", ".mat"), "read arrays with npz:FILE"),
    **dict.fromkeys((".zip", ".tar", ".tgz"), "read it with folder:FILE, or unpack it"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv"), "save frames of it as JPEG"),
    **dict.fromkeys(("", ".txt", ".md", ".json", ".xml", ".html", ".doc", ".docx", ".xlsx", ".pdf"), ""),
}


class LoosePictures(UserError):  # noqa: N818 - a kind of error, not its name
    """The pictures of a folder lie in no class folder; `advice` says how to take them as one class."""

    def __init__(self, problem: str, *, advice: str) -> None:
        super().__init__(f"{problem}; {advice}")
        self.problem = problem


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
        return nfc(self.path.name)

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

    def as_unused(self, reason: str) -> list[Unused]:
        """List all its pictures as unused."""
        pictures = [Unused(_join(folder.name, name), reason, "") for folder in self.walk() for name in folder.pictures]
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

    places: tuple[tuple[SplitName | None, _Folder], ...]
    unused: tuple[Unused, ...] = ()


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
    layout = _find_layout(tree, classes, options)
    if options.label:
        found = _by_file_name(layout, options.label)
    else:
        _check_folders(layout, tree, level=options.level, classes=classes, without=without)
        found = _by_folder(layout, options.level)
    found = choose(found, path, classes=classes, without=without)
    found = replace(found, unused=(*layout.unused, *found.unused))
    places = {split: f"{folder.own_name}/" for split, folder in layout.places if split is not None}
    notes = _find_alike(layout)
    result = rename_synsets(assemble(path, found, classes=classes, without=without, places=places, notes=notes))
    return result if options.group in (None, NONE) else group_by(result, options.group)


def _find_layout(tree: _Folder, classes: Sequence[str], options: Options) -> _Layout:
    """Find the splits, unless their names are those of classes."""
    if any(map(split_of, classes)):
        return _Layout(((None, tree),))
    return _find_splits(tree, has_class_in_name=options.label is not None)


def _find_alike(layout: _Layout) -> list[str]:
    """Name the folders that are one class because their names differ only in how letters are composed."""
    return [
        f"{num} folders of {place.path} called {name!r} are one class: their names differ in Unicode alone"
        for _, place in layout.places
        for name, num in Counter(folder.own_name for folder in place.class_folders).items()
        if num > 1
    ]


def would_read(
    path: Path, inside: Path, *, classes: Sequence[str] = (), without: Sequence[str] = (), options: Options = NO_OPTIONS
) -> bool:
    """Return whether `list_folder` would take a folder inside, which need not exist, as a class or a part of one."""
    for _, place in _find_layout(_walk(path, "", ()), classes, options).places:
        names = Path(os.path.relpath(os.path.realpath(inside), os.path.realpath(place.path))).parts
        if names and names[0] != os.pardir and not any(map(is_junk, names)):
            return nfc(names[0]) in classes if classes else nfc(names[0]) not in without
    return False


def split_of(name: str) -> SplitName | None:
    """Return the split that a folder's name stands for, if any."""
    words = [word for word in _words(name) if word and word not in _FILLERS]
    return _SPLITS.get(words[0]) if len(words) == 1 else None


def split_in(file: Path) -> SplitName | None:
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
    if len(above) > _MOST_LEVELS:
        raise UserError(f"{path} lies more than {_MOST_LEVELS} folders deep: move its pictures up")
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
            reason = f"{ending} files" if ending else "files without an ending"
            unused.append(Unused(inside, reason, advice, expected=not advice))
    return _Folder(path, name, tuple(pictures), tuple(unused), tuple(folders))


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


# ---- splits


def _find_splits(tree: _Folder, *, has_class_in_name: bool) -> _Layout:
    """Find train/, val/ and test/. Raises: UserError if their layout is invalid."""
    by_split: dict[SplitName, _Folder] = {}
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
        _refuse_without_train(tree, [*by_split.values()], flat, others)
    if by_split["train"] in flat:
        _refuse_flat_splits(tree, flat, others)
    unused = list(tree.of_classes().unused)
    for folder in flat:
        unused += folder.as_unused("pictures without a class")
    names = sentence([f"{folder.own_name}/" for folder in by_split.values()])
    for folder in others:
        unused += folder.as_unused(f"pictures beside {names}")
    places = tuple((split, folder) for split, folder in by_split.items() if folder not in flat)
    if len(places) == 1:
        return _Layout(((None, by_split["train"]),), tuple(unused))
    return _Layout(places, tuple(unused))


def _refuse_without_train(tree: _Folder, there: list[_Folder], flat: list[_Folder], others: list[_Folder]) -> None:
    names = sentence([f"{folder.own_name}/" for folder in there])
    hint = ""
    if len(there) == 1 and not flat:
        hint = f"; to cut a test split off it, write folder:{there[0].path}"
    if len(flat) == len(there) or any(folder.has_pictures for folder in others):
        hint += _as_classes(there, others)
    raise UserError(f"{tree.path} holds {names} but no train/: {LAYOUTS}{hint}")


def _refuse_flat_splits(tree: _Folder, flat: list[_Folder], others: list[_Folder]) -> None:
    _hint_at_table(tree, [tree, *flat])
    names = sentence([f"{folder.own_name}/" for folder in flat])
    hint = _as_classes(flat, others) if any(folder.has_pictures for folder in others) else ""
    raise UserError(
        f"{tree.path} has pictures directly in {names}, without a folder for each class: {LAYOUTS}{_FROM_NAMES}{hint}"
    )


def _as_classes(splits: Sequence[_Folder], others: Sequence[_Folder]) -> str:
    """Say how to take folders as classes although some are called as splits, if they can be named."""
    names = [folder.own_name for folder in (*splits, *others) if folder.has_pictures]
    if len(names) < 2 or not all(map(can_be_chosen, names)):
        return ""
    return f"; if they are classes, name them with :{','.join(names)} {WHERE}"


def _hint_at_table(tree: _Folder, folders: Sequence[_Folder]) -> None:
    """Refuse pictures without class folders if there are tables beside them."""
    unused = dict.fromkeys(each.path for folder in folders for each in folder.unused)
    tables = [path for path in unused if path.lower().endswith(TABLES)]
    tables = [path for path in tables if not _WITHOUT_LABELS.search(path.rpartition("/")[2].lower())] or tables
    if tables:
        lie = "is a table" if len(tables) == 1 else "are tables"
        write = " or ".join(f"csv:{tree.path / path}" for path in tables)
        raise UserError(f"there {lie} beside the pictures of {tree.path}: write {write}")


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


def _by_folder(layout: _Layout, level: int | None) -> Contents:
    """Take folder names as classes."""
    pictures: Samples = []
    empty: list[str] = []
    unused: list[Unused] = []
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


def _check_folders(
    layout: _Layout, tree: _Folder, *, level: int | None, classes: Sequence[str], without: Sequence[str]
) -> None:
    """Raises: UserError if the folders are no classes, or which of them are is ambiguous. A given level decides."""
    folders = [
        [folder for folder in place.class_folders if folder.own_name not in without] for _, place in layout.places
    ]
    chosen = [[folder for folder in inside if folder.own_name in classes] or inside for inside in folders]
    for (split, place), inside, taken in zip(layout.places, folders, chosen, strict=True):
        if split is None:
            _check_classes(place, inside, tree, level=level)
            _refuse_inner_splits(place, taken)
    if level == 2 and not any(folder.class_folders for inside in folders for folder in inside):
        raise UserError(
            f"the folders of {layout.places[0][1].path} hold no folders of pictures, which ?level=2 takes as classes: "
            "omit it to take the folders themselves"
        )
    if level is None:
        _check_level([folder for inside in chosen for folder in inside], of=layout.places[0][1])
        for inside in chosen:
            _check_doubled(inside, choice=write_choice(classes, without))


def _check_classes(place: _Folder, folders: Sequence[_Folder], tree: _Folder, *, level: int | None) -> None:
    """Refuse a place whose folders are not classes, suggesting what it may be."""
    if len(folders) == 1 and (wrapped := _wrapped(folders[0])) and (level is None or _has_splits(wrapped)):
        raise UserError(f"{place.path} holds a folder of classes: did you mean folder:{wrapped.path}?")
    if len(folders) < 2:
        _hint_at_table(tree, [place, *folders])
    if not folders and (place.pictures or not place.folders):
        what = "; ".join(describe_all_unused(place.all_unused()))
        problem = f"{place.path} holds no pictures in class folders: {LAYOUTS}" + (f"; {what}" if what else "")
        if not place.pictures:
            raise UserError(problem)
        raise LoosePictures(f"{problem}{_FROM_NAMES}", advice=_as_one_class(place.path))


def _refuse_inner_splits(place: _Folder, folders: Sequence[_Folder]) -> None:
    inner = [each for folder in folders for each in folder.class_folders]
    if any(split_of(each.own_name) for each in inner):
        raise UserError(
            f"{place.path} holds splits inside of its classes ({inner[0].name}/): move them up, since {LAYOUTS}"
        )


def _as_one_class(path: Path) -> str:
    """Say how to take the pictures straight in a folder as one class: from the folder above, if that has no splits."""
    path = path if path.name not in ("", os.pardir) else Path(os.path.abspath(path))
    name = nfc(path.name)
    beside = os.listdir(path.parent) if os.access(path.parent, os.R_OK) else [os.pardir]
    if can_be_chosen(name) and not any(split_of(each) for each in beside):
        return f"to take them all as the class {name!r}, write folder:{path.parent}:{name}"
    return f"to take them all as one class, put them into a folder of its name, as in {path / 'NAME'}/"


def _check_level(folders: Sequence[_Folder], *, of: _Folder) -> None:
    """Refuse folders without pictures of their own, some with several folders of pictures: either may be classes."""
    inner = [each for folder in folders for each in folder.class_folders]
    if not any(folder.pictures for folder in folders) and any(len(folder.class_folders) > 1 for folder in folders):
        raise UserError(
            f"the folders of {of.path} hold folders of pictures: are its classes {_name_all(folders)} (add ?level=1) "
            f"or {_name_all(inner)} (add ?level=2)?"
        )


def _check_doubled(folders: Sequence[_Folder], *, choice: Sequence[str]) -> None:
    """Refuse a folder that holds classes that lie beside it, too, as in archives that hold all their folders twice."""
    for folder in folders:
        names = {each.own_name for each in folders if each is not folder}
        doubled = [each for each in folder.class_folders if each.own_name in names]
        if doubled and not folder.pictures:
            raise UserError(
                f"{folder.path} holds folders that are classes beside it, too ({_name_all(doubled)}): "
                f"{advise_leaving_out([folder.own_name], choice=choice)}, or add ?level=1 to take it as a class"
            )


def _name_all(folders: Sequence[_Folder]) -> str:
    return named(sorted({folder.own_name for folder in folders}), most=4)


def _wrapped(folder: _Folder) -> _Folder | None:
    """Find a folder that looks like a source of its own, at any depth."""
    if folder.pictures:
        return None
    inner = folder.class_folders
    if _has_splits(folder):
        return folder
    if len(inner) == 1:
        return _wrapped(inner[0])
    return folder if len(inner) > 1 else None


def _has_splits(folder: _Folder) -> bool:
    return any(split_of(each.own_name) for each in folder.class_folders)


def _by_file_name(layout: _Layout, label: str) -> Contents:
    """Take the classes from file names. Raises: UserError if the pattern is invalid or matches nothing."""
    find = compile_rule(nfc(label), option="label")
    pictures: Samples = []
    unused: list[Unused] = []
    for split, place in layout.places:
        for folder in place.walk():
            unused += folder.unused
            for name in folder.pictures:
                found = find(nfc(name))
                if found:
                    pictures.append((found, split, folder.path / name, _join(folder.name, name)))
                else:
                    unused.append(Unused(_join(folder.name, name), f"names in which {label} finds no label", ""))
    if not pictures:
        raise UserError(f"label={label} matches no file name: write a regular expression such as ^([a-z]+)")
    return Contents(sorted(pictures, key=lambda each: each[0]), (), tuple(unused))

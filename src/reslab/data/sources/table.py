"""Pictures listed in a table: a row for each, with its file, its label and optionally its split and its group.

The table is CSV, TSV or Parquet (`parquet.py`). Columns are found by their usual names, or named by options. Files are
in the table's folder, or in the one given by an option, or in sub-folders, and may be written without their folder and
their ending: Hugging Face's metadata.csv and Kaggle's trainLabels.csv work unchanged.
"""

import csv
import io
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path, PurePosixPath
from random import Random

from reslab.data.names import nfc
from reslab.data.pictures import has_picture_ending, walk_pictures
from reslab.data.sources.columns import USUAL, find_column
from reslab.data.sources.folder import split_of
from reslab.data.sources.groups import group_by, with_groups
from reslab.data.sources.listing import Listing, Unused, describe_all_unused
from reslab.data.sources.options import NO_OPTIONS, NONE, Options
from reslab.data.sources.parquet import find_files, read_parquet
from reslab.data.sources.samples import Contents, Samples, assemble, choose
from reslab.errors import UserError, naming_problem
from reslab.records import SPLITS, SplitName
from reslab.runs.files import relative_to
from reslab.words import named

Columns = Mapping[str, Sequence[str]]  # of equal length

_SEPARATORS = ",;\t|"
_MAX_BYTES = 1 << 30
_FILES_SHOWN = 3
_CELLS_TRIED = 200  # with every folder
_TRIALS = 200_000  # at most, for which fewer cells are tried


def list_table(
    path: Path, *, classes: Sequence[str] = (), without: Sequence[str] = (), options: Options = NO_OPTIONS
) -> Listing:
    """List the pictures of a table; `classes` selects and orders classes, `without` leaves some out.

    Raises: UserError if the table cannot be read, lacks a column, or names no existing picture.
    """
    if inside := find_files(path):
        columns, held, own, left_out = read_parquet(path, inside, asked=options.file)
        options = replace(options, file=options.file or held)  # rather than a column of names beside it
    else:
        columns, own = _read(path, asked=(options.file, options.label, options.split, options.group)), None
        left_out = ()
    # The folder option is relative to the table; pictures inside a table are where they were unpacked.
    root = own or (path if path.is_dir() else path.parent) / (options.folder or "")
    files = columns[_find(columns, "file", options.file, path)]
    labels = columns[_find(columns, "label", options.label, path)]
    splits = _read_splits(columns, options, path)
    group = _find_optional(columns, "group", options.group, path)
    found_files = _Files(root, files)
    samples: Samples = []
    unused: list[Unused] = []
    groups: dict[Path, str] = {}
    seen: dict[str, str] = {}
    for row, (cell, label) in enumerate(zip(files, map(nfc, labels), strict=True)):
        name = found_files.find(cell, split=splits[row] if splits else None)
        if isinstance(name, Unused):
            unused.append(name)
        elif not label:
            unused.append(Unused(name, "rows without a label", ""))
        elif name in seen:
            if seen[name] != label:
                raise UserError(f"{path} gives {name} the labels {seen[name]!r} and {label!r}: correct one of its rows")
            unused.append(Unused(name, "rows with a picture that another row names", ""))
        else:
            seen[name] = label
            samples.append((label, splits[row] if splits else None, root / name, name))
            if group is not None:
                groups[root / name] = columns[group][row]
    if not samples:
        shown = ", ".join(repr(cell) for cell in files[:_FILES_SHOWN])
        raise UserError(
            f"{path} names no picture with a label in {root} or one of its folders: its files are {shown}; "
            + "; ".join(describe_all_unused(unused))
        )
    beside = [
        Unused(name, "pictures that the table does not name", "", expected=True)
        for name in found_files.others({*seen, *(each.path for each in unused)})
    ]
    found = choose(Contents(samples, (), (*unused, *beside)), path, classes=classes, without=without)
    notes = []
    if left_out:
        notes.append(
            f"pictures are those of the column {options.file!r}, not of {named(left_out)}, which ?file= can name"
        )
    if group is not None and options.group is None:
        notes.append(
            f"the column {group!r} keeps pictures of one group in one split: ?group={NONE} ignores it (of a DataFrame, "
            "drop it)"
        )
    places: dict[SplitName, str] = {split: f"its {split} split" for split in ("train", "validation", "test")}
    listing = assemble(path, found, classes=classes, without=without, places=places, notes=notes)
    listing = replace(listing, root=root)
    if group is not None:
        return with_groups(listing, [groups[file] or None for file in listing.files])
    return listing if options.group in (None, NONE) else group_by(listing, options.group)


# ---- the table


def _read(path: Path, *, asked: Iterable[str | None]) -> Columns:
    with naming_problem(f"{os.path.abspath(path)} cannot be read"):
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path} is too large for a table of pictures: at most {_MAX_BYTES:,} bytes are read")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise UserError(f"{path} is not UTF-8: save it as CSV in UTF-8") from None
    first = text.partition("\n")[0]
    separator = "\t" if path.suffix.lower() == ".tsv" else max(_SEPARATORS, key=first.count)
    try:
        header, *rows = (row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row)
    except (csv.Error, ValueError) as error:
        raise UserError(f"{path} cannot be read as a table ({error}): its first row must name its columns") from None
    names = [name.strip() for name in header]
    if pictures := [name for name in names if has_picture_ending(Path(name))]:
        raise UserError(
            f"{path} names the picture {pictures[0]!r} in its first row: add a row above that names the columns, such "
            "as file,label"
        )
    used = {*chain(*USUAL.values()), *(each.lower() for each in asked if each)}
    if twice := [name for name, num in Counter(names).items() if num > 1 and name.lower() in used]:
        raise UserError(f"{path} has several columns called {twice[0]!r}: rename all but one")
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise UserError(f"{path} has {len(row)} cells in row {number}, but {len(header)} columns: correct the row")
    return {name: [row[place].strip() for row in rows] for place, name in enumerate(names)}


def _find(columns: Columns, what: str, asked: str | None, table: Path) -> str:
    found = _find_optional(columns, what, asked, table)
    if found is None:
        raise UserError(
            f"cannot tell which column of {table} is the {what}: its columns are {named(list(columns))}; name it, "
            f"as in csv:{table}?{what}={next(iter(columns), 'NAME')}, or, if these are no columns, add a row of names "
            "above"
        )
    return found


def _find_optional(columns: Columns, what: str, asked: str | None, table: Path) -> str | None:
    """Find a column; None if there is none, none is wanted, or the group is a rule on file names."""
    if asked is not None:
        if asked in columns:
            return asked
        if what == "group" or (what == "split" and asked == NONE):
            return None
        raise UserError(f"{table} has no column {asked!r}: its columns are {named(list(columns))}")
    return find_column(columns, what)


def _read_splits(columns: Columns, options: Options, table: Path) -> list[SplitName] | None:
    column = _find_optional(columns, "split", options.split, table)
    if column is None:
        return None
    splits = []
    for row, cell in enumerate(columns[column], 2):
        split = split_of(cell)
        if split is None:
            raise UserError(
                f"{table} has the split {cell!r} in row {row}: write train, validation or test, or ignore the column "
                f"{column!r} with ?split={NONE} (of a DataFrame, drop it)"
            )
        splits.append(split)
    return splits


# ---- the files


class _Files:
    """The picture files of a folder, found by their names in a table."""

    def __init__(self, root: Path, cells: Sequence[str]) -> None:
        self.root = root
        self._names = [path.relative_to(root).as_posix() for path in walk_pictures(root)]
        self._sorted = sorted(self._names)
        self._by_name: dict[str, str | None] = {}  # None if several are called so
        for each in self._names:
            stem = _stem(nfc(each))
            self._by_name[stem] = None if stem in self._by_name else each
        self._by_name |= {nfc(each): each for each in self._names}
        self._base = self._find_base(cells)
        self._by_tail = cache(self._index_tails)
        self._inside = cache(self._list_inside)
        self._is_like_base = cache(self._has_names_of_base)

    def _find_base(self, cells: Sequence[str]) -> str:
        """Choose the folder in which most cells name a picture, preferring training pictures."""
        folders = dict.fromkeys(["", *(str(PurePosixPath(name).parent) for name in self._names)])
        num = min(len(cells), _CELLS_TRIED, max(10, _TRIALS // len(folders)))
        some = Random(0).sample(cells, num)
        found = {folder: sum(self._at(folder, cell) is not None for cell in some) for folder in folders}
        return max(
            folders, key=lambda folder: (found[folder], split_of(PurePosixPath(folder).name) == "train", folder == "")
        )

    def _at(self, folder: str, cell: str) -> str | None:
        return self._by_name.get(self._path_of(cell, folder))

    def _path_of(self, cell: str, folder: str = "") -> str:
        """Return the path of a cell that is relative to a folder, or absolute, inside the root."""
        cell = nfc(cell.replace("\\", "/"))
        if os.path.isabs(cell):
            return relative_to(cell, nfc(str(self.root.absolute()))).replace(os.sep, "/")
        path = f"{nfc(folder)}/{cell}" if folder not in ("", ".") else cell
        return os.path.normpath(path).replace(os.sep, "/")

    def _index_tails(self, depth: int, split: SplitName | None) -> dict[str, str | None]:
        """Map the last parts of each path, with and without the ending, to the path; None if several end so.

        With a split, only paths in a folder of that split are taken.
        """
        found: dict[str, str | None] = {}
        for name in self._names:
            if split is None or _split_in(name) == split:
                tail = "/".join(nfc(name).split("/")[-depth:])
                for key in {tail, _stem(tail)}:
                    found[key] = None if key in found else name
        return found

    def find(self, cell: str, *, split: SplitName | None = None) -> str | Unused:
        """Find a picture's path in the folder, or say why there is none.

        It is relative to the folder of most cells, or else in any other folder, but not in one that has some of the
        same names: there they are those of other pictures, as often in train/ and test/. A row of a split has its
        picture in a folder of that split, if one has the name, and never in either of two other splits' folders.
        """
        name = self._at(self._base, cell)
        path = self._path_of(cell)
        depth = path.count("/") + 1
        own = None if name is None else _split_in(name)
        if split is not None and (name is None or own not in (None, split)):
            inside = self._by_tail(depth, split)
            if path in inside:
                return inside[path] or _one_of_several(cell)
            others = [each for each in SPLITS if each not in (split, own)]
            if name is not None and any(path in self._by_tail(depth, each) for each in others):
                return _one_of_several(cell)
        if name is not None:
            return name
        tails = self._by_tail(depth, None)
        name = tails.get(path)
        if path in tails and name is None:
            return _one_of_several(cell)
        if name is None or self._is_like_base("/".join(name.split("/")[:-depth])):
            return Unused(cell, "rows whose picture is not there", "")
        return name

    def _has_names_of_base(self, folder: str) -> bool:
        """Return whether a folder has some of the names of the folder of most cells."""
        return not self._inside(self._base).isdisjoint(self._inside(folder))

    def _list_inside(self, folder: str) -> frozenset[str]:
        """Return the paths inside a folder, relative to it and without their endings."""
        if folder in ("", "."):
            return frozenset(_stem(nfc(name)) for name in self._sorted)
        first, last = (bisect_left(self._sorted, f"{folder}{end}") for end in "/0")  # 0 is the character after /
        return frozenset(_stem(nfc(name.removeprefix(f"{folder}/"))) for name in self._sorted[first:last])

    def others(self, those: Container[str]) -> list[str]:
        """List the pictures but those."""
        return [name for name in self._names if name not in those]


def _one_of_several(cell: str) -> Unused:
    return Unused(cell, "rows whose name several pictures have", "add the folder and the ending to it")


def _split_in(path: str) -> SplitName | None:
    """Return the split that a folder of a path stands for, if any; the innermost decides."""
    return _split_of_folder(path.rpartition("/")[0])


@cache
def _split_of_folder(path: str) -> SplitName | None:
    above, _, name = path.rpartition("/")
    return split_of(name) or (_split_of_folder(above) if above else None)


def _stem(path: str) -> str:
    """Remove the ending of a path."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{PurePosixPath(name).stem}"

"""A pandas DataFrame as a data expression: it is written to a file and read like any other table of pictures.

pandas is not imported: whoever passes a DataFrame has it already.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from numbers import Number
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from reslab.data.sources.columns import find_column
from reslab.data.sources.parquet import picture_ending
from reslab.data.storage.cache import keeping, make_room, name_of
from reslab.errors import UserError, extra
from reslab.runs.files import make_folder, relative_to, write_bytes
from reslab.words import named

if TYPE_CHECKING:
    import pandas


class _Table(NamedTuple):
    """The content of a table's file, its ending, and the folder of the pictures it names."""

    content: bytes
    ending: str
    root: Path | None


def to_expression(
    data: "str | pandas.DataFrame", *, data_dir: Path | None = None, beside: Path | str | None = None
) -> str:
    """Write a DataFrame to a file and return its expression; return an expression unchanged.

    The file is named `beside` plus an ending, or kept in the cache until room is needed. Relative paths in the table
    are relative to `data_dir`, by default the current directory.
    Raises: UserError if it is no DataFrame, lacks a column or would replace a file; Failure if it cannot be written.
    """
    if isinstance(data, str):
        return data
    if not _is_frame(data):
        raise UserError(
            f"data cannot be {type(data).__name__}: give an expression, such as 'folder:pictures', or a DataFrame of "
            "pandas"
        )
    table = _serialize(data, Path.cwd() if data_dir is None else data_dir)
    path = _keep(table) if beside is None else _save(table, Path(f"{beside}{table.ending}"))
    if table.root is None:
        return f"csv:{path}"
    folder = relative_to(table.root.resolve(), path.parent.resolve())
    if mark := re.search(r"[?&]", folder):
        raise UserError(f"the pictures of the DataFrame are in {table.root}: rename the folder without {mark[0]!r}")
    return f"csv:{path}?folder={folder}/"


def _is_frame(data: object) -> bool:
    kind = type(data)
    return kind.__name__ == "DataFrame" and kind.__module__.partition(".")[0] == "pandas"


def _serialize(frame: "pandas.DataFrame", base: Path) -> _Table:
    """Serialize the columns that are used: as Parquet if they hold the pictures themselves, else as CSV."""
    if levels := [name for name in frame.index.names if name is not None and name not in frame.columns]:
        frame = frame.reset_index(level=levels)
    columns = {str(name): name for name in frame.columns}
    held = [name for name in columns if _holds_pictures(frame[columns[name]])]
    picture = find_column(held, "file") or next(iter(held), None)
    file, label = columns[picture] if picture else _find(columns, "file"), _find(columns, "label")
    others = [columns[name] for what in ("split", "group") if (name := find_column(columns, what))]
    frame = frame[[file, label, *others]]
    present = frame[file].dropna()
    if isinstance(next(iter(present), None), dict | bytes):
        with extra("parquet"):
            import pyarrow  # noqa: F401
        if frame[label].dtype == object:  # possibly of several types, of which Parquet takes one only
            frame = frame.assign(**{label: frame[label].map(str, na_action="ignore")})
        return _Table(frame.to_parquet(index=False), ".parquet", None)
    if wrong := [cell for cell in present if not isinstance(cell, str | os.PathLike | Number)]:
        raise UserError(
            f"column {file!r} of the DataFrame has a {type(wrong[0]).__name__}: give paths, or the bytes of picture "
            "files"
        )
    cells = ["" if is_missing else str(cell) for cell, is_missing in zip(frame[file], frame[file].isna(), strict=True)]
    root = _find_root([cell for cell in cells if cell], base.absolute())
    moved = [cell and relative_to(base.absolute() / cell, root) for cell in cells]
    return _Table(frame.assign(**{file: moved}).to_csv(index=False).encode(errors="surrogatepass"), ".csv", root)


def _holds_pictures(column: "pandas.Series[Any]") -> bool:
    """Tell whether a column contains pictures, as bytes or as `{"bytes", "path"}`."""
    first = next(iter(column.dropna()), None)
    content = first.get("bytes") if isinstance(first, dict) else first
    return isinstance(content, bytes) and bool(picture_ending(content))


def _find(columns: dict[str, Any], what: str) -> Any:
    found = find_column(columns, what)
    if found is None:
        raise UserError(
            f"cannot tell which column of the DataFrame is the {what}: its columns are {named(list(columns))}; "
            f"rename one, as in frame.rename(columns={{{next(iter(columns), 'name')!r}: {what!r}}})"
        )
    return columns[found]


def _find_root(cells: Sequence[str], base: Path) -> Path:
    """Find the common folder of all files; if there is none, use `base`."""
    folders = {str((base / cell).parent) for cell in cells}
    try:
        root = Path(os.path.commonpath(folders)) if folders else base
    except ValueError:  # they are on several drives
        root = base
    return root if root.is_dir() else base


def _save(table: _Table, path: Path) -> Path:
    if path.exists():
        if path.read_bytes() == table.content:
            return path
        raise UserError(f"{path} exists, but the DataFrame would be saved there: choose another out, or move it away")
    make_folder(path.parent)
    write_bytes(path, table.content)
    return path


def _keep(table: _Table) -> Path:
    def make(part: Path) -> dict[str, Any]:
        make_room(len(table.content), what="the DataFrame")
        write_bytes(part / f"table{table.ending}", table.content)
        return {"origin": "a DataFrame", "split": "table", "shape": []}

    return keeping(name_of("frame", hashlib.sha256(table.content).hexdigest()), make) / f"table{table.ending}"

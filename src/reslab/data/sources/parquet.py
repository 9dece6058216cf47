"""Tables in Parquet, and the pictures that they may hold themselves, as Hugging Face's data sets do.

A column of bytes, or of `{"bytes", "path"}`, is written to files in the cache once, and stays there until room is
needed. Of a folder all Parquet files are one table; a file's name tells its split (`train-00000-of-00002.parquet`).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from reslab.data.progress import counting
from reslab.data.sources.folder import split_of
from reslab.data.storage.blocks import stamp_files
from reslab.data.storage.cache import make_room, name_of, opening
from reslab.errors import UserError, extra
from reslab.runs.files import writing

ENDING = ".parquet"
_BEGINNINGS = {
    b"\x89PNG": ".png",
    b"\xff\xd8": ".jpg",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"RIFF": ".webp",
}
_PLAIN = re.compile(r"[\w-]{1,80}", re.ASCII)


class UnpackedTable(NamedTuple):
    """Columns of text of one length, and the folder of the pictures if they were in it."""

    columns: Mapping[str, Sequence[str]]
    root: Path | None


def find_files(path: Path) -> list[Path]:
    """List the Parquet files of a folder, or the file itself."""
    return sorted(path.glob(f"*{ENDING}")) if path.is_dir() else [path] if path.suffix.lower() == ENDING else []


def read_parquet(path: Path, files: Sequence[Path]) -> UnpackedTable:
    """Read Parquet files of the same columns. Raises: UserError where they are not sound, or pyarrow is missing."""
    stamp = stamp_files(files)
    with extra("parquet"):
        from pyarrow import parquet
    try:
        cells = _join([_read(parquet.read_table(file), file, is_one=len(files) == 1) for file in files])
    except Exception as error:  # what reads Parquet raises anything on broken input
        raise UserError(f"{path} cannot be read as Parquet: {error}") from None
    root: Path | None = None
    if held := next((name for name, column in cells.items() if holds_pictures(column)), None):
        pictures = [_parts(cell) for cell in cells[held]]
        names = [_name(row, content, name) for row, (content, name) in enumerate(pictures)]
        root = _unpack([content for content, _ in pictures], names, path=path, stamp=f"{held} {stamp}")
        cells[held] = names
    columns = {name: ["" if _is_missing(cell) else str(cell) for cell in column] for name, column in cells.items()}
    for name, classes in _named_classes(files[0]).items():
        columns[name] = [classes[int(cell)] if cell.isdecimal() else cell for cell in columns[name]]
    return UnpackedTable(columns, root)


def _read(table: Any, file: Path, *, is_one: bool) -> dict[str, list[Any]]:
    """Give the columns of one file, and where it is one of several, the split that its name begins with."""
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    split = split_of(re.split("[-_.]", file.name)[0])
    if split is not None and not is_one:
        columns.setdefault("split", [split] * table.num_rows)
    return columns


def _join(tables: Sequence[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """Put tables under each other; a column that one of them lacks has nothing there."""
    names = dict.fromkeys(name for table in tables for name in table)
    nothing = [[None] * len(next(iter(table.values()), ())) for table in tables]
    return {
        name: [cell for table, none in zip(tables, nothing, strict=True) for cell in table.get(name, none)]
        for name in names
    }


def _is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and cell != cell)


def holds_pictures(cells: Sequence[Any]) -> bool:
    """Tell whether the cells of a column are pictures themselves, as bytes or as `{"bytes", "path"}`."""
    return isinstance(next((cell for cell in cells if cell is not None), None), dict | bytes)


def _parts(cell: Any) -> tuple[bytes, str]:
    """Give the bytes of a picture, none where it lacks them, and its file's name."""
    content, name = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    return (content if isinstance(content, bytes) else b""), str(name or "")


def _name(row: int, content: bytes, name: str) -> str:
    """Name a picture by its row, and as it was called where nothing but letters, digits, "-" and "_" is in that."""
    if not content:
        return ""
    stem = PurePosixPath(name).stem
    ending = next((ending for begin, ending in _BEGINNINGS.items() if content.startswith(begin)), "")
    return f"{row:07}{f'-{stem}' if _PLAIN.fullmatch(stem) else ''}{ending}"


def _unpack(contents: Sequence[bytes], names: Sequence[str], *, path: Path, stamp: str) -> Path:
    """Write pictures to files in the cache, and give their folder."""

    def make(part: Path) -> dict[str, Any]:
        make_room(sum(map(len, contents)), what=f"the pictures of {path}")
        with counting(f"{path}: pictures", total=len(names)) as show:
            for row, (name, content) in enumerate(zip(names, contents, strict=True)):
                if name:
                    writing(part, lambda name=name, content=content: (part / name).write_bytes(content))  # type: ignore[misc]
                show(row)
        return {"origin": f"csv:{path}", "split": "unpacked", "shape": [len(names)]}

    with opening(name_of("parquet", stamp), make) as entry:
        return entry


def _named_classes(file: Path) -> dict[str, list[str]]:
    """Read the names of classes that Hugging Face's library leaves in a file, by column."""
    found: dict[str, list[str]] = {}
    with suppress(Exception):  # whatever is there instead, the numbers do as well
        found.update(_read_features(file))
    return found


def _read_features(file: Path) -> Iterator[tuple[str, list[str]]]:
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_schema(file).metadata or {}
    for name, feature in json.loads(metadata[b"huggingface"])["info"]["features"].items():
        if feature.get("_type") == "ClassLabel":
            yield name, [str(each) for each in feature["names"]]

"""Tables in Parquet, including those that contain their pictures, as Hugging Face's data sets do.

A column of bytes, or of `{"bytes", "path"}`, is written once to files in the cache, where it stays until room is
needed. All Parquet files of a folder are one table; a word of a file's name tells its split
(`train-00000-of-00002.parquet`).
"""

import json
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import repeat
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from reslab.data.pictures import list_visible
from reslab.data.progress import counting
from reslab.data.sources.columns import find_column
from reslab.data.sources.folder import split_in
from reslab.data.storage.blocks import stamp_files
from reslab.data.storage.cache import keeping, make_room, name_of
from reslab.errors import UserError, extra, naming_problem
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
_BYTES = ("binary", "large_binary", "binary_view")  # types of Arrow
_NO_LABEL = "-1"  # of an unlabelled picture, as in a test split
_ROW = re.compile("[0-9]+")
_BATCH = 16  # pictures in memory
_BUFFER = 1 << 20  # bytes


class UnpackedTable(NamedTuple):
    """Text columns of equal length, and the column and the folder of the pictures if the table contained them.

    `left_out` are the other columns that contain pictures.
    """

    columns: Mapping[str, Sequence[str]]
    held: str | None
    root: Path | None
    left_out: tuple[str, ...]


def find_files(path: Path) -> list[Path]:
    """List the Parquet files of a folder, or the file itself."""
    return list_visible(path, f"*{ENDING}") if path.is_dir() else [path] if path.suffix.lower() == ENDING else []


def read_parquet(path: Path, files: Sequence[Path], *, asked: str | None = None) -> UnpackedTable:
    """Read Parquet files of the same columns; the pictures are those of the column `asked` for, if it contains any.

    Raises: UserError if they are invalid, or pyarrow is missing.
    """
    stamp = stamp_files(files)
    with extra("parquet"):
        from pyarrow import parquet
    with naming_problem(f"{path} cannot be read as Parquet"):
        schemas = [parquet.read_schema(file) for file in files]
        held, others = _find_pictures([field for schema in schemas for field in schema], asked)
        cells = _join([_read(file, without={held, *others}, is_one=len(files) == 1) for file in files])
    root: Path | None = None
    if held is not None:
        root = _unpack(path, files, held, stamp=stamp)
        names = {int(found[0]): file.name for file in root.iterdir() if (found := _ROW.match(file.name))}
        cells[held] = [names.get(row) for row in range(len(cells[held]))]
    columns = {name: ["" if _is_missing(cell) else str(cell) for cell in column] for name, column in cells.items()}
    for name, classes in _named_classes(schemas[0]).items():
        if name in columns:
            columns[name] = [_name_class(cell, classes, name, path) for cell in columns[name]]
    left_out = () if held is None else tuple(dict.fromkeys(name for name in others if name != held))
    return UnpackedTable(columns, held, root, left_out)


def _find_pictures(fields: Sequence[Any], asked: str | None) -> tuple[str | None, list[str]]:
    """Find the column to take pictures from, which contains them as bytes or as `{"bytes", "path"}`.

    It is the one of a usual name, else the first, or the one `asked` for, if that contains any. Also list others that
    contain pictures.
    """
    from pyarrow.types import is_struct

    structs = [each.name for each in fields if is_struct(each.type) and each.type.get_field_index("bytes") >= 0]
    holding = [each.name for each in fields if each.name in structs or str(each.type) in _BYTES]
    usual = find_column(dict.fromkeys(holding), "file") or next(iter(holding), None)
    held = usual if asked is None else asked if asked in holding else None
    return held, [*holding[:1], *structs]


def _read(file: Path, *, without: Container[str | None], is_one: bool) -> dict[str, list[Any]]:
    """Return the columns of one file, empty for those `without` which it is read.

    If there are several files, add the split that the file's name tells.
    """
    from pyarrow import parquet

    with parquet.ParquetFile(file) as opened:
        names, num_rows = opened.schema_arrow.names, opened.metadata.num_rows
        table = opened.read(columns=[name for name in names if name not in without])
    columns = {name: [None] * num_rows if name in without else table.column(name).to_pylist() for name in names}
    split = split_in(file)
    if split is not None and not is_one:
        columns.setdefault("split", [split] * num_rows)
    return columns


def _join(tables: Sequence[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    """Concatenate tables; a column that one of them lacks is empty there."""
    names = dict.fromkeys(name for table in tables for name in table)
    nothing = [[None] * len(next(iter(table.values()), ())) for table in tables]
    return {
        name: [cell for table, none in zip(tables, nothing, strict=True) for cell in table.get(name, none)]
        for name in names
    }


def _is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and cell != cell)


def _parts(cell: Any) -> tuple[bytes, str]:
    """Return the bytes of a picture, empty if missing, and its file name."""
    content, name = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
    return (content if isinstance(content, bytes) else b""), str(name or "")


def _name(row: int, content: bytes, name: str) -> str:
    """Name a picture by its row, plus its own name if that has only letters, digits, "-" and "_"."""
    stem = PurePosixPath(name).stem
    return f"{row:07}{f'-{stem}' if _PLAIN.fullmatch(stem) else ''}{picture_ending(content)}"


def picture_ending(content: bytes) -> str:
    """Return the ending for a picture of a common format; empty for other bytes."""
    return next((ending for begin, ending in _BEGINNINGS.items() if content.startswith(begin)), "")


def _unpack(path: Path, files: Sequence[Path], held: str, *, stamp: str) -> Path:
    """Write the pictures of a column to files in the cache, whose names begin with the row, and return their folder."""

    def make(part: Path) -> dict[str, Any]:
        with naming_problem(f"{path} cannot be read as Parquet"):
            num_rows, num_bytes = _measure(files, held)
            make_room(num_bytes, what=f"the pictures of {path}")
            with counting(f"{path}: pictures", total=num_rows) as show:
                for row, (content, name) in enumerate(map(_parts, _stream(files, held))):
                    if content:
                        file = part / _name(row, content, name)
                        writing(part, lambda file=file, content=content: file.write_bytes(content))  # type: ignore[misc]
                    show(row)
        return {"origin": f"csv:{path}", "split": "unpacked", "shape": [num_rows]}

    return keeping(name_of("parquet", f"{held} {stamp}"), make)


def _measure(files: Sequence[Path], held: str) -> tuple[int, int]:
    """Count the rows of files, and the bytes of a column in memory."""
    from pyarrow import parquet

    all_metadata = [parquet.read_metadata(file) for file in files]
    groups = [each.row_group(number) for each in all_metadata for number in range(each.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    return sum(each.num_rows for each in all_metadata), sum(
        chunk.total_uncompressed_size for chunk in chunks if f"{chunk.path_in_schema}.".startswith(f"{held}.")
    )


def _stream(files: Sequence[Path], held: str) -> Iterator[Any]:
    """Yield the cells of a column; a page of the file, usually up to 1,024 rows, is in memory at a time."""
    from pyarrow import parquet

    for file in files:
        with parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False) as opened:
            if held not in opened.schema_arrow.names:
                yield from repeat(None, opened.metadata.num_rows)
                continue
            for batch in opened.iter_batches(batch_size=_BATCH, columns=[held]):
                yield from batch.column(held).to_pylist()


def _name_class(cell: str, classes: Sequence[str], column: str, path: Path) -> str:
    if cell == _NO_LABEL:
        return ""
    if not cell.isdecimal():
        return cell
    if int(cell) >= len(classes):
        raise UserError(
            f"{path} has the number {cell} in the column {column!r}, for which it names only {len(classes)} classes: "
            "correct the numbers or the names"
        )
    return classes[int(cell)]


def _named_classes(schema: Any) -> dict[str, list[str]]:
    """Read the class names that Hugging Face's library stores in a file, by column."""
    found: dict[str, list[str]] = {}
    with suppress(Exception):  # without valid names, the numbers do as well
        found.update(_read_features(schema))
    return found


def _read_features(schema: Any) -> Iterator[tuple[str, list[str]]]:
    for name, feature in json.loads(schema.metadata[b"huggingface"])["info"]["features"].items():
        if feature.get("_type") == "ClassLabel":
            yield name, [str(each) for each in feature["names"]]

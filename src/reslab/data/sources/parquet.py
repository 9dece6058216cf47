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
from reslab.errors import UserError
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
    """Columns of text of one length, and the folder in which the files lie that they name."""

    columns: Mapping[str, Sequence[str]]
    root: Path


def find_files(path: Path) -> list[Path]:
    """List the Parquet files of a folder, or the file itself."""
    return sorted(path.glob(f"*{ENDING}")) if path.is_dir() else [path] if path.suffix.lower() == ENDING else []


def read_parquet(path: Path, files: Sequence[Path]) -> UnpackedTable:
    """Read Parquet files of the same columns. Raises: UserError where they are not sound, or pandas is missing."""
    stamp = stamp_files(files)
    try:
        import pandas

        frames = [pandas.read_parquet(file) for file in files]
        for file, frame in zip(files, frames, strict=True):
            split = split_of(re.split("[-_.]", file.name)[0])
            if split is not None and len(files) > 1 and "split" not in frame.columns:
                frame["split"] = split
        frame = pandas.concat(frames, ignore_index=True)
    except ImportError:
        raise UserError(f"{path} is Parquet: pip install pandas pyarrow to read it, or save it as CSV") from None
    except Exception as error:  # what reads Parquet raises anything on broken input
        raise UserError(f"{path} cannot be read as Parquet: {error}") from None
    root = path if path.is_dir() else path.parent
    if held := next((name for name in frame.columns if _holds_pictures(frame[name])), None):
        pictures = [_parts(cell) for cell in frame[held]]
        names = [_name(row, content, name) for row, (content, name) in enumerate(pictures)]
        root = _unpack([content for content, _ in pictures], names, path=path, stamp=f"{held} {stamp}")
        frame[held] = names
    columns = {str(name): ["" if cell != cell else str(cell) for cell in frame[name]] for name in frame.columns}
    for name, classes in _named_classes(files[0]).items():
        columns[name] = [classes[int(cell)] if cell.isdecimal() else cell for cell in columns[name]]
    return UnpackedTable(columns, root)


def _holds_pictures(column: Any) -> bool:
    return len(column) > 0 and isinstance(column.iloc[0], dict | bytes)


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

"""Single files: written all or nothing, read with every damage in one sentence."""

import csv
import errno
import glob
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar
from zipfile import ZipFile

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import ValidationError

from reslab.errors import Failure, UserError, check_kind, first_complaint, show
from reslab.recipe.value import Part
from reslab.records import SCHEMA_VERSION
from reslab.runs.compact import expand
from reslab.words import printable

Arrays = Mapping[str, NDArray[Any]]
RecordT = TypeVar("RecordT", bound=Part)
ResultT = TypeVar("ResultT")


class Damaged(UserError):  # noqa: N818 - it names a state, as Failure does
    """A file whose content does not hold; not one that is of a newer schema."""


# ---- atomic writing


def write_bytes(path: Path, content: bytes, *, check: Callable[[Path], None] | None = None) -> None:
    """Write a file so that a crash leaves the old one or the new one.

    `check` looks at the new file before it takes the place of the old one. Raises: Failure where the disk refuses.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")

    def write() -> None:
        _drop_parts(path)
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if check is not None:
                check(part)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        _flush_folder(path.parent)

    writing(path, write)


def write_json(path: Path, content: Any) -> None:
    """Write JSON that a person can read, atomically."""
    write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def to_csv(header: Iterable[str], rows: Iterable[Iterable[str]]) -> bytes:
    """Write a table in UTF-8, with the mark by which a spreadsheet knows that; no cell is taken for a formula."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows([_as_text(cell) for cell in row] for row in rows)
    return buffer.getvalue().encode("utf-8-sig")


def _as_text(cell: str) -> str:
    return f"'{printable(cell)}" if cell.startswith(("=", "+", "-", "@")) else printable(cell)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, however many. Raises: Failure where the disk refuses."""

    def make() -> None:
        missing = list(takewhile(lambda folder: not os.path.lexists(folder), (path, *path.parents)))
        for folder in reversed(missing):  # not by recursion, as the standard library would
            folder.mkdir(exist_ok=True)
        os.listdir(path)  # a file, or a link that leads nowhere, is in the way

    writing(path, make)


def _drop_parts(path: Path) -> None:
    """Take away what killed writers of a file have left half-written."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        if not _is_running(part.name.split(".")[-2]):
            with suppress(OSError):  # Windows refuses where somebody has it open
                part.unlink()


def _is_running(process: str) -> bool:
    """Look whether there is a process of that number, as far as the system tells."""
    if os.name != "posix" or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _flush_folder(folder: Path) -> None:
    """Make a rename last through a power cut; not every system lets a folder be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def writing(path: Path, action: Callable[[], ResultT]) -> ResultT:
    """Do what writes to `path`. Raises: Failure with the reason where the disk refuses."""
    try:
        return action()
    except OSError as error:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else (error.strerror or str(error))
        raise Failure(f"{path} cannot be written: {reason}") from None


# ---- reading, with every damage in one sentence


def read_bytes(path: Path) -> bytes:
    check_kind(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def parse_json(content: bytes, where: str, *, newest: int = SCHEMA_VERSION) -> dict[str, Any]:
    """Read an object with fields. Raises: UserError where its schema is newer than the `newest` that is known."""
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{where} is damaged: {error}") from None
    if not isinstance(parsed, dict):
        raise Damaged(f"{where} is damaged: it should be an object with fields, not {show(parsed)}")
    version = parsed.get("schema_version")
    if isinstance(version, int) and version > newest:
        raise UserError(f"{where} has schema {version}, this reslab reads up to {newest}: upgrade reslab")
    return parsed


def parse_record(content: bytes, kind: type[RecordT], where: str) -> RecordT:
    schema = kind.model_fields.get("schema_version")
    parsed = parse_json(content, where, newest=schema.default if schema else SCHEMA_VERSION)
    try:
        return kind.model_validate(parsed)
    except ValidationError as error:
        raise Damaged(f"{where} is damaged: {first_complaint(error, parsed)}") from None


def read_record(path: Path, kind: type[RecordT]) -> RecordT:
    return parse_record(read_bytes(path), kind, str(path))


def to_safetensors(tensors: Arrays, metadata: dict[str, str]) -> bytes:
    # Not ascontiguousarray, which turns a number into a list of one.
    return safetensors.numpy.save({name: np.asarray(value, order="C") for name, value in tensors.items()}, metadata)


def read_safetensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    check_kind(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        for name, value in tensors.items():  # where ml_dtypes is loaded, NumPy does read such types
            if value.dtype.isbuiltin != 1:
                raise TypeError(f"{name} is of type {value.dtype}, which NumPy lacks")
        return expand(tensors), metadata
    # A type or an attribute is wrong where NumPy has no such dtype, and a value where a scale does not fit.
    except (OSError, safetensors.SafetensorError, TypeError, AttributeError, ValueError) as error:
        raise Damaged(f"{path} cannot be read as a safetensors file: {error}") from None


def write_npz(path: Path, arrays: Arrays) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def read_npz(path: Path, names: tuple[str, ...], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"{path} is missing: run reslab evaluate {path.parent}")
    content = read_bytes(path)
    try:
        # From memory, because NumPy leaves a broken file open.
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            check_sizes(file.zip)
            return {name: file[name] for name in (*names, *(name for name in optional if name in file))}
    except Exception as error:  # a broken archive makes zipfile and NumPy raise nearly anything
        raise Damaged(f"{path} is damaged, it should hold {' and '.join(names)}: {error}") from None


MAX_BYTES = 10**9  # below that, nothing is a bomb
MAX_RATIO = 100  # of what is inside to what lies on the disk; images are compressed by less


def check_sizes(archive: ZipFile) -> None:
    """Raises: ValueError where a member would be huge and is nearly nothing on the disk."""
    for member in archive.infolist():
        check_size(member.filename, member.file_size, on_disk=member.compress_size)


def check_size(name: str, num_bytes: int, *, on_disk: int) -> None:
    """Raises: ValueError where `num_bytes` are huge and nearly nothing on the disk."""
    if num_bytes > max(MAX_BYTES, MAX_RATIO * on_disk):
        raise ValueError(f"{name} unpacks {on_disk:,} to {num_bytes:,} bytes")

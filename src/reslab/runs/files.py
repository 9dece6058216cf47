"""Single files: written atomically, and read with any damage reported in one sentence."""

import csv
import errno
import functools
import glob
import hashlib
import io
import json
import os
import platform
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, TypeVar
from zipfile import ZipFile

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import ValidationError

from reslab.errors import Failure, UserError, check_kind, first_complaint, in_shell, show
from reslab.recipe.value import Part
from reslab.records import SCHEMA_VERSION
from reslab.runs.compact import expand
from reslab.words import printable

SECONDS_TO_WRITE: Final = 24 * 3600  # after which the writer of a partial file on another host must be gone
LARGEST: Final = 4 * 2**30  # bytes of weights that are read or downloaded
Arrays = Mapping[str, NDArray[Any]]
RecordT = TypeVar("RecordT", bound=Part)
ResultT = TypeVar("ResultT")


class Damaged(UserError):  # noqa: N818 - it names a state, as Failure does
    """A file with invalid content, as opposed to one with a newer schema."""


# ---- atomic writing


def write_bytes(path: Path, content: bytes, *, check: Callable[[Path], None] | None = None) -> None:
    """Write a file atomically: a crash leaves either the old one or the new one.

    `check` can verify the new file before it replaces the old one. Raises: Failure if it cannot be written.
    """
    if not path.name:  # as of "." and "/"
        raise Failure(f"{path} cannot be written: it is a folder")
    part = name_part(path)

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


def relative_to(path: Path | str, start: Path | str) -> str:
    """Return the path as seen from the folder `start`; an absolute one if it is on another drive."""
    try:
        return os.path.relpath(path, start)
    except ValueError:
        return os.path.abspath(path)


def write_json(path: Path, content: Any) -> None:
    """Write human-readable JSON atomically."""
    write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def to_csv(header: Iterable[str], rows: Iterable[Iterable[str | float]]) -> bytes:
    """Format a table as CSV in UTF-8 with a byte order mark for spreadsheets, without texts that act as formulas."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows([plain_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return buffer.getvalue().encode("utf-8-sig")


def plain_cell(cell: str) -> str:
    """Escape a cell so that spreadsheets show it as text and never take it for a formula."""
    return f"'{printable(cell)}" if cell.startswith(("=", "+", "-", "@")) else printable(cell)


def make_folder(path: Path) -> None:
    """Make a folder and all missing parents. Raises: Failure if they cannot be made."""

    def make() -> None:
        missing = list(takewhile(lambda folder: not os.path.lexists(folder), (path, *path.parents)))
        for folder in reversed(missing):  # without the recursion of the standard library
            folder.mkdir(exist_ok=True)
        os.listdir(path)  # fails if a file or a broken link is in the way

    writing(path, make)


def name_part(path: Path) -> Path:
    """Name a partial file or folder beside `path`, which says who is writing it."""
    return path.with_name(f".{path.name}.{name_place()}.{os.getpid()}.{secrets.token_hex(4)}.part")


def _drop_parts(path: Path) -> None:
    """Remove partial files left by killed writers of a file, who may have been on another host."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError):  # it is gone already, or Windows refuses since it is open elsewhere
            if is_left(part):
                part.unlink()


def is_left(part: Path) -> bool:
    """Return whether the writer of a partial file or folder is gone, as far as can be told from here."""
    *_, place, process, _token, _ending = part.name.split(".")
    if place == name_place() and (os.name == "posix" or not part.is_dir()):
        return not _is_running(process)
    return time.time() - max(each.stat().st_mtime for each in (part, *part.rglob("*"))) > SECONDS_TO_WRITE


@functools.cache
def name_place() -> str:
    """Name this host, or the container on it, within which processes have numbers of their own."""
    try:
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:  # there are no containers
        numbers = ""
    return hashlib.sha256(f"{platform.node()} {numbers}".encode()).hexdigest()[:12]


def _is_running(process: str) -> bool:
    """Return whether a process with that number exists, as far as the system tells."""
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
    """Make a rename survive a power cut, on systems that can open a folder."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def writing(path: Path, action: Callable[[], ResultT]) -> ResultT:
    """Call `action`, which writes to `path`. Raises: Failure with the reason if that fails."""
    try:
        return action()
    except OSError as error:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else (error.strerror or str(error))
        raise Failure(f"{path} cannot be written: {reason}") from None


# ---- reading, with any damage reported in one sentence


def read_bytes(path: Path) -> bytes:
    check_kind(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def parse_json(content: bytes, where: str, *, newest: int = SCHEMA_VERSION) -> dict[str, Any]:
    """Parse a JSON object. Raises: UserError if its schema is newer than `newest`."""
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
    # Not ascontiguousarray, which turns a scalar into an array of length one.
    return safetensors.numpy.save({name: np.asarray(value, order="C") for name, value in tensors.items()}, metadata)


def read_safetensors(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    check_kind(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        for name, value in tensors.items():  # NumPy can read such types if ml_dtypes is loaded
            if value.dtype.isbuiltin != 1:
                raise TypeError(f"{name} is of type {value.dtype}, which NumPy lacks")
        return expand(tensors), metadata
    # TypeError or AttributeError: NumPy has no such dtype. ValueError: a scale does not fit.
    except (OSError, safetensors.SafetensorError, TypeError, AttributeError, ValueError) as error:
        raise Damaged(f"{path} cannot be read as a safetensors file: {error}") from None


def write_npz(path: Path, arrays: Arrays) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_bytes(path, buffer.getvalue())


def read_npz(path: Path, names: tuple[str, ...], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"{path} is missing: run reslab evaluate {in_shell(path.parent)}")
    content = read_bytes(path)
    try:
        # Loaded from memory, because NumPy leaves a broken file open.
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            check_sizes(file.zip)
            return {name: file[name] for name in (*names, *(name for name in optional if name in file))}
    except Exception as error:  # a broken archive makes zipfile and NumPy raise nearly anything
        raise Damaged(f"{path} is damaged, it should hold {' and '.join(names)}: {error}") from None


MAX_BYTES = 10**9  # smaller files are never refused as bombs
MAX_RATIO = 100  # of unpacked size to size on disk; images compress less


def check_sizes(archive: ZipFile) -> None:
    """Raises: ValueError if a member would be huge but is tiny on disk."""
    for member in archive.infolist():
        check_size(member.filename, member.file_size, on_disk=member.compress_size)


def check_size(name: str, num_bytes: int, *, on_disk: int) -> None:
    """Raises: ValueError if `num_bytes` is huge compared to the size on disk."""
    if num_bytes > max(MAX_BYTES, MAX_RATIO * on_disk):
        raise ValueError(f"{name} unpacks {on_disk:,} to {num_bytes:,} bytes")

"""A cache on disk for computed or decoded data, shared by all processes of a user.

An entry is a folder of files with an `entry.json`, which describes them and has a SHA-256 over them. It is made beside
its final place under a lock and then renamed, so that two processes make it once and a killed one leaves no partial
entry. The cache key covers everything that the entry depends on. If the cache is too large, the least recently used
entries are removed first.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import platformdirs

from reslab.data.storage.blocks import version_of
from reslab.data.storage.locks import discard_lock, locked, take
from reslab.errors import Failure, UserError
from reslab.runs.files import is_left, make_folder, name_part, writing

GIGABYTE = 10**9
LIMIT = 100  # gigabytes
FACTS = "entry.json"
_kept: dict[Path, int] = {}  # entries that this process keeps, and the open files that say so to others


@dataclass(frozen=True)
class Entry:
    """Images, or features of images, in the cache; `num_bytes` on disk, `used` in seconds since 1970."""

    path: Path
    origin: str
    split: str
    shape: tuple[int, ...]
    num_bytes: int
    used: float


def find_cache() -> Path:
    """Return the cache folder: $RESLAB_CACHE, else a folder in the user's cache directory."""
    return Path(os.path.expanduser(os.environ.get("RESLAB_CACHE") or platformdirs.user_cache_path("reslab") / "images"))


def find_limit() -> int:
    """Return the size limit of the cache in bytes, from $RESLAB_CACHE_GB. Raises: UserError if that is not a number."""
    text = os.environ.get("RESLAB_CACHE_GB") or str(LIMIT)
    try:
        limit = int(float(text) * GIGABYTE)
    except (ValueError, OverflowError):
        limit = 0
    if limit <= 0:
        raise UserError(f"RESLAB_CACHE_GB={text}: set it to the gigabytes that the cache may take, for example {LIMIT}")
    return limit


def name_of(*identity: Any) -> str:
    """Compute the name of an entry from everything that it depends on."""
    return hashlib.sha256(json.dumps(identity).encode(errors="surrogatepass")).hexdigest()[:32]


@contextmanager
def opening(name: str, make: Callable[[Path], dict[str, Any]]) -> Iterator[Path]:
    """Yield an entry's folder, making it if necessary; nobody else can remove it within the block.

    `make` writes the files into a given folder, and returns their origin, split and shape.
    Raises: Failure if they cannot be written, and whatever `make` raises.
    """
    path = find_cache() / name
    make_folder(path.parent)
    with locked(path):
        if not is_sound(path):
            _make(path, make)
        with suppress(OSError):
            os.utime(path / FACTS)
        yield path


def keeping(name: str, make: Callable[[Path], dict[str, Any]]) -> Path:
    """Return an entry's folder, making it if necessary, for files that are read later by their paths.

    Nobody removes it before this process ends. Raises: as `opening`.
    """
    with opening(name, make) as path, suppress(OSError):
        handle = os.open(path / FACTS, os.O_RDONLY)
        if path in _kept:
            os.close(_kept[path])
        _kept[path] = handle
        take(handle, shared=True)
    return path


def list_cache() -> list[Entry]:
    """List the entries, the most recently used first; unreadable ones are left out."""
    found = []
    for file in find_cache().glob(f"[!.]*/{FACTS}"):
        with suppress(OSError, ValueError, LookupError, TypeError):
            facts = json.loads(file.read_text(encoding="utf-8"))
            size = sum(each.stat().st_size for each in (file, *_files(file.parent)))
            shape = tuple(int(axis) for axis in facts["shape"])
            found.append(
                Entry(file.parent, str(facts["origin"]), str(facts["split"]), shape, size, file.stat().st_mtime)
            )
    return sorted(found, key=lambda entry: -entry.used)


def clear_cache() -> int:
    """Remove all entries that are neither open nor kept, and leftovers of killed processes; return the bytes freed."""
    locks = list(find_cache().glob(".*.lock"))
    return _drop_parts() + sum(_evict(lock.with_name(lock.name[1 : -len(".lock")])) for lock in locks)


# ---- one entry


def read_facts(path: Path) -> dict[str, Any]:
    """Read the description of an entry."""
    facts: dict[str, Any] = json.loads((path / FACTS).read_text(encoding="utf-8"))
    return facts


def is_sound(path: Path) -> bool:
    """Return whether an entry exists and is unchanged since it was made."""
    try:
        versions = [version_of(file.stat()) for file in _files(path)]
        return bool(_digest(path, *versions) == read_facts(path)["sha256"])
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file() and file != path / FACTS)


@cache
def _digest(path: Path, *versions: tuple[int, ...]) -> str:
    """Hash all of an entry, once per process for the same `versions` of its files."""
    return _hash(path)


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    for each in _files(path):
        with each.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _make(path: Path, make: Callable[[Path], dict[str, Any]]) -> None:
    """Make the files in a folder beside `path`, then rename it."""
    _drop_parts()
    part = name_part(path)
    writing(part, part.mkdir)
    try:
        facts = make(part) | {"sha256": _hash(part)}
        writing(part, lambda: (part / FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8"))
        if is_sound(path):  # without locks, another process may have been faster
            return
        _remove(path)  # damaged
        try:
            writing(path, lambda: part.rename(path))
        except Failure:
            if not is_sound(path):
                raise
    finally:
        _remove(part)


# ---- room, and one writer


def make_room(num_bytes: int, *, what: str, otherwise: str = "") -> None:
    """Remove entries until `num_bytes` more fit. Raises: UserError, naming `what` needs them, if they never would."""
    listed, folder = list_cache(), find_cache()
    entries = [entry for entry in listed if entry.path not in _kept]
    limit = find_limit() - sum(entry.num_bytes for entry in listed if entry.path in _kept)
    # If it is larger than the whole cache, remove nothing.
    while (
        num_bytes <= limit
        and entries
        and (sum(entry.num_bytes for entry in entries) + num_bytes > limit or _free(folder) < num_bytes)
    ):
        _evict(entries.pop().path)
    room = max(0, min(limit, _free(folder)))
    if num_bytes > room:
        raise UserError(
            f"{what} need {num_bytes / GIGABYTE:.1f} GB of the cache in {folder}, which has room for "
            f"{room / GIGABYTE:.1f}: set RESLAB_CACHE to a folder on a larger disk or RESLAB_CACHE_GB higher{otherwise}"
        )


def _evict(path: Path) -> int:
    """Remove an entry that nobody makes, opens or keeps, and its lock; return the bytes freed."""
    with suppress(BlockingIOError), locked(path, wait=False):
        if _is_kept(path):
            return 0
        num_bytes = _size(path)
        _remove(path)
        discard_lock(path)
        return num_bytes - _size(path)
    return 0


def _is_kept(path: Path) -> bool:
    """Return whether a process keeps an entry, as far as the system tells."""
    if path in _kept:
        return True
    try:
        handle = os.open(path / FACTS, os.O_RDWR)
    except OSError:  # it is damaged
        return False
    try:
        take(handle)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _drop_parts() -> int:
    """Remove what killed processes have left; return the bytes freed."""
    num_bytes = 0
    for part in find_cache().glob(".*.*.part"):
        with suppress(OSError):  # another process has removed it
            if is_left(part):
                num_bytes += _size(part)
                _remove(part)
                num_bytes -= _size(part)
    return num_bytes


def _size(folder: Path) -> int:
    num_bytes = 0
    for file in folder.rglob("*"):
        with suppress(OSError):  # without locks, another process may remove it
            num_bytes += file.stat().st_size if file.is_file() else 0
    return num_bytes


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _remove(path: Path) -> None:
    """Remove an entry, renaming it first so that nobody opens a partial one."""
    gone = name_part(path)
    if path.is_file():
        path.unlink(missing_ok=True)
        return
    with suppress(OSError):
        path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)

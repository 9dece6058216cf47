"""Images that were read once, in a cache on the disk: raw pixels, of which processes read what they need.

An entry is a folder: `images.bin`, (N, C, H, W) uint8; `labels.npy`, (N,) int64; `entry.json`, what they are, with a
SHA-256 over both. It is made beside its place under a lock and then renamed, so that two processes read a source once,
and a killed one leaves nothing that looks whole. Its name covers the source, its files' names and versions, the split
and the size of the images. When it has become too large, what was not used for longest goes first.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from reslab.data.archive import writing
from reslab.data.blocks import Block, Source, resize, version_of
from reslab.data.pixels import SMALL, Stored
from reslab.data.spec import Labelled, Split
from reslab.errors import Failure, UserError

try:
    import fcntl
except ImportError:  # Windows: two processes read a source twice, and one of them is as good as the other
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
CONTENTS = ("images.bin", "labels.npy")
GIGABYTE = 10**9
LIMIT = 100  # gigabytes


@dataclass(frozen=True)
class Entry:
    """A set of images in the cache; `num_bytes` on the disk, `used` in seconds since 1970."""

    path: Path
    origin: str
    split: str
    shape: tuple[int, ...]
    num_bytes: int
    used: float


def find_cache() -> Path:
    """Choose where images are kept: $RESLAB_CACHE, else a folder in the user's cache directory."""
    return Path(os.path.expanduser(os.environ.get("RESLAB_CACHE") or platformdirs.user_cache_path("reslab") / "images"))


def find_limit() -> int:
    """Give the bytes that the cache may take: $RESLAB_CACHE_GB gigabytes. Raises: UserError where that is no number."""
    text = os.environ.get("RESLAB_CACHE_GB") or str(LIMIT)
    try:
        limit = int(float(text) * GIGABYTE)
    except (ValueError, OverflowError):
        limit = 0
    if limit <= 0:
        raise UserError(f"RESLAB_CACHE_GB={text}: set it to the gigabytes that the cache may take, for example {LIMIT}")
    return limit


def read_cached(source: Source, *, origin: str, split: Split, image_size: int) -> Labelled:
    """Give the images of `source`, squares of `image_size` pixels, from the cache; they are put there if need be.

    Few images are read into memory, many stay in their file. Raises: UserError or Failure where the disk cannot take
    them, and what reading the source raises.
    """
    identity = json.dumps([FORMAT, origin, split, image_size, source.stamp, source.classes])
    path = find_cache() / hashlib.sha256(identity.encode(errors="surrogatepass")).hexdigest()[:32]
    writing(path.parent, lambda: path.parent.mkdir(parents=True, exist_ok=True))
    with _locked(path):
        if not _is_sound(path):
            _make(path, source, origin=origin, split=split, image_size=image_size)
        with suppress(OSError):
            os.utime(path / "entry.json")
        return _open(path, source.classes)


def list_cache() -> list[Entry]:
    """Find the entries, the one used last first; what cannot be read is left out."""
    found = []
    for file in find_cache().glob("*/entry.json"):
        with suppress(OSError, ValueError, LookupError, TypeError):
            facts = json.loads(file.read_text(encoding="utf-8"))
            size = sum(each.stat().st_size for each in file.parent.iterdir())
            shape = tuple(int(axis) for axis in facts["shape"])
            found.append(
                Entry(file.parent, str(facts["origin"]), str(facts["split"]), shape, size, file.stat().st_mtime)
            )
    return sorted(found, key=lambda entry: -entry.used)


def clear_cache() -> int:
    """Take all entries away, and what killed processes have left; returns the bytes. Who has one open keeps it."""
    num_bytes = 0
    for lock in list(find_cache().glob(".*.lock")):
        path = lock.with_name(lock.name[1 : -len(".lock")])
        with _locked(path):
            for folder in (path, *path.parent.glob(f".{path.name}.*.part")):
                num_bytes += sum(each.stat().st_size for each in folder.glob("*"))
                _remove(folder)
            lock.unlink(missing_ok=True)
    return num_bytes


# ---- one entry


def _open(path: Path, classes: tuple[str, ...]) -> Labelled:
    shape = tuple(_read_facts(path)["shape"])
    labels: NDArray[np.int64] = np.load(path / "labels.npy", allow_pickle=False)
    if int(np.prod(shape, dtype=np.int64)) < SMALL:
        return Labelled(np.fromfile(path / "images.bin", dtype=np.uint8).reshape(shape), labels, classes)
    return Labelled(Stored(path / "images.bin", shape), labels, classes)


def _read_facts(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((path / "entry.json").read_text(encoding="utf-8"))
    return facts


def _is_sound(path: Path) -> bool:
    """Look whether an entry is there and what it was when it was made."""
    try:
        versions = [version_of((path / name).stat()) for name in CONTENTS]
        return bool(_digest(path, *versions) == _read_facts(path)["sha256"])
    except (OSError, ValueError, LookupError, TypeError):
        return False


@cache
def _digest(path: Path, *versions: tuple[int, ...]) -> str:
    """Read an entry whole; for one version of its files once in a process."""
    digest = hashlib.sha256()
    for name in CONTENTS:
        with (path / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _make(path: Path, source: Source, *, origin: str, split: str, image_size: int) -> None:
    """Read the source into a folder beside `path`, and rename it."""
    for part in path.parent.glob(f".{path.name}.*.part"):  # of a process that was killed: we hold its lock
        _remove(part)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    writing(part, part.mkdir)
    try:
        shape, labels = _write_images(part / "images.bin", source, image_size=image_size)
        writing(part, lambda: np.save(part / "labels.npy", labels))
        facts = {"origin": origin, "split": split, "shape": shape, "sha256": _digest(part)}
        writing(part, lambda: (part / "entry.json").write_text(json.dumps(facts, indent=1), encoding="utf-8"))
        _remove(path)  # one that was damaged
        try:
            writing(path, lambda: part.rename(path))
        except Failure:
            if not _is_sound(path):  # it is where there are no locks, and somebody else was faster
                raise
    finally:
        _remove(part)
        _digest.cache_clear()


def _write_images(path: Path, source: Source, *, image_size: int) -> tuple[list[int], NDArray[np.int64]]:
    labels = np.full(source.num_images, -1, dtype=np.int64)
    channels = 0
    with writing(path, lambda: path.open("wb")) as file:
        for block in source.blocks:
            images = resize(block.images, image_size)
            if not channels:
                channels = images.shape[1]
                make_room(source.num_images * channels * image_size**2, origin=path)
            labels[block.places] = block.labels
            writing(path, lambda images=images, block=block: _write_block(file, images, block))  # type: ignore[misc]
        writing(path, file.flush)
    if (labels < 0).any():
        raise Failure(f"{path.name}: {int((labels < 0).sum())} images of the source never came")
    return [source.num_images, channels, image_size, image_size], labels


def _write_block(file: Any, images: NDArray[np.uint8], block: Block) -> None:
    """Write each run of images that follow on each other at once."""
    for run in np.split(np.arange(len(images)), np.flatnonzero(np.diff(block.places) != 1) + 1):
        file.seek(int(block.places[run[0]]) * images[0].nbytes)
        file.write(np.ascontiguousarray(images[run[0] : run[-1] + 1]).data)


# ---- room, and one writer


def make_room(num_bytes: int, *, origin: Path) -> None:
    """Take entries away until `num_bytes` more fit. Raises: UserError where they never would."""
    entries, limit = list_cache(), find_limit()
    while entries and (
        sum(entry.num_bytes for entry in entries) + num_bytes > limit or _free(origin.parent) < num_bytes
    ):
        with suppress(BlockingIOError), _locked((oldest := entries.pop()).path, wait=False):
            _remove(oldest.path)
    room = min(limit, _free(origin.parent))
    if num_bytes > room:
        raise UserError(
            f"the images need {num_bytes / GIGABYTE:.1f} GB of the cache in {find_cache()}, which has room for "
            f"{room / GIGABYTE:.1f}: set RESLAB_CACHE to a folder on a larger disk or RESLAB_CACHE_GB higher, or "
            "stream them from shards (--set stream=10000)"
        )


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _remove(path: Path) -> None:
    """Take an entry away: renamed first, so that nobody opens half of one."""
    gone = path.with_name(f".{path.name.strip('.')}.{os.getpid()}.gone.part")
    if path.is_file():
        path.unlink(missing_ok=True)
        return
    with suppress(OSError):
        path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Be the only one who makes, opens or removes an entry; who comes later waits, or gets a BlockingIOError."""
    lock = path.with_name(f".{path.name}.lock")
    handle: int = writing(lock, lambda: os.open(lock, os.O_RDWR | os.O_CREAT, 0o666))
    try:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError:  # a network disk without locks
                pass
        yield
    finally:
        os.close(handle)

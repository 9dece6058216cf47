"""Read the official CIFAR batches: checked by SHA-256, unpickled without running code, then checked again.

A batch is a Python 2 pickle of a dict with `data`, (N, 3072) uint8 in planes R, G, B of 32x32, and lists of N labels.
Axes: N images, C channels, H rows, W columns.
"""

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import platformdirs
from numpy.typing import NDArray

from reslab.data.images import Labelled
from reslab.data.sources.archive import Archive, Member, complain, read_checked, unpack
from reslab.data.sources.catalog import OFFICIAL, Cifar
from reslab.data.sources.fetch import fetch
from reslab.data.storage.locks import discard_lock, locked
from reslab.errors import UserError, naming_problem
from reslab.records import SplitName
from reslab.runs.files import make_folder

SIDE, CHANNELS = 32, 3
# All that an official batch needs: the functions that build a NumPy array.
_reconstruct = np.empty(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class Check(NamedTuple):
    """Result of `verify` for one file; `file` is relative to the data directory."""

    file: str
    status: Literal["ok", "damaged", "absent"]
    detail: str


def find_data_dir(data_dir: Path | None = None) -> Path:
    """Return the data directory: the argument, else $RESLAB_DATA, else the user's cache directory.

    For a folder of unpacked batches, return its parent.
    """
    chosen = data_dir or os.environ.get("RESLAB_DATA") or platformdirs.user_cache_dir("reslab")
    path = Path(os.path.expanduser(chosen))
    is_inside = path.is_dir() and path.name in {cifar.archive.folder for cifar in OFFICIAL.values()}
    return path.absolute().parent if is_inside else path


def where_is(archive: Archive, folder: Path) -> Path | None:
    """Return the folder of an archive's unpacked files, else the archive itself; None if neither is in `folder`."""
    unpacked, packed = folder / archive.folder, folder / archive.name
    if all((unpacked / member.name).exists() for member in archive.members):
        return unpacked
    return packed if packed.exists() else None


def read_cifar(cifar: Cifar, *, split: SplitName, data_dir: Path) -> Labelled:
    """Read one split, (N, 3, 32, 32), from the unpacked batches, else from the archive, else from the network.

    Raises: UserError if a file is damaged; Failure if it is missing and cannot be downloaded.
    """
    names = cifar.test if split == "test" else cifar.train
    batches = [_read_batch(cifar, name, data_dir) for name in names]
    images = np.concatenate([images for images, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    return Labelled(images, labels, cifar.classes)


def _read_batch(cifar: Cifar, name: str, data_dir: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    archive = cifar.archive
    path = data_dir / archive.folder / name
    if not path.exists():
        _provide(archive, data_dir, missing=path)
    content = unpickle(read_checked(path, archive.member(name)), where=path)
    return _check_batch(content, cifar, path)


def _provide(archive: Archive, data_dir: Path, *, missing: Path) -> None:
    """Download and unpack an archive, unless another process does so while this one waits."""
    make_folder(data_dir)
    packed = data_dir / archive.name
    with locked(packed):
        try:
            if not missing.exists():
                if not packed.exists():
                    fetch(archive, data_dir)
                unpack(archive, data_dir)
        finally:
            discard_lock(packed)


def _check_batch(content: Any, cifar: Cifar, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images = content.get(b"data") if isinstance(content, dict) else None
    if not (isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 2):
        raise UserError(f"{path} is not an official batch: it has no uint8 array b'data' of two axes")
    if images.shape[1] != CHANNELS * SIDE * SIDE:
        raise UserError(f"{path} is not an official batch: its images have {images.shape[1]} values, not 3072")
    labels, num_classes = content.get(cifar.label_key), len(cifar.classes)
    if not (isinstance(labels, list) and len(labels) == len(images)):
        raise UserError(f"{path} is not an official batch: {cifar.label_key!r} is not a list of {len(images)} labels")
    if not all(isinstance(label, int) and 0 <= label < num_classes for label in labels):
        raise UserError(
            f"{path} is not an official batch: {cifar.label_key!r} has labels outside 0 to {num_classes - 1}"
        )
    return images.reshape(-1, CHANNELS, SIDE, SIDE), np.array(labels, dtype=np.int64)


class _BatchUnpickler(pickle._Unpickler):
    """An unpickler that allows three names and refuses all others.

    It is the Python implementation, because the one in C allocates gigabytes if a few bytes name a large memo index.
    """

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no official batch needs")
        found: Callable[..., Any] = _ALLOWED[module, name]
        return found


def unpickle(content: bytes, *, where: Path) -> Any:
    """Unpickle a Python 2 batch, strings as bytes. Raises: UserError if it needs more than NumPy arrays."""
    with naming_problem(f"{where} is not an official batch"):
        return _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()


def verify(data_dir: Path | None = None) -> list[Check]:
    """Check the size and SHA-256 of every official archive and batch in `data_dir`; change nothing."""
    folder = find_data_dir(data_dir)
    archives = {cifar.archive.name: cifar.archive for cifar in OFFICIAL.values()}
    return [check for archive in archives.values() for check in _verify_archive(archive, folder)]


def _verify_archive(archive: Archive, folder: Path) -> list[Check]:
    checks = []
    expectations: list[Archive | Member] = [archive, *archive.members]
    for expected in expectations:
        file = expected.name if expected is archive else f"{archive.folder}/{expected.name}"
        if not (folder / file).exists():
            checks.append(Check(file, "absent", f"{expected.num_bytes:,} bytes"))
        elif problem := complain(folder / file, expected):
            checks.append(Check(file, "damaged", problem))
        else:
            checks.append(Check(file, "ok", f"{expected.num_bytes:,} bytes"))
    return checks

"""Array files by format: .npz archives, .npy files, MNIST's idx, CIFAR's .bin, and .mat.

Each becomes named arrays that are read a few rows at a time; objects stored in a file are never built.
"""

import gzip
import math
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from reslab.data.pictures import list_visible
from reslab.data.pixels import BLOCK
from reslab.data.sources.catalog import CIFAR10_CLASSES
from reslab.data.sources.folder import split_in
from reslab.errors import UserError
from reslab.runs.files import check_size, check_sizes
from reslab.words import listing

Rows = Iterator[NDArray[Any]]


@dataclass(frozen=True)
class StoredArray:
    """An array (N, …) in a file that can be read block by block."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Rows]

    def read(self) -> NDArray[Any]:
        return np.concatenate(list(self.blocks())) if self.shape and self.shape[0] else np.empty(self.shape, self.dtype)


@dataclass(frozen=True)
class ArrayFile:
    """Arrays by name, and the files that they come from."""

    arrays: Mapping[str, StoredArray]
    files: tuple[Path, ...]


def open_arrays(path: Path) -> ArrayFile:
    """Open an array file or a folder of them. Raises: UserError if it is neither, or cannot be read."""
    with sound(path, "array file"):
        return _open(path)


def _open(path: Path) -> ArrayFile:
    folder = path if path.is_dir() else path.parent
    name = path.name.lower()
    if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".joblib")):
        raise UserError(
            f"{path} is a pickle, which can run any code when it is opened, so reslab does not: save its arrays with "
            "numpy.savez and read that"
        )
    if name.endswith(".parquet"):
        raise UserError(f"{path} is a table: read it with csv:{path}")
    path.stat()  # others beside it are not what was asked for
    if path.is_dir() or not name.endswith((".npz", ".mat")):
        for find in (_find_npy, _find_idx, _find_bin):
            if found := find(folder, path):
                return found
    if path.is_dir() and (mats := list_visible(folder, "*.mat")):
        return _open_mats(mats)
    if name.endswith(".mat"):
        return _open_mats(sorted({path, *_other_splits(path)}))
    if path.is_dir():
        below = [each for each in sorted(path.iterdir()) if each.is_dir() and _has_arrays(each)]
        hint = f"did you mean npz:{below[0]}?" if below else "give npz: a file, or the folder that holds its files"
        raise UserError(f"{path.absolute()} is a folder without arrays of a known kind: {hint}")
    return _open_npz(path)


def _has_arrays(folder: Path) -> bool:
    there = folder.iterdir() if os.access(folder, os.R_OK | os.X_OK) else ()
    return any(each.suffix in (".npy", ".bin", ".mat", ".gz") or "-ubyte" in each.name for each in there)


@contextmanager
def sound(path: Path, kind: str) -> Iterator[None]:
    """Turn errors while reading a file in the block into a UserError that says what is invalid."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path.absolute()} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # NumPy's and zipfile's readers raise anything on broken input
        raise UserError(f"{path} is not a valid {kind}: {error}") from None


# ---- NumPy's

_NPZ = ".npz archive of plain arrays"


def _open_npz(path: Path) -> ArrayFile:
    with _archive(path) as file:
        names = file.files
        return ArrayFile({name: _member(path, file, name) for name in names}, (path,))


@contextmanager
def _archive(path: Path) -> Iterator[NpzFile]:
    with sound(path, _NPZ), path.open("rb") as stream:
        file = np.load(stream, allow_pickle=False)
        if not isinstance(file, NpzFile) or file.zip is None:
            raise UserError(f"{path} holds a single array and is not an .npz archive: write one with numpy.savez")
        check_sizes(file.zip)
        yield file


def _member(path: Path, file: NpzFile, name: str) -> StoredArray:
    assert file.zip is not None
    inner = name if name in file.zip.namelist() else f"{name}.npy"

    def blocks() -> Rows:
        with _archive(path) as again:
            assert again.zip is not None
            with again.zip.open(inner) as stream:
                yield from _read_npy(stream, name)

    with file.zip.open(inner) as stream:
        shape, _, dtype = _read_header(stream)
    return StoredArray(shape, dtype, blocks)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)


def _read_npy(stream: IO[bytes], name: str) -> Rows:
    shape, is_fortran, dtype = _read_header(stream)
    if not is_fortran:
        yield from _read_rows(stream, name, shape, dtype)
        return
    # Fortran order: the whole array has to be read.
    whole = np.concatenate(list(_read_rows(stream, name, (math.prod(shape),), dtype)))
    yield whole.reshape(shape[::-1]).T


def _read_rows(stream: IO[bytes], name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Rows:
    row_bytes = math.prod(shape[1:]) * dtype.itemsize
    num_rows = shape[0] if shape else 0
    step = max(1, BLOCK // max(1, row_bytes))
    for start in range(0, num_rows, step):
        num = min(step, num_rows - start)
        content = stream.read(num * row_bytes)
        if len(content) < num * row_bytes:
            raise ValueError(f"{name} ends after {start + len(content) // row_bytes} of {num_rows} images")
        yield np.frombuffer(content, dtype=dtype).reshape(num, *shape[1:])
    if stream.read(1):
        raise ValueError(f"{name} is longer than its {num_rows} images")


def _find_npy(folder: Path, path: Path) -> ArrayFile | None:
    """Take all .npy files of a folder as one set of arrays."""
    files = list_visible(folder, "*.npy") if path.is_dir() or path.suffix.lower() == ".npy" else []
    return ArrayFile({file.stem: _open_npy(file) for file in files}, tuple(files)) if files else None


def _open_npy(path: Path) -> StoredArray:
    def blocks() -> Rows:
        with sound(path, ".npy file"), path.open("rb") as stream:
            yield from _read_npy(stream, path.name)

    with sound(path, ".npy file"), path.open("rb") as stream:
        shape, _, dtype = _read_header(stream)
    return StoredArray(shape, dtype, blocks)


# ---- MNIST's

_IDX = re.compile(r"(.*-)?(train|t10k|test)-(images|labels)[.-]idx[13]-ubyte(\.gz)?")


def _find_idx(folder: Path, path: Path) -> ArrayFile | None:
    prefix = _IDX.fullmatch(path.name)
    found = {}
    sets: dict[str | None, str] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() and (path.is_dir() or prefix) else []:
        if (match := _IDX.fullmatch(file.name)) and (prefix is None or match[1] == prefix[1]):
            if match[3] == "images" or match[1] not in sets:
                sets[match[1]] = f"npz:{file}"
            name = f"{'train' if match[2] == 'train' else 'test'}_{match[3]}"
            if name in found and file.suffix == ".gz":
                continue  # the unpacked file is there too
            found[name] = file
    if len(sets) > 1:
        raise UserError(f"{path} holds {len(sets)} sets of idx files: give one of them, {listing(list(sets.values()))}")
    return ArrayFile({name: _open_idx(file) for name, file in found.items()}, tuple(found.values())) if found else None


def _open_idx(path: Path) -> StoredArray:
    def opened() -> IO[bytes]:
        return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]

    def header(stream: IO[bytes]) -> tuple[int, ...]:
        zeros, kind, num_axes = struct.unpack(">HBB", stream.read(4))
        if zeros or kind != 8 or not 1 <= num_axes <= 3:
            raise ValueError("it does not begin as one of bytes")
        return struct.unpack(f">{num_axes}I", stream.read(4 * num_axes))

    def blocks() -> Rows:
        with sound(path, "idx file"), opened() as stream:
            yield from _read_rows(stream, path.name, header(stream), np.dtype(np.uint8))

    with sound(path, "idx file"), opened() as stream:
        shape = header(stream)
        check_size(path.name, math.prod(shape), on_disk=path.stat().st_size)
    return StoredArray(shape, np.dtype(np.uint8), blocks)


# ---- CIFAR's

_SIDE, _COLOURS = 32, 3


def _find_bin(folder: Path, path: Path) -> ArrayFile | None:
    if not path.is_dir() and path.suffix != ".bin":
        return None
    train = sorted(folder.glob("data_batch_*.bin")) or sorted(folder.glob("train.bin"))
    test = [file for file in (folder / "test_batch.bin", folder / "test.bin") if file.exists()]
    if not train and not test:
        return None
    num_labels = 2 if (folder / "fine_label_names.txt").exists() else 1  # CIFAR-100 has a coarse one before
    arrays = _records(train, num_labels, "train") | _records(test, num_labels, "test")
    names = folder / ("fine_label_names.txt" if num_labels == 2 else "batches.meta.txt")
    if names.exists():
        with sound(names, "list of names"):
            arrays["classes"] = _in_memory(np.array(names.read_text(encoding="utf-8").split()))
    return ArrayFile(arrays, (*train, *test))


def _records(files: Sequence[Path], num_labels: int, split: str) -> dict[str, StoredArray]:
    if not files:
        return {}
    size = num_labels + _COLOURS * _SIDE**2
    num = 0
    for file in files:
        if (rest := file.stat().st_size) % size:
            raise UserError(f"{file} is not a valid batch of CIFAR: {rest:,} bytes are not a multiple of {size}")
        num += rest // size

    def blocks() -> Rows:
        for file in files:
            with sound(file, "batch of CIFAR"), file.open("rb") as stream:
                yield from _read_rows(stream, file.name, (file.stat().st_size // size, size), np.dtype(np.uint8))

    def images() -> Rows:
        return (rows[:, num_labels:].reshape(-1, _COLOURS, _SIDE, _SIDE) for rows in blocks())

    def labels() -> Rows:
        return (rows[:, num_labels - 1] for rows in blocks())

    kind = np.dtype(np.uint8)
    return {
        f"{split}_images": StoredArray((num, _COLOURS, _SIDE, _SIDE), kind, images),
        f"{split}_labels": StoredArray((num,), kind, labels),
    }


# ---- MATLAB's


def _other_splits(path: Path) -> list[Path]:
    """Find the files of other splits beside `train_32x32.mat` and the like, by their names."""
    names = [path.name.replace(old, new) for old, new in (("train", "test"), ("test", "train")) if old in path.name]
    batches = path.parent.glob("data_batch_*.mat") if re.fullmatch(r"(data|test)_batch.*\.mat", path.name) else ()
    near = [*(path.with_name(name) for name in (*names, "test_batch.mat")), *batches]
    return [file for file in near if file.exists() and (file.name in names or "batch" in path.name)]


def _open_mats(files: Sequence[Path]) -> ArrayFile:
    """Read plain arrays from MATLAB files up to version 7: CIFAR's, SVHN's, or any with known names."""
    parts: dict[str, list[NDArray[Any]]] = {}
    for file in files:
        if file.name == "batches.meta.mat":
            continue
        split = split_in(file) or ("train" if "batch" in file.name else "")
        for name, array in _read_mat(file).items():
            rows = array.transpose(3, 0, 1, 2) if name == "X" and array.ndim == 4 else array
            if name == "data" and array.shape[1:] == (_COLOURS * _SIDE**2,):  # CIFAR's, one colour plane after another
                rows = array.reshape(-1, _COLOURS, _SIDE, _SIDE)
            parts.setdefault(f"{split}_{name}" if split else name, []).append(rows)
    arrays = {name: np.concatenate(each) for name, each in parts.items()}
    if any(file.name.startswith(("data_batch_", "test_batch")) for file in files):
        arrays["classes"] = np.array(CIFAR10_CLASSES)
    return ArrayFile({name: _in_memory(array) for name, array in arrays.items()}, tuple(files))


def _in_memory(array: NDArray[Any]) -> StoredArray:
    return StoredArray(array.shape, array.dtype, lambda: iter([array]))


def _read_mat(path: Path) -> dict[str, NDArray[Any]]:
    from scipy.io import loadmat, whosmat

    with sound(path, ".mat file of version 7 or before"):
        known = whosmat(path)
        plain = [name for name, _, kind in known if kind not in ("cell", "struct", "object", "function", "opaque")]
        num_bytes = sum(8 * math.prod(shape) for name, shape, _ in known if name in plain)
        check_size(path.name, num_bytes, on_disk=8 * path.stat().st_size)  # its kinds take one to eight bytes
        return {name: array for name, array in loadmat(path, variable_names=plain).items() if name in plain}

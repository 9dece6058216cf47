"""Images in a NumPy archive, read without unpickling anything.

Two layouts: `images`, `labels` and, if there is a split, `test_images`, `test_labels`; or Keras' `x_train`, `y_train`,
`x_test`, `y_test`. Images are uint8, (N, H, W) or (N, H, W, C) with up to four channels; labels are integers from 0,
(N,) or (N, 1). `classes`, (K,) strings, names them; without it they are called by their numbers. Without test arrays,
20 % of each class is cut off for the test split.
"""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from reslab.data.images import Split
from reslab.data.pixels import BLOCK
from reslab.data.split import cut
from reslab.data.storage.blocks import Block, Source, in_order, stamp_files
from reslab.errors import UserError
from reslab.runs.files import check_sizes

MAX_CHANNELS = 4
MAX_UNNAMED = 100_000  # classes that are called by their numbers


class _Layout(NamedTuple):
    images: str
    labels: str
    test_images: str
    test_labels: str


_LAYOUTS = (
    _Layout("images", "labels", "test_images", "test_labels"),
    _Layout("x_train", "y_train", "x_test", "y_test"),
)


def open_npz(path: Path, *, split: Split) -> Source:
    """Read the labels of one split; its blocks are (M, C, H, W).

    Raises: UserError that names the array at fault and what it should be, some only when the blocks are read.
    """
    with _archive(path) as file:
        stamp = stamp_files([path])
        layout = _find_layout(file, path)
        labels = _read_labels(file, layout.labels, path)
        classes = _read_classes(file, labels, path)
        _check_range(labels, layout.labels, len(classes), path)
        if layout.test_images not in file:
            _check_images(_header(file, layout.images), layout.images, len(labels), path)
            chosen = cut(labels, classes=classes, split=split)
            return Source(len(chosen), classes, _read_blocks(path, layout.images, labels, chosen), stamp)
        name = layout.test_images if split == "test" else layout.images
        if split == "test":
            labels = _read_labels(file, layout.test_labels, path)
            _check_range(labels, layout.test_labels, len(classes), path)
        _check_images(_header(file, name), name, len(labels), path)
        return Source(len(labels), classes, _read_blocks(path, name, labels, np.arange(len(labels))), stamp)


@contextmanager
def _archive(path: Path) -> Iterator[NpzFile]:
    """Open an archive. Raises: UserError where it, or what is read of it in the block, is not sound."""
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, NpzFile) or file.zip is None:
                raise UserError(f"{path} holds a single array, it is not an .npz archive: write one with numpy.savez")
            check_sizes(file.zip)
            yield file
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # NumPy's and zipfile's readers raise anything on broken input
        raise UserError(f"{path} is not a sound .npz archive of plain arrays: {error}") from None


def _find_layout(file: NpzFile, path: Path) -> _Layout:
    for layout in _LAYOUTS:
        if layout.images in file and layout.labels in file:
            if (layout.test_images in file) != (layout.test_labels in file):
                raise UserError(
                    f"{path} holds only one of {layout.test_images!r} and {layout.test_labels!r}: it needs both"
                )
            return layout
    raise UserError(f"{path} holds {', '.join(file.files)}: it needs 'images' and 'labels', or 'x_train' and 'y_train'")


class _Header(NamedTuple):
    """What a stored array says of itself."""

    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]


def _header(file: NpzFile, name: str) -> _Header:
    with _member(file, name) as stream:
        return _read_header(stream)


def _member(file: NpzFile, name: str) -> IO[bytes]:
    assert file.zip is not None
    return file.zip.open(name if name in file.zip.namelist() else f"{name}.npy")


def _read_header(stream: IO[bytes]) -> _Header:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    header = _Header(*read(stream))
    if header.dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded: they are pickles")
    return header


def _check_images(images: _Header, name: str, num: int, path: Path) -> None:
    if images.dtype != np.uint8:
        raise UserError(f"{path}: {name!r} is {images.dtype}, it must be uint8 (0 to 255)")
    dims = len(images.shape)
    if dims not in (3, 4) or 0 in images.shape or (dims == 4 and images.shape[3] > MAX_CHANNELS):
        raise UserError(
            f"{path}: {name!r} has shape {images.shape}, it must be (N, H, W) or (N, H, W, C) with C up to 4"
        )
    if images.shape[0] != num:
        raise UserError(
            f"{path}: {name!r} has {images.shape[0]} images but there are {num} labels: they must be as many"
        )


def _read_blocks(path: Path, name: str, labels: NDArray[np.int64], chosen: NDArray[np.int64]) -> Iterator[Block]:
    """Give the images at the places `chosen`, in rising order, of an array that is read as a stream."""
    done = 0
    with _archive(path) as file:
        for start, rows in _read_rows(file, name):
            inside = chosen[done : np.searchsorted(chosen, start + len(rows))]
            if len(inside):
                channels_last = rows if rows.ndim == 4 else rows[..., None]
                images = np.ascontiguousarray(channels_last[inside - start].transpose(0, 3, 1, 2))
                yield in_order(images, labels[inside], start=done)
                done += len(inside)


def _read_rows(file: NpzFile, name: str) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Give a few images at a time, with the place of the first one."""
    with _member(file, name) as stream:
        header = _read_header(stream)
        if header.is_fortran:  # the last axis comes first: there is no way but to read all of it
            yield 0, file[name]
            return
        image_bytes = math.prod(header.shape[1:])
        step = max(1, BLOCK // image_bytes)
        for start in range(0, header.shape[0], step):
            num = min(step, header.shape[0] - start)
            content = stream.read(num * image_bytes)
            if len(content) < num * image_bytes:
                raise ValueError(f"{name} ends after {start + len(content) // image_bytes} of {header.shape[0]} images")
            yield start, np.frombuffer(content, dtype=np.uint8).reshape(num, *header.shape[1:])
        if stream.read(1):
            raise ValueError(f"{name} is longer than its {header.shape[0]} images")


def _read_labels(file: NpzFile, name: str, path: Path) -> NDArray[np.int64]:
    labels: NDArray[Any] = file[name]
    if labels.dtype.kind not in "iu":
        raise UserError(f"{path}: {name!r} is {labels.dtype}, it must be of integers")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or len(labels) == 0:
        raise UserError(f"{path}: {name!r} has shape {labels.shape}, it must be (N,) with at least one label")
    return labels.astype(np.int64)


def _read_classes(file: NpzFile, labels: NDArray[np.int64], path: Path) -> tuple[str, ...]:
    if "classes" not in file:
        if (highest := int(labels.max())) >= MAX_UNNAMED:
            raise UserError(f"{path}: there is a label {highest}: number the classes from 0 without gaps")
        return tuple(str(label) for label in range(highest + 1))
    classes: NDArray[Any] = file["classes"]
    if classes.ndim != 1 or classes.dtype.kind != "U":
        raise UserError(f"{path}: 'classes' is {classes.dtype} {classes.shape}, it must be strings of shape (K,)")
    names = [str(name) for name in classes]
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{path}: 'classes' has {repeated[0]!r} twice, each class needs a name of its own")
    return tuple(names)


def _check_range(labels: NDArray[np.int64], name: str, num_classes: int, path: Path) -> None:
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= num_classes:
        wrong = lowest if lowest < 0 else highest
        raise UserError(f"{path}: {name!r} has the label {wrong}, labels must be 0 to {num_classes - 1}")

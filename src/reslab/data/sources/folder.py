"""Pictures in folders, a folder per class: PATH/train/CLASS/* and PATH/test/CLASS/*, or PATH/CLASS/* for both splits.

PNG, JPEG, JPEG 2000, GIF, BMP, TIFF, WebP, PPM and TGA, told by the file's ending; other files, hidden ones and folders
inside a class are left out, and so is whatever lies beside train/ and test/. Each picture is turned as its EXIF data
says, laid on white where it is transparent, made RGB and resized to a square straight away, without keeping its
proportions. Of a moving picture the first frame counts. Without a test/ folder, 20 % of each class is cut off for the
test split.
"""

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reslab.data.images import Split
from reslab.data.pictures import FORMATS, decode
from reslab.data.split import cut
from reslab.data.storage.blocks import Block, Source, in_order, stamp_files
from reslab.errors import UserError

WORKERS = min(8, os.cpu_count() or 1)
BLOCK = 256  # pictures at a time


def open_folder(path: Path, *, split: Split, image_size: int) -> Source:
    """List one split; its blocks are (M, 3, image_size, image_size).

    Raises: UserError where the layout is not one of the two, a class is empty, or a picture is broken.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a folder: folder:PATH needs one that holds a folder of pictures for each class")
    if not _is_split(path / "train"):
        if _is_split(path / "test"):
            raise UserError(f"{path} holds test/ but no train/ with a folder of pictures for each class")
        return _open_cut(path, split, image_size)
    if not _is_split(path / "test"):
        return _open_cut(path / "train", split, image_size)
    classes, others = _subfolders(path / "train"), _subfolders(path / "test")
    if different := sorted(set(classes) ^ set(others)):
        raise UserError(f"{path}/train and {path}/test must hold the same classes, but only one has {different[0]!r}")
    files, labels = _list_files(path / split)
    return Source(len(files), classes, _decode_all(files, labels, image_size), stamp_files(files))


def _open_cut(path: Path, split: Split, image_size: int) -> Source:
    files, labels = _list_files(path)
    classes = _subfolders(path)
    chosen = cut(labels, classes=classes, split=split)
    some = [files[place] for place in chosen]
    return Source(len(some), classes, _decode_all(some, labels[chosen], image_size), stamp_files(some))


def _is_split(path: Path) -> bool:
    """Tell a folder of classes from a class that happens to be called `train` or `test`."""
    return path.is_dir() and bool(_subfolders(path))


def _subfolders(path: Path) -> tuple[str, ...]:
    return tuple(each.name for each in _list(path) if each.is_dir() and not each.name.startswith("."))


def _list(path: Path) -> list[Path]:
    try:
        return sorted(path.iterdir())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _list_files(path: Path) -> tuple[list[Path], NDArray[np.int64]]:
    """List the pictures of every class, in the order of their names, with their labels."""
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(_subfolders(path)):
        found = [each for each in _list(path / name) if _is_picture(each)]
        if not found:
            raise UserError(f"{path / name} holds no picture: put some there, or remove the folder")
        files += found
        labels += [label] * len(found)
    if not files:
        raise UserError(f"{path} holds no pictures: folder:PATH needs a folder of pictures for each class in it")
    return files, np.array(labels, dtype=np.int64)


@cache
def _endings() -> frozenset[str]:
    formats = Image.registered_extensions()
    return frozenset(ending for ending, name in formats.items() if name in FORMATS)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _endings() and not path.name.startswith(".") and path.is_file()


def _decode_all(files: list[Path], labels: NDArray[np.int64], image_size: int) -> Iterator[Block]:
    with warnings.catch_warnings(), ThreadPoolExecutor(WORKERS) as pool:
        # Between 89 and 179 megapixels Pillow warns; above it refuses, which is the limit that counts here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for start in range(0, len(files), BLOCK):
            some = files[start : start + BLOCK]
            images = np.stack(list(pool.map(partial(decode, image_size=image_size), some)))
            yield in_order(images, labels[start : start + BLOCK], start=start)

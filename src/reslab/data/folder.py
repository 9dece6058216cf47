"""Pictures in folders, a folder per class: PATH/train/CLASS/* and PATH/test/CLASS/*, or PATH/CLASS/* for both splits.

PNG, JPEG, JPEG 2000, GIF, BMP, TIFF, WebP, PPM and TGA, told by the file's ending; other files, hidden ones and folders
inside a class are left out, and so is whatever lies beside train/ and test/. Each picture is turned as its EXIF data
says, laid on white where it is transparent, made RGB and resized to a square straight away, without keeping its
proportions. Of a moving picture the first frame counts. Without a test/ folder, 20 % of each class is cut off for the
test split.
"""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reslab.data.spec import Labelled, Split
from reslab.data.split import cut
from reslab.errors import UserError
from reslab.pictures import FORMATS, decode

WORKERS = min(8, os.cpu_count() or 1)


def read_folder(path: Path, *, split: Split, image_size: int) -> Labelled:
    """Read one split, (N, 3, image_size, image_size).

    Raises: UserError where the layout is not one of the two, a class is empty, or a picture is broken.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a folder: folder:PATH needs one that holds a folder of pictures for each class")
    if not _is_split(path / "train"):
        if _is_split(path / "test"):
            raise UserError(f"{path} holds test/ but no train/ with a folder of pictures for each class")
        return _read_cut(path, split, image_size)
    if not _is_split(path / "test"):
        return _read_cut(path / "train", split, image_size)
    classes, others = _subfolders(path / "train"), _subfolders(path / "test")
    if different := sorted(set(classes) ^ set(others)):
        raise UserError(f"{path}/train and {path}/test must hold the same classes, but only one has {different[0]!r}")
    files, labels = _list_files(path / split)
    return Labelled(_decode_all(files, image_size), labels, classes)


def _read_cut(path: Path, split: Split, image_size: int) -> Labelled:
    files, labels = _list_files(path)
    classes = _subfolders(path)
    chosen = cut(labels, classes=classes, split=split)
    return Labelled(_decode_all([files[place] for place in chosen], image_size), labels[chosen], classes)


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


def _decode_all(files: list[Path], image_size: int) -> NDArray[np.uint8]:
    images = np.empty((len(files), 3, image_size, image_size), dtype=np.uint8)
    with warnings.catch_warnings(), ThreadPoolExecutor(WORKERS) as pool:
        # Between 89 and 179 megapixels Pillow warns; above it refuses, which is the limit that counts here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for place, image in enumerate(pool.map(partial(decode, image_size=image_size), files)):
            images[place] = image
    return images

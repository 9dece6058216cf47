"""Images in a NumPy archive, read without unpickling anything.

Two layouts: `images`, `labels` and, if there is a split, `test_images`, `test_labels`; or Keras' `x_train`, `y_train`,
`x_test`, `y_test`. Images are uint8, (N, H, W) or (N, H, W, C) with up to four channels; labels are integers from 0,
(N,) or (N, 1). `classes`, (K,) strings, names them; without it they are called by their numbers. Without test arrays,
20 % of each class is cut off for the test split.
"""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from reslab.bombs import check_sizes
from reslab.data.spec import Labelled, Split
from reslab.data.split import cut
from reslab.errors import UserError

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


def read_npz(path: Path, *, split: Split) -> Labelled:
    """Read one split, (N, C, H, W). Raises: UserError that names the array at fault and what it should be."""
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if isinstance(file, NpzFile) and file.zip is not None:
                check_sizes(file.zip)
                return _read(file, split, path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # NumPy's and zipfile's readers raise anything on broken input
        raise UserError(f"{path} is not a sound .npz archive of plain arrays: {error}") from None
    raise UserError(f"{path} holds a single array, it is not an .npz archive: write one with numpy.savez")


def _read(file: NpzFile, split: Split, path: Path) -> Labelled:
    layout = _find_layout(file, path)
    labels = _read_labels(file, layout.labels, path)
    classes = _read_classes(file, labels, path)
    _check_range(labels, layout.labels, len(classes), path)
    if layout.test_images not in file:
        images = _read_images(file, layout.images, len(labels), path)
        chosen = cut(labels, classes=classes, split=split)
        return Labelled(images[chosen], labels[chosen], classes)
    if split == "test":
        labels = _read_labels(file, layout.test_labels, path)
        _check_range(labels, layout.test_labels, len(classes), path)
    name = layout.test_images if split == "test" else layout.images
    return Labelled(_read_images(file, name, len(labels), path), labels, classes)


def _find_layout(file: NpzFile, path: Path) -> _Layout:
    for layout in _LAYOUTS:
        if layout.images in file and layout.labels in file:
            if (layout.test_images in file) != (layout.test_labels in file):
                raise UserError(
                    f"{path} holds only one of {layout.test_images!r} and {layout.test_labels!r}: it needs both"
                )
            return layout
    raise UserError(f"{path} holds {', '.join(file.files)}: it needs 'images' and 'labels', or 'x_train' and 'y_train'")


def _read_images(file: NpzFile, name: str, num: int, path: Path) -> NDArray[np.uint8]:
    images: NDArray[Any] = file[name]
    if images.dtype != np.uint8:
        raise UserError(f"{path}: {name!r} is {images.dtype}, it must be uint8 (0 to 255)")
    if images.ndim not in (3, 4) or 0 in images.shape or (images.ndim == 4 and images.shape[3] > MAX_CHANNELS):
        raise UserError(
            f"{path}: {name!r} has shape {images.shape}, it must be (N, H, W) or (N, H, W, C) with C up to 4"
        )
    if len(images) != num:
        raise UserError(f"{path}: {name!r} has {len(images)} images but there are {num} labels: they must be as many")
    channels_last = images if images.ndim == 4 else images[..., None]
    return np.ascontiguousarray(channels_last.transpose(0, 3, 1, 2))


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

"""Interpretation of arrays as pixels, layouts and classes, for files and for scikit-learn.

Axes: N images, C channels, H rows, W columns, K classes. Pixels are uint8, 0 to 255.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reslab.data.pictures import WHITES

MAX_CHANNELS = 4
SMALLEST_COLOUR = 8  # pixels a side; shorter rows of 3 * side ** 2 numbers are not colour images
MOST_COMPARED = 100  # rows that decide on the order of their numbers; two photographs are enough


class PixelRange(NamedTuple):
    """A linear map of `low` to 0 and `high` to 255; values outside are clipped."""

    low: float
    high: float

    def apply(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        if (self.low, self.high) == (0, 255) and values.dtype == np.uint8:
            return values
        factor = 255 / ((self.high - self.low) or 1.0)
        return np.rint((values - self.low) * factor).clip(0, 255).astype(np.uint8)


def find_scale(dtype: np.dtype[Any], low: float, high: float, *, white: int | None = None) -> PixelRange:
    """Choose the values of black and white from the minimum and maximum of the training images.

    Integers of more than 8 bits run from 0 to `white` if it is given.
    Integers take the smallest of 8, 10, 12, 14 and 16 bits that holds them. Floats run from 0 to 1 or, if one is above
    127, to 255. All others are stretched from the minimum to the maximum.
    """
    if dtype.kind == "b":
        return PixelRange(0, 1)
    if white is not None and is_deep(dtype):
        return PixelRange(0, white)
    if dtype.kind in "iu":
        ranges = [white for white in WHITES if white >= 255]
    else:
        ranges = [1, 255] if high > 127 or high <= 1 else []
    top = next((top for top in ranges if low >= 0 and high <= top), None)
    return PixelRange(low, high) if top is None else PixelRange(0, top)


def is_deep(dtype: np.dtype[Any]) -> bool:
    """Return whether values are integers of more than 8 bits, whose white depends on their source."""
    return dtype.kind in "iu" and dtype.itemsize > 1


def find_white(dtype: np.dtype[Any], scale: PixelRange) -> int | None:
    """Return the value that becomes white if integers use more than 8 bits; None for all other arrays."""
    return int(scale.high) if is_deep(dtype) and scale.low == 0 and scale.high > 255 else None


def describe_scale(dtype: np.dtype[Any], scale: PixelRange) -> str | None:
    """Describe how values become pixels; None if they are pixels already."""
    if (scale.low, scale.high) == (0, 255):
        return None
    return f"{dtype} from {scale.low:g} (black) to {scale.high:g} (white), mapped to 0 to 255"


class Layout(NamedTuple):
    """Axis order of an image: (H, W), (H, W, C) or (C, H, W)."""

    shape: tuple[int, ...]
    channels_first: bool = False

    @property
    def channels(self) -> int:
        return 1 if len(self.shape) == 2 else self.shape[0 if self.channels_first else 2]

    def arrange(self, values: NDArray[Any]) -> NDArray[Any]:
        """Turn images of any shape into (N, C, H, W)."""
        images = values.reshape(-1, *self.shape)
        if images.ndim == 3:
            return images[:, None]
        return images if self.channels_first else images.transpose(0, 3, 1, 2)


def find_layout(
    shape: tuple[int, ...], *, image_shape: tuple[int, ...] | None = None, rows: NDArray[Any] | None = None
) -> Layout | None:
    """Infer the layout from an array's shape (N, …), channels last if ambiguous; None if it has no image shape.

    Rows of numbers (N, D) have `image_shape`, else are grey squares, else colour squares of 8 pixels or more a side,
    with channels last unless some of the `rows` show otherwise.
    """
    inner = shape[1:]
    if len(inner) == 1:
        return _find_flat(inner[0], image_shape, rows)
    if len(inner) == 2:
        return Layout(inner)
    if len(inner) == 3 and inner[2] <= MAX_CHANNELS:
        return Layout(inner)
    if len(inner) == 3 and inner[0] <= MAX_CHANNELS:
        return Layout(inner, channels_first=True)
    return None


def _find_flat(num: int, image_shape: tuple[int, ...] | None, rows: NDArray[Any] | None) -> Layout | None:
    if image_shape is not None:
        return Layout(image_shape) if math.prod(image_shape) == num else None
    side = math.isqrt(num)
    if side**2 == num:
        return Layout((side, side))
    side = math.isqrt(num // 3)
    if 3 * side**2 != num or side < SMALLEST_COLOUR:
        return None
    if rows is not None and len(rows) and _are_planes(rows[:MOST_COMPARED].astype(np.float64), side):
        return Layout((3, side, side), channels_first=True)
    return Layout((side, side, 3))


def _are_planes(rows: NDArray[np.float64], side: int) -> bool:
    """Tell rows (N, 3 * side ** 2) that are one colour plane after another, as CIFAR's, from rows of pixels.

    A pixel resembles those beside and below it, which are 1 and `side` numbers further in planes, and three times as
    far in rows of pixels. Noise, and grey that hardly changes along a row, count as pixels.
    """

    def difference(distance: int) -> float:
        return float(np.abs(rows[:, distance:] - rows[:, :-distance]).mean())

    return all(difference(distance) < 0.9 * difference(3 * distance) for distance in (1, side))


class Labels(NamedTuple):
    """Labels as stored: the value of each image (N,), as an integer or as a class name."""

    values: NDArray[Any]
    num_columns: int | None = None  # of one-hot labels

    def own_classes(self) -> list[Any]:
        """Return the classes that occur, in order."""
        return list(range(self.num_columns)) if self.num_columns else np.unique(self.values).tolist()


def read_labels(array: NDArray[Any]) -> Labels:
    """Parse integers (N,), (N, 1) or (1, N), names, or one-hot rows (N, K). Raises: ValueError saying what is wrong."""
    if array.ndim == 2 and 1 in array.shape:
        array = array.reshape(-1)
    if array.ndim == 2 and array.dtype.kind in "biuf":
        return _read_one_hot(array)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"has shape {array.shape}, it must be (N,) or one-hot (N, K), with at least one label")
    match array.dtype.kind:
        case "U" | "S":
            return Labels(read_names(array))
        case "b":
            return Labels(array.astype(np.int64))
        case "f" if (array == np.rint(array)).all():
            array = array.astype(np.int64)
        case "i" | "u":
            pass
        case _:
            raise ValueError(f"is {array.dtype}, it must be whole numbers or names")
    if (lowest := int(array.min())) < 0:
        raise ValueError(f"has the label {lowest}: labels are 0 or more")
    return Labels(array.astype(np.int64))


def read_names(array: NDArray[Any]) -> NDArray[Any]:
    """Return strings, decoding bytes. Raises: ValueError if they are neither."""
    if array.dtype.kind == "S":
        try:
            return np.char.decode(array, "utf-8")
        except UnicodeDecodeError:
            raise ValueError("holds bytes that are not UTF-8") from None
    if array.dtype.kind != "U":
        raise ValueError(f"is {array.dtype} {array.shape}, it must be strings of shape (K,)")
    return array


def _read_one_hot(array: NDArray[Any]) -> Labels:
    if not len(array):
        raise ValueError(f"has shape {array.shape}, it must have at least one label")
    is_one_hot = ((array == 0) | (array == 1)).all(axis=1) & (array.sum(axis=1) == 1)
    if not is_one_hot.all():
        row = int(np.flatnonzero(~is_one_hot)[0])
        raise ValueError(f"has shape {array.shape} but row {row} is not one-hot: an image is of one class alone")
    return Labels(array.argmax(axis=1).astype(np.int64), num_columns=array.shape[1])

"""Sheets of many small images, from which a page cuts what it shows; heat maps laid over images.

Axes: M images, C channels, H rows, W columns; h, w of a heat map.
"""

import io
import math

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reslab.data.pictures import to_rgb

LOSSLESS_UP_TO = 250_000  # bytes; above, a sheet is compressed with small losses
QUALITY = 80
HEAT_SIDE = 96  # pixels of an image with a heat map over it


def columns_of(num_images: int) -> int:
    """Return the number of columns of a sheet that is about square."""
    return max(1, math.isqrt(max(num_images - 1, 0)) + 1)


def make_sheet(images: NDArray[np.uint8]) -> tuple[str, bytes]:
    """Put images (M, C, H, W) side by side, row after row; return the kind, png or webp, and the bytes."""
    num, (rows, columns) = len(images), images.shape[2:]
    across = columns_of(num)
    down = -(-num // across)
    sheet = np.zeros((down * across, rows, columns, 3), np.uint8)
    sheet[:num] = to_rgb(images)
    pixels = sheet.reshape(down, across, rows, columns, 3).swapaxes(1, 2).reshape(down * rows, across * columns, 3)
    picture = Image.fromarray(pixels)
    lossless = _encode(picture, "PNG")
    return ("png", lossless) if len(lossless) <= LOSSLESS_UP_TO else ("webp", _encode(picture, "WEBP"))


def _encode(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, quality=QUALITY)
    return buffer.getvalue()


def overlay(image: NDArray[np.uint8], heat: NDArray[np.uint8]) -> bytes:
    """Lay a heat map (h, w) over an image (C, H, W) as WebP: the brighter, the more evidence for the class."""
    size = (HEAT_SIDE, max(1, round(HEAT_SIDE * image.shape[1] / image.shape[2])))
    pixels = np.ascontiguousarray(to_rgb(image))
    below = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST))
    smooth = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BICUBIC)) / 255
    color = 255 * matplotlib.colormaps["inferno"](smooth)[..., :3]
    grey = below.mean(axis=2, keepdims=True)
    mixed = 0.45 * grey + 0.55 * color
    return _encode(Image.fromarray(mixed.round().astype(np.uint8)), "WEBP")

"""Picture files on their way into a network, and what it says of them. No torch: what was exported runs without it.

Axes: N pictures, C channels, H rows, W columns, K classes. Pixels are uint8, 0 to 255.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from reslab.errors import UserError

# Decoders that compute on bytes alone; that of EPS, for one, starts a program.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
MAX_PIXELS = 64_000_000  # as RGBA they take 256 MB
BAND_PIXELS = 1_000_000  # converted to RGB at once
MAX_SIDE = 1024  # pixels, of a network's images
_ONE_LARGE = Lock()

# The weights of red, green and blue in a grey value (ITU-R BT.601), as Pillow has them.
LUMA = np.array([0.299, 0.587, 0.114])


class UnknownFormatError(UserError):
    """A file that begins like no picture."""


@dataclass(frozen=True)
class Answer:
    """What the network says of one file: its most probable classes, the first one first, with their probabilities."""

    file: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


@cache
def picture_endings() -> frozenset[str]:
    """Give the endings of picture files that are read, in lower case, each with its dot."""
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in FORMATS)


def read_pictures(files: Sequence[Path], *, image_size: int, channels: int) -> NDArray[np.uint8]:
    """Decode pictures to (N, C, image_size, image_size), in grey where there is one channel.

    Raises: UserError where one cannot be read, or the network takes neither grey nor RGB images.
    """
    check_taken(image_size=image_size, channels=channels)
    return np.stack([with_channels(decode(file, image_size=image_size), channels) for file in files])


def check_taken(*, image_size: int, channels: int) -> None:
    """Raises: UserError where a network takes neither grey nor RGB images, or too large ones."""
    if channels not in (1, 3):
        raise UserError(f"the network is for images of {channels} channels: pictures are grey or RGB, with 1 or 3")
    if image_size > MAX_SIDE:
        raise UserError(f"the network is for images of {image_size} pixels a side: {MAX_SIDE} is the most")


def name_best(
    files: Sequence[Path], *, probabilities: NDArray[np.floating[Any]], classes: Sequence[str], top: int
) -> list[Answer]:
    """Name the `top` most probable classes of each picture, by its probabilities (N, K)."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [
        Answer(
            file=str(file),
            classes=tuple(classes[place] for place in places),
            probabilities=tuple(float(row[place]) for place in places),
        )
        for file, row, places in zip(files, probabilities, best, strict=True)
    ]


def decode(picture: Path | BinaryIO, *, image_size: int, name: str = "") -> NDArray[np.uint8]:
    """Decode one picture to (3, image_size, image_size).

    Raises: UserError where it is broken, too large or absent; it is called by `name`, else by its path.
    """
    with opening(picture, name=name or str(picture)) as image:
        return shrink(image, image_size=image_size)


@contextmanager
def opening(picture: Path | BinaryIO, *, name: str) -> Iterator[Image.Image]:
    """Open a picture for the block; only its header is read until the block asks for pixels.

    Raises: UserError where opening it, or what the block does with it, fails.
    """
    try:
        with Image.open(picture, formats=FORMATS) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise UserError(f"{name} is too large a picture ({error}): shrink it or remove it") from None
    except MemoryError:
        raise UserError(f"{name} needs more memory to decode than there is: shrink it or remove it") from None
    except UnidentifiedImageError:
        raise UnknownFormatError(
            f"{name} cannot be read as a picture (of no known format): replace it or remove it"
        ) from None
    except Exception as error:  # decoders raise anything on broken input
        raise UserError(f"{name} cannot be read as a picture ({error}): replace it or remove it") from None


def shrink(image: Image.Image, *, image_size: int) -> NDArray[np.uint8]:
    """Turn an open picture upright, and resize it to (3, image_size, image_size)."""
    with _room_for(image):
        ImageOps.exif_transpose(image, in_place=True)
        # Pillow's bilinear filter widens with the factor when it shrinks, so it does not alias.
        small = _to_rgb(image).resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(small).transpose(2, 0, 1)


def _room_for(image: Image.Image) -> AbstractContextManager[object]:
    """Let threads decode one large picture after another. Raises: DecompressionBombError where it is too large."""
    num_pixels = image.width * image.height
    if num_pixels > MAX_PIXELS:
        raise Image.DecompressionBombError(f"{image.width}x{image.height}: at most {MAX_PIXELS:,} pixels are taken")
    return _ONE_LARGE if num_pixels > MAX_PIXELS // 8 else nullcontext()


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert in bands of rows, so that a large picture lies in memory once as it is and once in RGB."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    width, height = image.size
    converted = Image.new("RGB", image.size)
    rows = max(1, BAND_PIXELS // width)
    for top in range(0, height, rows):
        converted.paste(_band_to_rgb(image.crop((0, top, width, min(top + rows, height)))), (0, top))
    return converted


def _band_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey; Pillow's own conversion would clip them at 255
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def with_channels(image: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Turn (3, H, W) into grey (1, H, W) where the network was trained on grey images."""
    if channels == 3:
        return image
    return np.rint(np.tensordot(LUMA, image, axes=1))[None].astype(np.uint8)

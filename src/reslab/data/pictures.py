"""Picture files on their way into a network, and what it says of them. No torch: what was exported runs without it.

Axes: N pictures, C channels, H rows, W columns, K classes. Pixels are uint8, 0 to 255.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from reslab.data.framing import frame, size_needed
from reslab.errors import UserError
from reslab.measure.class_sets import members
from reslab.recipe.shapes import Resizing

# Decoders that compute on bytes alone; that of EPS, for one, starts a program. The last two are not everywhere.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP", "AVIF", "HEIF")
_MISSING = {
    **dict.fromkeys((".heic", ".heics", ".heif", ".heifs", ".hif"), "pip install 'reslab[heic]' to read them"),
    **dict.fromkeys((".avif", ".avifs"), "pip install 'pillow>=11.3' to read them"),
}
_UNMARKED = ("TGA", "PPM")  # begin with nothing that other files could not begin with too
MAX_PIXELS = 64_000_000  # as RGBA they take 256 MB
BAND_PIXELS = 1_000_000  # converted to RGB at once
MAX_SIDE = 1024  # pixels, of a network's images
SPARE = 4  # a JPEG may be decoded at a smaller scale that is still so many times as large as the network's image
_DEPTHS = (8, 12, 16)  # bits of a value
_STILL = ("JPEG", "MPO")  # what follows the first picture in them is a thumbnail or a depth map
_ONE_LARGE = Lock()

# The weights of red, green and blue in a grey value (ITU-R BT.601), as Pillow has them.
LUMA = np.array([0.299, 0.587, 0.114])


# ---- what is read


@cache
def _formats() -> tuple[str, ...]:
    """Give those of FORMATS that this machine decodes."""
    try:
        import pillow_heif
    except ImportError:
        pass
    else:
        pillow_heif.register_heif_opener(thumbnails=False)
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def readable_endings() -> frozenset[str]:
    """Give the endings of picture files that are read here, in lower case, each with its dot."""
    known = _formats()
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in known)


def is_picture(path: Path) -> bool:
    """Tell a picture by its ending; by its first bytes where it has none, or one behind a picture's (a.jpg.1)."""
    if has_picture_ending(path):
        return True
    if path.suffix and readable_endings().isdisjoint(re.findall(r"\.[a-z0-9]+", path.name.lower())):
        return False
    try:
        with Image.open(path, formats=[name for name in _formats() if name not in _UNMARKED]):
            return True
    except Exception:  # decoders raise anything on what is none of theirs
        return False


def has_picture_ending(path: Path) -> bool:
    """Tell whether a file's ending is that of a picture that is read here."""
    return path.suffix.lower() in readable_endings()


def advice_for(ending: str) -> str | None:
    """Say how to have files of an ending read that are not read here; None where there is no way."""
    return None if ending.lower() in readable_endings() else _MISSING.get(ending.lower())


class UnknownFormatError(UserError):
    """A file that begins like no picture."""


ANSWERED = 0.95  # the share of pictures like the training images that are answered, if nobody says otherwise


class Said(NamedTuple):
    """Probabilities (N, K) of N pictures, and their familiarity (N,) where the network knows it."""

    probabilities: NDArray[np.floating[Any]]
    familiarity: NDArray[np.floating[Any]] | None


class Wanted(NamedTuple):
    """What to say of each picture: its `top` classes, and the set of classes below a `threshold`, if there is one.

    The share `answer` of pictures like the training images is answered, and others are only guessed.
    """

    top: int
    answer: float = ANSWERED
    threshold: float | None = None


@dataclass(frozen=True)
class Answer:
    """What the network says of one file: its most probable classes, the first one first, with their probabilities.

    `familiarity` is the share of held-out images that are no more like the training images, where the network knows
    it; of a picture that is too unlike them the answer is only a guess, and it is not `answered`. `class_set` are the
    classes that the truth is among as often as was asked for, where that was asked for and the picture is answered.
    """

    file: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    familiarity: float | None = None
    answered: bool = True
    class_set: tuple[str, ...] | None = None


def read_pictures(
    files: Sequence[Path], *, image_size: int, channels: int, resize: Resizing = "squeeze"
) -> NDArray[np.uint8]:
    """Decode pictures to (N, C, image_size, image_size), in grey where there is one channel.

    Raises: UserError where one cannot be read, or the network takes neither grey nor RGB images.
    """
    check_taken(image_size=image_size, channels=channels)
    return np.stack([with_channels(decode(file, image_size=image_size, resize=resize), channels) for file in files])


def check_taken(*, image_size: int, channels: int) -> None:
    """Raises: UserError where a network takes neither grey nor RGB images, or too large ones."""
    if channels not in (1, 3):
        raise UserError(f"the network is for images of {channels} channels: pictures are grey or RGB, with 1 or 3")
    if image_size > MAX_SIDE:
        raise UserError(f"the network is for images of {image_size} pixels a side: {MAX_SIDE} is the most")


def name_best(files: Sequence[Path], said: Said, *, classes: Sequence[str], wanted: Wanted) -> list[Answer]:
    """Name the most probable classes of each picture, and say whether it is answered."""
    probabilities, familiarity = said
    order = np.argsort(-probabilities, axis=1, kind="stable")
    familiarities = [None] * len(files) if familiarity is None else familiarity
    sizes = (
        [None] * len(files)
        if wanted.threshold is None
        else members(probabilities, threshold=wanted.threshold).sum(axis=1)
    )
    answered = [known is None or bool(known > 1 - wanted.answer) for known in familiarities]
    return [
        Answer(
            file=str(file),
            classes=tuple(classes[place] for place in places[: wanted.top]),
            probabilities=tuple(float(row[place]) for place in places[: wanted.top]),
            familiarity=None if known is None else float(known),
            answered=is_answered,
            class_set=tuple(classes[place] for place in places[:size]) if is_answered and size is not None else None,
        )
        for file, row, places, known, is_answered, size in zip(
            files, probabilities, order, familiarities, answered, sizes, strict=True
        )
    ]


def decode(
    picture: Path | BinaryIO, *, image_size: int, resize: Resizing = "squeeze", name: str = ""
) -> NDArray[np.uint8]:
    """Decode one picture to (3, image_size, image_size).

    Raises: UserError where it is broken, too large or absent; it is called by `name`, else by its path.
    """
    with opening(picture, name=name or str(picture)) as image:
        return shrink(image, image_size=image_size, resize=resize)


@contextmanager
def opening(picture: Path | BinaryIO, *, name: str) -> Iterator[Image.Image]:
    """Open a picture for the block; only its header is read until the block asks for pixels.

    Raises: UserError where opening it, or what the block does with it, fails.
    """
    try:
        with Image.open(picture, formats=_formats()) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise UserError(f"{name} is too large a picture ({error}): shrink it or remove it") from None
    except MemoryError:
        raise UserError(f"{name} needs more memory to decode than there is: shrink it or remove it") from None
    except FileNotFoundError:
        raise UserError(f"{name} does not exist: check the path") from None
    except UnidentifiedImageError:
        if _is_tiff(picture):
            raise UserError(
                f"{name} is a TIFF of a kind that is not read, such as one of more than four channels: save its grey "
                "or RGB values as PNG"
            ) from None
        raise UnknownFormatError(
            f"{name} cannot be read as a picture (of no known format): replace it or remove it"
        ) from None
    except Exception as error:  # decoders raise anything on broken input
        raise UserError(f"{name} cannot be read as a picture ({error}): replace it or remove it") from None


def _is_tiff(picture: Path | BinaryIO) -> bool:
    if isinstance(picture, Path):
        with picture.open("rb") as file:
            return _is_tiff(file)
    picture.seek(0)
    return picture.read(4) in (b"II*\0", b"MM\0*")


def shrink(image: Image.Image, *, image_size: int, resize: Resizing = "squeeze") -> NDArray[np.uint8]:
    """Turn an open picture upright, and make it a square of (3, image_size, image_size)."""
    with _room_for(image, image_size, resize):
        cannot_show = _loses_colour(image)
        ImageOps.exif_transpose(image, in_place=True)
        rgb = _to_rgb(image)
        if cannot_show(rgb):
            raise ValueError("it has 16 bits of colour, of which the upper four are never used: save it with 8")
        box, size, corner = frame(*rgb.size, side=image_size, resize=resize)
        # Pillow's bilinear filter widens with the factor when it shrinks, so it does not alias.
        small = rgb.resize(size, Image.Resampling.BILINEAR, box=box)
    if size != (image_size, image_size):
        square = Image.new("RGB", (image_size, image_size))
        square.paste(small, corner)
        small = square
    return np.asarray(small).transpose(2, 0, 1)


def _room_for(image: Image.Image, image_size: int, resize: Resizing) -> AbstractContextManager[object]:
    """Choose the scale that a JPEG is decoded at, and let threads decode one large picture after another.

    Raises: DecompressionBombError where it is too large.
    """
    num_pixels = image.width * image.height
    if num_pixels > MAX_PIXELS:
        raise Image.DecompressionBombError(f"{image.width}x{image.height}: at most {MAX_PIXELS:,} pixels are taken")
    width, height = size_needed(*image.size, side=image_size, resize=resize)
    image.draft(None, (SPARE * width, SPARE * height))  # None keeps the mode
    if not image.info.get("progressive"):  # whose decoder holds all of it at any scale
        num_pixels = image.width * image.height
    return _ONE_LARGE if num_pixels > MAX_PIXELS // 8 else nullcontext()


# ---- to eight bits of red, green and blue


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert in bands of rows, so that a large picture lies in memory once as it is and once in RGB."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    convert = _make_converter(image)
    converted = Image.new("RGB", image.size)
    for top, band in _bands(image):
        converted.paste(convert(band), (0, top))
    return converted


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    width, height = image.size
    rows = max(1, BAND_PIXELS // width)
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def _make_converter(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Choose how a band becomes RGB. Raises: ValueError where the picture does not say what black and white are."""
    if image.mode.startswith("I"):
        shift = bits_of(*_range_of(image)) - 8
        return lambda band: _from_grey(np.asarray(band) >> shift)
    if image.mode == "F":
        factor = scale_of(*_range_of(image))
        return lambda band: _from_grey(np.rint(np.asarray(band) * np.float32(factor)))
    if image.has_transparency_data:
        return _lay_on_white
    return lambda band: band.convert("RGB")


def _range_of(image: Image.Image) -> tuple[float, float]:
    extremes = [(values.min(), values.max()) for values in (np.asarray(band) for _, band in _bands(image))]
    lowest, highest = np.array(extremes).T
    return lowest.min().item(), highest.max().item()


def bits_of(lowest: float, highest: float) -> int:
    """Tell how many bits whole numbers have: the fewest of 8, 12 and 16 that hold the largest of them.

    Raises: ValueError where they are no grey values.
    """
    for bits in _DEPTHS:
        if lowest >= 0 and highest < 2**bits:
            return bits
    raise ValueError(f"its values run from {lowest:g} to {highest:g}, grey values from 0 to at most 65535")


def scale_of(lowest: float, highest: float) -> float:
    """Tell by what fractions are multiplied to run to 255: those from 0 to 1 by 255, those to 255 by 1.

    Raises: ValueError where they are no grey values.
    """
    for top in (1, 255):
        if lowest >= 0 and highest <= top:
            return 255 / top
    raise ValueError(f"its values run from {lowest:g} to {highest:g}, fractions from 0 to 1 or to 255")


def _from_grey(values: NDArray[Any]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def _lay_on_white(band: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", band.size, "white"), band.convert("RGBA")).convert("RGB")


def _loses_colour(image: Image.Image) -> Callable[[Image.Image], bool]:
    """Look, before it is decoded, whether Pillow will keep the upper 8 of 16 bits; the test is for what it decoded."""
    is_deep = image.mode.startswith(("RGB", "LA")) and any(";16" in str(tile) for tile in getattr(image, "tile", ()))
    return lambda rgb: is_deep and max(high for _, high in rgb.getextrema()) < 16  # type: ignore[misc]


def losses_of(image: Image.Image) -> Iterator[str]:
    """Say what reading an open picture leaves out or rescales, each in words that are the same for all such pictures.

    Raises: ValueError where it does not say what black and white are.
    """
    if image.format not in _STILL and getattr(image, "n_frames", 1) > 1:
        yield "only the first of several pages or frames"
        image.seek(0)
    if image.mode.startswith("I") and (bits := bits_of(*_range_of(image))) > 8:
        yield f"only the upper 8 of {bits} bits"
    elif image.mode == "F":
        yield f"fractions times {scale_of(*_range_of(image)):g}"
    elif any(";16" in str(tile) for tile in getattr(image, "tile", ())):
        yield "only the upper 8 of 16 bits"
    if image.has_transparency_data:
        yield "transparency, laid on white"


def with_channels(images: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Turn (..., C, H, W) into grey or RGB images of so many channels.

    Raises: UserError where they are neither grey nor RGB.
    """
    own = images.shape[-3]
    if own == channels:
        return images
    check_channels(own, channels)
    if (own, channels) == (1, 3):
        return np.repeat(images, 3, axis=-3)
    grey = np.rint(np.tensordot(LUMA, images, axes=(0, images.ndim - 3))).astype(np.uint8)
    return np.expand_dims(grey, -3)


def check_channels(own: int, wanted: int) -> None:
    """Raises: UserError where images of `own` channels cannot be made ones of `wanted`."""
    if {own, wanted} - {1, 3}:
        raise UserError(f"images of {own} channels do not become images of {wanted}: only grey (1) and RGB (3) do")

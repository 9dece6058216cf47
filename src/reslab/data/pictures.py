"""Decoding of picture files, and a network's answers to them. No torch: exported networks run without it.

Axes: N pictures, C channels, H rows, W columns, K classes. Pixels are uint8, 0 to 255.
"""

import errno
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from reslab.data.framing import frame, size_needed
from reslab.errors import UserError
from reslab.measure.class_sets import members
from reslab.recipe.shapes import Resizing

# Pillow warns about damaged metadata, which is ignored, and about large pictures, which are refused beyond MAX_PIXELS.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Formats whose decoders only read bytes (EPS's, for example, starts a program). The last two may be missing.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP", "AVIF", "HEIF")
_MISSING = {
    **dict.fromkeys((".heic", ".heics", ".heif", ".heifs", ".hif"), "pip install 'reslab[heic]' to read them"),
    **dict.fromkeys((".avif", ".avifs"), "pip install 'pillow>=11.3' to read them"),
}
_UNMARKED = ("TGA", "PPM")  # no signature that only they begin with
MAX_PIXELS = 64_000_000  # as RGBA they take 256 MB
BAND_PIXELS = 1_000_000  # converted to RGB at a time
MAX_SIDE = 1024  # pixels of a network's images
SPARE = 4  # a JPEG is decoded at a reduced scale of at least this many times the size of the network's image
WHITES = (1, 255, 1023, 4095, 16_383, 65_535)  # fractions, and 8, 10, 12, 14 or 16 bits
_DEEP_FORMATS = ("PNG", "TIFF", "PPM", "JPEG2000")  # that may hold grey values of more than 8 bits
_STILL = ("JPEG", "MPO")  # pictures after the first are thumbnails or depth maps
_ONE_LARGE = Lock()
_TURNS = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SYNSETS = "LOC_synset_mapping.txt"  # ImageNet's names of classes, which lie beside its folders
# Files and folders that operating systems and disk stations leave, in lower case.
_JUNK = {
    SYNSETS.lower(),
    *("__macosx", "icon\r", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("lost+found", "@eadir", "#recycle", "@recycle", "__pycache__"),
}

# The weights of red, green and blue in a grey value (ITU-R BT.601), as in Pillow.
LUMA = np.array([0.299, 0.587, 0.114])


# ---- what is read


@cache
def _formats() -> tuple[str, ...]:
    """Return those of FORMATS that this machine can decode."""
    try:
        import pillow_heif
    except ImportError:
        pass
    else:
        pillow_heif.register_heif_opener(thumbnails=False)
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def describe_decoders() -> str:
    """Name what decides on this machine whether a picture can be read."""
    return f"{' '.join(_formats())} of Pillow {PIL.__version__}"


@cache
def readable_endings() -> frozenset[str]:
    """Return the supported endings of picture files, in lower case, each with its dot."""
    known = _formats()
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in known)


def is_picture(path: Path) -> bool:
    """Recognise a picture by its ending, or by its first bytes.

    The bytes decide if it has no ending, another after it (a.jpg.1), or one of a format without a decoder: telephones
    name JPEGs .HEIC.
    """
    if has_picture_ending(path):
        return True
    if (
        path.suffix
        and path.suffix.lower() not in _MISSING
        and readable_endings().isdisjoint(re.findall(r"\.[a-z0-9]+", path.name.lower()))
    ):
        return False
    try:
        with Image.open(path, formats=[name for name in _formats() if name not in _UNMARKED]):
            return True
    except Exception:  # decoders raise anything for files of other formats
        return False


def has_picture_ending(path: Path) -> bool:
    """Return whether a file has the ending of a supported picture format."""
    return path.suffix.lower() in readable_endings()


def is_junk(name: str) -> bool:
    """Return whether a file or folder is hidden, or a system's own."""
    return name.lower() in _JUNK or name.startswith(".")


def list_visible(folder: Path, pattern: str = "*") -> list[Path]:
    """List what is in a folder in order of name, without junk."""
    return sorted(each for each in folder.glob(pattern) if not is_junk(each.name))


def walk_pictures(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield the pictures in a folder, then those in its folders, in order of name, without junk.

    Links to folders are followed, except to a folder `above`. Raises: UserError if a folder cannot be read.
    """
    above = (*above, os.path.realpath(folder))
    try:
        found = [folder / name for name in sorted(os.listdir(folder)) if not is_junk(name)]
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}): check the path and its permissions") from None
    yield from (path for path in found if os.path.isfile(path) and is_picture(path))
    for path in found:
        if os.path.isdir(path) and os.path.realpath(path) not in above:
            yield from walk_pictures(path, above)


def advice_for(ending: str) -> str | None:
    """Say how to make an unsupported ending readable; None if there is no way or no need."""
    return None if ending.lower() in readable_endings() else _MISSING.get(ending.lower())


class UnknownFormatError(UserError):
    """A file that does not begin like any picture format."""


class UnavailableError(UserError):
    """A picture, perhaps a sound one, that cannot be read now: the disk, the permissions or the memory forbid it."""


class UnsuitableError(ValueError):
    """A sound picture whose values cannot be used."""


ANSWERED = 0.95  # default share of pictures like the training images that are answered
TOLERANCE = 1e-6  # of a familiarity, which is stored in 32 bits


class Said(NamedTuple):
    """Probabilities (N, K) of N pictures, and their familiarity (N,) if the network provides it."""

    probabilities: NDArray[np.floating[Any]]
    familiarity: NDArray[np.floating[Any]] | None


class Wanted(NamedTuple):
    """What to answer for each picture: its `top` classes, and with a `threshold` the set of classes it selects.

    The share `answer` of pictures like the training images is answered; for others there is only a guess.
    """

    top: int
    answer: float = ANSWERED
    threshold: float | None = None


@dataclass(frozen=True)
class Answer:
    """The network's answer to one file: its most probable classes in descending order, with their probabilities.

    `familiarity` is the share of held-out images that are no more like the training images, if the network provides
    it; a picture too unlike them only gets a guess and is not `answered`. `class_set`, if requested and the picture is
    answered, contains the true class with the requested coverage.
    """

    file: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    familiarity: float | None = None
    answered: bool = True
    class_set: tuple[str, ...] | None = None


def read_pictures(
    files: Sequence[Path], *, image_size: int, channels: int, resize: Resizing = "squeeze", white: int | None = None
) -> NDArray[np.uint8]:
    """Decode pictures to (N, C, image_size, image_size), in grey if there is one channel; `white` is as in `decode`.

    Raises: UserError if one cannot be read, or the network takes neither grey nor RGB images.
    """
    check_taken(image_size=image_size, channels=channels)
    return np.stack(
        [with_channels(decode(file, image_size=image_size, resize=resize, white=white), channels) for file in files]
    )


def check_taken(*, image_size: int, channels: int) -> None:
    """Raises: UserError if a network takes neither grey nor RGB images, or too large ones."""
    if channels not in (1, 3):
        raise UserError(f"the network is for images of {channels} channels: pictures are grey or RGB, with 1 or 3")
    if image_size > MAX_SIDE:
        raise UserError(f"the network is for images of {image_size} pixels a side: at most {MAX_SIDE} are supported")


def is_answered(familiarity: float | np.floating[Any] | None, *, share: float = ANSWERED) -> bool:
    """Return whether a picture is answered if `share` of ordinary pictures are: its familiarity exceeds 1 - `share`."""
    return familiarity is None or bool(float(familiarity) > 1 - share + TOLERANCE)


def name_best(files: Sequence[Path], said: Said, *, classes: Sequence[str], wanted: Wanted) -> list[Answer]:
    """Return the most probable classes of each picture, and whether it is answered."""
    probabilities, familiarity = said
    order = np.argsort(-probabilities, axis=1, kind="stable")
    familiarities = [None] * len(files) if familiarity is None else familiarity
    sizes = (
        [None] * len(files)
        if wanted.threshold is None
        else members(probabilities, threshold=wanted.threshold).sum(axis=1)
    )
    answered = [is_answered(known, share=wanted.answer) for known in familiarities]
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
    picture: Path | BinaryIO,
    *,
    image_size: int,
    resize: Resizing = "squeeze",
    white: int | None = None,
    name: str = "",
) -> NDArray[np.uint8]:
    """Decode one picture to (3, image_size, image_size).

    Grey values of more than 8 bits run from 0 to `white`, and brighter ones are clipped; without it, the picture's own
    values decide, which is only right where nothing is known about its source.
    Raises: UserError if it is broken, too large or missing; the message uses `name`, else the path.
    """
    with opening(picture, name=name or str(picture)) as image:
        return shrink(image, image_size=image_size, resize=resize, white=white)


@contextmanager
def opening(picture: Path | BinaryIO, *, name: str) -> Iterator[Image.Image]:
    """Open a picture for the block; only its header is read until the block asks for pixels.

    Raises: UnavailableError if the picture may be sound; another UserError if a decoder refuses it, or the block fails.
    """
    try:
        with _blaming_others(name), Image.open(picture, formats=_formats()) as image:
            yield image
    except UnavailableError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{name} is too large ({error}): shrink it or remove it") from None
    except UnidentifiedImageError:
        if _is_tiff(picture):
            raise UserError(
                f"{name} is an unsupported kind of TIFF, such as one with more than four channels: save its grey "
                "or RGB values as PNG"
            ) from None
        advice = advice_for(Path(name).suffix) or "replace it or remove it"
        raise UnknownFormatError(f"{name} cannot be read as a picture (unknown format): {advice}") from None
    except Exception as error:  # decoders raise anything on broken input
        raise UserError(f"{name} cannot be read as a picture ({_reason(error)}): replace it or remove it") from None


@contextmanager
def _blaming_others(name: str) -> Iterator[None]:
    """Raises: UnavailableError for errors of the block that say nothing about the picture; all others pass."""
    try:
        yield
    except MemoryError:
        raise UnavailableError(
            f"{name} needs more memory to decode than is available: shrink it or remove it"
        ) from None
    except FileNotFoundError:
        raise UnavailableError(f"{name} does not exist: check the path") from None
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # of a decoder, or of a damaged offset
            raise
        raise UnavailableError(f"{name} cannot be read ({error.strerror}): check its disk and permissions") from None


def _reason(error: Exception) -> str:
    """Say in plain words why a picture cannot be read; a decoder's own words help only its authors."""
    if isinstance(error, UnsuitableError):
        return str(error)
    return "it is cut short" if re.search("truncated|end of file|EOF", str(error)) else "its data are damaged"


def _is_tiff(picture: Path | BinaryIO) -> bool:
    if isinstance(picture, Path):
        with picture.open("rb") as file:
            return _is_tiff(file)
    picture.seek(0)
    return picture.read(4) in (b"II*\0", b"MM\0*")


def shrink(
    image: Image.Image, *, image_size: int, resize: Resizing = "squeeze", white: int | None = None
) -> NDArray[np.uint8]:
    """Rotate an open picture upright, and resize it to a square (3, image_size, image_size); see `decode`."""
    with _room_for(image, image_size, resize):
        cannot_show = _loses_colour(image)
        rgb = _to_rgb(_turn_upright(image), white)
        if cannot_show(rgb):
            raise UnsuitableError("it has 16 bits of colour, of which the upper four are never used: save it with 8")
        box, size, corner = frame(*rgb.size, side=image_size, resize=resize)
        # Pillow's bilinear filter widens with the factor when it shrinks, so it does not alias.
        small = rgb.resize(size, Image.Resampling.BILINEAR, box=box)
    if size != (image_size, image_size):
        square = Image.new("RGB", (image_size, image_size))
        square.paste(small, corner)
        small = square
    return np.asarray(small).transpose(2, 0, 1)


def _turn_upright(image: Image.Image) -> Image.Image:
    """Turn a picture by the orientation in its EXIF data, which are ignored if they are damaged.

    Pillow's `exif_transpose` also writes them again, and so refuses a sound picture for the least odd value in them.
    """
    image.load()  # the EXIF data of a PNG may follow its pixels
    orientation = None
    with suppress(Exception):
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _room_for(image: Image.Image, image_size: int, resize: Resizing) -> AbstractContextManager[object]:
    """Choose the scale at which a JPEG is decoded, and let threads decode large pictures one at a time.

    Raises: DecompressionBombError if it is too large.
    """
    num_pixels = image.width * image.height
    if num_pixels > MAX_PIXELS:
        raise Image.DecompressionBombError(f"{image.width}x{image.height}: at most {MAX_PIXELS:,} pixels are supported")
    width, height = size_needed(*image.size, side=image_size, resize=resize)
    image.draft(None, (SPARE * width, SPARE * height))  # None keeps the mode
    if not image.info.get("progressive"):  # progressive decoders hold the whole picture at any scale
        num_pixels = image.width * image.height
    return _ONE_LARGE if num_pixels > MAX_PIXELS // 8 else nullcontext()


# ---- to eight bits of red, green and blue


def _to_rgb(image: Image.Image, white: int | None) -> Image.Image:
    """Convert in bands of rows, so that memory holds a large picture only once as it is and once in RGB."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    convert = _make_converter(image, white)
    converted = Image.new("RGB", image.size)
    for top, band in _bands(image):
        converted.paste(convert(band), (0, top))
    return converted


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    width, height = image.size
    rows = max(1, BAND_PIXELS // width)
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def _make_converter(image: Image.Image, white: int | None) -> Callable[[Image.Image], Image.Image]:
    """Choose how a band becomes RGB. Raises: UnsuitableError if the picture's values cannot be grey values."""
    if own := white_of(image):
        top = np.float32(white or own)
        return lambda band: _from_grey(np.minimum(np.asarray(band), top) * (255 / top))
    if image.has_transparency_data:
        return _lay_on_white
    return lambda band: band.convert("RGB")


def _range_of(image: Image.Image) -> tuple[float, float]:
    extremes = [(values.min(), values.max()) for values in (np.asarray(band) for _, band in _bands(image))]
    lowest, highest = np.array(extremes).T
    return lowest.min().item(), highest.max().item()


def white_for(lowest: float, highest: float) -> int:
    """Return the smallest of WHITES that holds grey values. Raises: UnsuitableError if they cannot be grey values."""
    for white in WHITES:
        if lowest >= 0 and highest <= white:
            return white
    raise UnsuitableError(
        f"its values run from {lowest:g} to {highest:g}, but grey values run from 0 to at most {WHITES[-1]}"
    )


def white_of(image: Image.Image) -> int | None:
    """Return the smallest white that holds a picture of more than 8 bits of grey; None for any other picture.

    Raises: UnsuitableError if its values cannot be grey values.
    """
    return white_for(*_range_of(image)) if image.mode.startswith(("I", "F")) else None


def look_for_white(picture: Path | BinaryIO, *, name: str) -> int | None:
    """Open a picture for `white_of`; None also if it is damaged, which decoding reports.

    Raises: UnavailableError as `opening`.
    """
    try:
        with (
            _blaming_others(name),
            Image.open(picture, formats=_DEEP_FORMATS) as image,
            _room_for(image, MAX_SIDE, "squeeze"),
        ):
            return white_of(image)
    except UnavailableError:
        raise
    except Exception:  # decoders raise anything on broken input
        return None


def _from_grey(values: NDArray[Any]) -> Image.Image:
    return Image.fromarray(np.rint(values).astype(np.uint8)).convert("RGB")


def _lay_on_white(band: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", band.size, "white"), band.convert("RGBA")).convert("RGB")


def _loses_colour(image: Image.Image) -> Callable[[Image.Image], bool]:
    """Check before decoding whether Pillow keeps the upper 8 of 16 bits; return a test for the decoded picture."""
    is_deep = image.mode.startswith(("RGB", "LA")) and any(";16" in str(tile) for tile in getattr(image, "tile", ()))
    return lambda rgb: is_deep and max(high for _, high in rgb.getextrema()) < 16  # type: ignore[misc]


def losses_of(image: Image.Image, *, white: int | None = None) -> Iterator[str]:
    """Describe what reading an open picture drops or rescales, in the same words for all such pictures.

    `white` is as in `decode`.

    Raises: UnsuitableError if its values cannot be grey values.
    """
    if image.format not in _STILL and getattr(image, "n_frames", 1) > 1:
        yield "only the first of several pages or frames"
        image.seek(0)
    if own := white_of(image):
        if white and own > white:
            yield f"grey values above {white:,} (white), clipped"
        elif (white or own) != 255:
            yield f"grey values from 0 (black) to {white or own:,} (white), mapped to 0 to 255"
    elif any(";16" in str(tile) for tile in getattr(image, "tile", ())):
        yield "only the upper 8 of 16 bits"
    if image.has_transparency_data:
        yield "transparency, laid on white"


def to_rgb(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn images (..., C, H, W) into (..., H, W, 3); anything but RGB becomes grey, the mean of the channels."""
    if images.shape[-3] != 3:
        images = np.repeat(images.mean(axis=-3, keepdims=True).round().astype(np.uint8), 3, axis=-3)
    return np.moveaxis(images, -3, -1)


def with_channels(images: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Convert images (..., C, H, W) to grey (1) or RGB (3) with the given `channels`.

    Raises: UserError if they are neither grey nor RGB.
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
    """Raises: UserError if images with `own` channels cannot be converted to `wanted` channels."""
    if {own, wanted} - {1, 3}:
        raise UserError(f"images of {own} channels cannot be converted to {wanted}: only grey (1) and RGB (3) can")

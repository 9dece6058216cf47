"""A contact sheet: a row of pictures for each class, to look at before training.

Axes: N images, C channels, H rows, W columns, K classes.
"""

from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from reslab.data.images import ImageSet
from reslab.data.pictures import to_rgb
from reslab.runs.files import writing
from reslab.words import printable

COLUMNS, SIDE, GAP = 12, 64, 4  # pictures of a row, and pixels
NAMES = 200  # pixels
_FONT_SIZE = 14


def write_sheet(images: ImageSet, path: Path) -> None:
    """Draw up to twelve pictures of every class, always the same ones, into a PNG file.

    Raises: Failure if it cannot be written.
    """
    step = SIDE + GAP
    sheet = Image.new("RGB", (NAMES + COLUMNS * step, max(1, len(images.classes)) * step), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.truetype(_find_font(), _FONT_SIZE)
    labels = images.labels.numpy()
    for row, name in enumerate(images.classes):
        places = np.flatnonzero(labels == row)
        _write_name(draw, font, name, count=len(places), top=row * step)
        chosen = np.sort(np.random.default_rng(0).permutation(places)[:COLUMNS])
        for column, image in enumerate(images.images[chosen].numpy()):
            sheet.paste(_thumbnail(image), (NAMES + column * step, row * step))
    writing(path, lambda: sheet.save(path, format="PNG"))


def _write_name(draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, name: str, *, count: int, top: int) -> None:
    shown = printable(name)
    while draw.textlength(shown, font=font) > NAMES - 2 * GAP:
        shown = f"{shown[:-2]}…"
    draw.text((GAP, top + GAP), shown, fill="black", font=font)
    draw.text((GAP, top + GAP + 1.4 * _FONT_SIZE), f"{count:,}", fill="gray", font=font)


def _thumbnail(image: NDArray[np.uint8]) -> Image.Image:
    """Turn (C, H, W) into a square picture; anything but RGB becomes grey."""
    picture = Image.fromarray(np.ascontiguousarray(to_rgb(image)))
    grows = picture.width < SIDE
    return picture.resize((SIDE, SIDE), Image.Resampling.NEAREST if grows else Image.Resampling.LANCZOS)


def _find_font() -> Path:
    """Find a font for most European languages, which is part of Matplotlib."""
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"

"""Sizes and aspect ratios of the training pictures of an expression, before any is read.

Small pictures should keep their size, large ones need not; and if pictures are not square, it matters how they are
made so.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean, median

from PIL import Image

from reslab.data.expression import LocatedTerm, NamedTerm, Term, parse
from reslab.data.framing import Form
from reslab.data.load import find_place, list_files
from reslab.data.pictures import decode
from reslab.data.sources.decoded import WORKERS
from reslab.data.sources.npz import open_npz
from reslab.data.storage.blocks import Unreadable
from reslab.errors import UserError

SIDES = {"digits": 8}  # pixels, if different from CIFAR's
CIFAR, UNKNOWN = 32, 192
LOOKED_AT = 100  # pictures examined per source
TIMED = 8
LEAST_LOSS = 0.1  # mean share of the longer side from which it matters how pictures become squares

Size = tuple[int, int]  # width and height


def find_image_size(expression: str, *, largest: int, data_dir: Path | None = None) -> int:
    """Find the side of the pictures in pixels, at most `largest`; for picture files it is the median.

    Raises: UserError if the expression or a file is wrong.
    """
    sides = [int(median(map(min, sizes))) for sizes in _look(expression, data_dir)]
    return min(largest, max(sides, default=UNKNOWN))


def are_squares(expression: str, *, data_dir: Path | None = None) -> bool:
    """Return whether making the pictures square changes little. Raises: as `find_image_size`."""
    losses = [1 - min(size) / max(size) for sizes in _look(expression, data_dir) for size in sizes]
    return not losses or fmean(losses) < LEAST_LOSS


def measure_reading(expression: str, form: Form, *, data_dir: Path | None = None) -> float:
    """Estimate from some training pictures how many seconds reading all takes. Raises: as `find_image_size`."""
    seconds = 0.0
    for _, listing in list_files(expression, data_dir=data_dir):
        files = listing.of_split("train").files
        some = _spread(files, TIMED)
        began = time.perf_counter()
        for file in some:
            with suppress(UserError):  # errors are reported when the pictures are read
                decode(file, image_size=form.image_size, resize=form.resize)
        seconds += (time.perf_counter() - began) * len(files) / (len(some) * WORKERS)
    return seconds


def _look(expression: str, data_dir: Path | None) -> Iterator[list[Size]]:
    """Yield the sizes of some training pictures of each source."""
    yield from ([_size_of(term, data_dir)] for term in parse(expression) if term.source not in ("folder", "csv"))
    for _, listing in list_files(expression, data_dir=data_dir):
        if sizes := list(_open(listing.of_split("train").files)):
            yield sizes


def _size_of(term: Term, data_dir: Path | None) -> Size:
    match term:
        case NamedTerm(source=source):
            side = SIDES.get(source, CIFAR)
            return side, side
        case LocatedTerm(path=path):
            block = next(open_npz(find_place(path, data_dir), split="train").blocks)
            if not isinstance(block, Unreadable):
                height, width = block.images.shape[2:]
                return width, height
    return UNKNOWN, UNKNOWN


def _open(files: Sequence[Path]) -> Iterator[Size]:
    """Yield the sizes of the readable ones among some pictures."""
    for file in _spread(files, LOOKED_AT):
        try:
            with Image.open(file) as picture:
                yield picture.size
        except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
            continue  # errors are reported when the pictures are read


def _spread(files: Sequence[Path], num: int) -> Sequence[Path]:
    return files[:: max(1, len(files) // num)]

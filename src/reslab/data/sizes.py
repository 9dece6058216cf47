"""How large the pictures of an expression are, and how far from squares, before any is read.

Small ones are worth keeping as they are, large ones are not; and where they are no squares, it matters how they become
some.
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

SIDES = {"digits": 8}  # pixels, where it is not CIFAR's
CIFAR, UNKNOWN = 32, 192
LOOKED_AT = 100  # pictures of a source
TIMED = 8
LEAST_LOSS = 0.1  # of the longer side, on average, from which on it matters how pictures become squares

Size = tuple[int, int]  # width and height


def find_image_size(expression: str, *, largest: int, data_dir: Path | None = None) -> int:
    """Find the side of the pictures, in pixels and at most `largest`: of those in files, half are larger.

    Raises: UserError where the expression or a file is wrong.
    """
    sides = [int(median(map(min, sizes))) for sizes in _look(expression, data_dir)]
    return min(largest, max(sides, default=UNKNOWN))


def are_squares(expression: str, *, data_dir: Path | None = None) -> bool:
    """Tell whether making squares of the pictures changes little. Raises: as `find_image_size`."""
    losses = [1 - min(size) / max(size) for sizes in _look(expression, data_dir) for size in sizes]
    return not losses or fmean(losses) < LEAST_LOSS


def measure_reading(expression: str, form: Form, *, data_dir: Path | None = None) -> float:
    """Measure on some picture files how many seconds reading them all takes. Raises: as `find_image_size`."""
    seconds = 0.0
    for _, listing in list_files(expression, data_dir=data_dir):
        some = _spread(listing.files, TIMED)
        began = time.perf_counter()
        for file in some:
            with suppress(UserError):  # whoever reads the pictures says what is wrong
                decode(file, image_size=form.image_size, resize=form.resize)
        seconds += (time.perf_counter() - began) * len(listing.files) / (len(some) * WORKERS)
    return seconds


def _look(expression: str, data_dir: Path | None) -> Iterator[list[Size]]:
    """Yield the sizes of some pictures of each source that shows some."""
    yield from ([_size_of(term, data_dir)] for term in parse(expression) if term.source not in ("folder", "csv"))
    yield from (
        sizes for _, listing in list_files(expression, data_dir=data_dir) if (sizes := list(_open(listing.files)))
    )


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
    """Yield the sizes of those of some pictures that can be read."""
    for file in _spread(files, LOOKED_AT):
        try:
            with Image.open(file) as picture:
                yield picture.size
        except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
            continue  # whoever reads the pictures says what is wrong


def _spread(files: Sequence[Path], num: int) -> Sequence[Path]:
    return files[:: max(1, len(files) // num)]

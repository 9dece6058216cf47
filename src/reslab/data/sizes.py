"""How large the pictures of an expression are, so that small ones are kept as they are and large ones are not."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from PIL import Image

from reslab.data.expression import NamedTerm, Term, parse
from reslab.data.load import find_place, list_files
from reslab.data.sources.npz import open_npz
from reslab.data.storage.blocks import Unreadable

SIZES = {"digits": 8}  # pixels a side, where it is not CIFAR's
CIFAR, UNKNOWN = 32, 192
LOOKED_AT = 100  # pictures of a source


def find_image_size(expression: str, *, largest: int, data_dir: Path | None = None) -> int:
    """Find the side of the pictures, in pixels and at most `largest`: of those in files, half are larger.

    Raises: UserError where the expression or a file is wrong.
    """
    sizes = [_size_of(term, data_dir) for term in parse(expression) if term.source not in ("folder", "csv")]
    sizes += [size for _, listing in list_files(expression, data_dir=data_dir) for size in _look_at(listing.files)]
    return min(largest, max(sizes, default=UNKNOWN))


def _size_of(term: Term, data_dir: Path | None) -> int:
    if isinstance(term, NamedTerm):
        return SIZES.get(term.source, CIFAR)
    if term.source == "npz":
        block = next(open_npz(find_place(term.path, data_dir), split="train").blocks)
        return UNKNOWN if isinstance(block, Unreadable) else int(min(block.images.shape[2:]))
    return UNKNOWN


def _look_at(files: Sequence[Path]) -> Iterator[int]:
    """Yield the median of the shorter sides of some pictures; nothing where none can be read."""
    sides = []
    for file in files[:: max(1, len(files) // LOOKED_AT)]:
        try:
            with Image.open(file) as picture:
                sides.append(min(picture.size))
        except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
            continue  # whoever reads the pictures says what is wrong
    if sides:
        yield int(median(sides))

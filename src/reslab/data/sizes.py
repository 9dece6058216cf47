"""How large the pictures of an expression are, so that small ones are kept as they are and large ones are not."""

from itertools import islice
from pathlib import Path
from statistics import median

from PIL import Image

from reslab.data.expression import NamedTerm, ShardsTerm, Term, parse
from reslab.data.sources.npz import open_npz

SIZES = {"digits": 8}  # pixels a side, where it is not CIFAR's
CIFAR, UNKNOWN = 32, 192
LOOKED_AT = 100  # pictures of a folder


def find_image_size(expression: str, *, largest: int) -> int:
    """Find the side of the pictures, in pixels and at most `largest`: of those in folders, half are larger.

    Raises: UserError where the expression or a file is wrong.
    """
    return min(largest, max(_size_of(term) for term in parse(expression)))


def _size_of(term: Term) -> int:
    if isinstance(term, NamedTerm):
        return SIZES.get(term.source, CIFAR)
    if isinstance(term, ShardsTerm):
        return UNKNOWN
    if term.source == "npz":
        return min(next(open_npz(term.path, split="train").blocks).images.shape[2:])
    return _look_into(term.path)


def _look_into(folder: Path) -> int:
    sides = []
    for file in islice((each for each in folder.rglob("*") if each.is_file()), LOOKED_AT):
        try:
            with Image.open(file) as picture:
                sides.append(min(picture.size))
        except (OSError, ValueError, Image.DecompressionBombError):
            continue  # whoever reads the pictures says what is wrong
    return int(median(sides)) if sides else UNKNOWN

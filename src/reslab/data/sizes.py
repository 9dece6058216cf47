"""Sizes and aspect ratios of the pictures of an expression, before any is read.

Small pictures should keep their size, large ones need not; and if pictures are not square, it matters how they are
made so.
"""

import io
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean, median

from reslab.data.expression import LocatedTerm, NamedTerm, ShardsTerm, Term, parse
from reslab.data.framing import Form
from reslab.data.load import find_place, list_files
from reslab.data.names import write_choice
from reslab.data.pictures import decode, opening
from reslab.data.progress import in_threads
from reslab.data.sources.decoded import WORKERS
from reslab.data.sources.foreign_shards import find_foreign, sample_training
from reslab.data.sources.npz import open_npz
from reslab.data.sources.shard_index import Store, read_index
from reslab.data.storage.blocks import Unreadable
from reslab.errors import UserError

SIDES = {"digits": 8}  # pixels, if different from CIFAR's
CIFAR, UNKNOWN = 32, 192
LOOKED_AT = 100  # pictures examined per source
TIMED = 8
LEAST_LOSS = 0.1  # mean share of the longer side from which it matters how pictures become squares

Size = tuple[int, int]  # width and height


def find_image_size(expression: str, *, largest: int, data_dir: Path | None = None) -> int:
    """Find the side of the pictures in pixels, at most `largest`; for pictures of many sizes it is the median.

    Raises: UserError if the expression or a file is wrong.
    """
    sides = [int(median(map(min, sizes))) for sizes in _look(expression, data_dir)]
    return min(largest, max(sides, default=UNKNOWN))


def measure_all(expression: str, *, data_dir: Path | None = None) -> tuple[Size, Size] | None:
    """Find the smallest and the largest picture of an expression by area; None if none says its size.

    Of shards of other programs, only some pictures are opened. Raises: as `find_image_size`.
    """
    terms = parse(expression)
    sizes = [size for term in terms if (size := _size_of(term, data_dir))]
    files = [file for _, listing in list_files(expression, data_dir=data_dir) for file in listing.files]
    sizes += filter(None, in_threads(_measure, files, what="measuring pictures"))
    for some, _ in _sample_shards(terms, num=LOOKED_AT):
        sizes += filter(None, map(_measure, some))
    sizes.sort(key=lambda size: (size[0] * size[1], size))
    return (sizes[0], sizes[-1]) if sizes else None


def are_squares(expression: str, *, data_dir: Path | None = None) -> bool:
    """Return whether making the pictures square changes little. Raises: as `find_image_size`."""
    losses = [1 - min(size) / max(size) for sizes in _look(expression, data_dir) for size in sizes]
    return not losses or fmean(losses) < LEAST_LOSS


def measure_reading(expression: str, form: Form, *, data_dir: Path | None = None) -> float:
    """Estimate from some training pictures how many seconds reading all takes. Raises: as `find_image_size`."""
    seconds = 0.0
    for some, num_files in _sample(expression, data_dir, num=TIMED):
        began = time.perf_counter()
        for file in some:
            with suppress(UserError):  # errors are reported when the pictures are read
                decode(file, image_size=form.image_size, resize=form.resize)
        seconds += (time.perf_counter() - began) * num_files / (len(some) * WORKERS)
    return seconds


def _look(expression: str, data_dir: Path | None) -> Iterator[list[Size]]:
    """Yield the sizes of some training pictures of each source."""
    yield from ([size] for term in parse(expression) if (size := _size_of(term, data_dir)))
    for some, _ in _sample(expression, data_dir, num=LOOKED_AT):
        if sizes := list(filter(None, map(_measure, some))):
            yield sizes


def _size_of(term: Term, data_dir: Path | None) -> Size | None:
    """Return the size of all pictures of a source; None if they may differ."""
    match term:
        case NamedTerm(source=source):
            side = SIDES.get(source, CIFAR)
            return side, side
        case LocatedTerm(source="npz", path=path):
            choice = write_choice(term.classes, term.without)
            block = next(open_npz(find_place(path, data_dir), split="train", choice=choice).blocks)
            if not isinstance(block, Unreadable):
                height, width = block.images.shape[2:]
                return width, height
        case ShardsTerm(url=url) if not find_foreign(url):
            _, height, width = read_index(Store.at(url))[0].image_shape
            return width, height
    return None


def _sample(
    expression: str, data_dir: Path | None, *, num: int
) -> Iterator[tuple[Sequence[Path] | Sequence[io.BytesIO], int]]:
    """Yield about `num` training pictures of each source of picture files, and how many it has."""
    for _, listing in list_files(expression, data_dir=data_dir):
        files = listing.of_split("train").files
        yield files[:: max(1, len(files) // num)], len(files)
    yield from _sample_shards(parse(expression), num=num)


def _sample_shards(terms: Sequence[Term], *, num: int) -> Iterator[tuple[Sequence[io.BytesIO], int]]:
    """Yield about `num` training pictures of each source of shards of other programs, and how many it has."""
    for term in terms:
        if isinstance(term, ShardsTerm) and (archives := find_foreign(term.url)):
            contents, num_files = sample_training(archives, num=num)
            yield [io.BytesIO(content) for content in contents], num_files


def _measure(file: Path | io.BytesIO) -> Size | None:
    """Read the size of a picture from its header; None if it cannot be read, which is reported when pixels are."""
    with suppress(UserError), opening(file, name="") as picture:
        return picture.size
    return None

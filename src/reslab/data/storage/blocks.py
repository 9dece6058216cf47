"""A source that is read block by block, so that it may be larger than memory.

Axes: N images, C channels, H rows, W columns, K classes.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from reslab.data.framing import frame
from reslab.errors import UserError
from reslab.recipe.shapes import Resizing


class Block(NamedTuple):
    """Images (M, C, H, W) uint8 with labels (M,) int64, and their indices (M,) in the set.

    `whites` are the smallest whites that hold those pictures that have more than 8 bits of grey.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    places: NDArray[np.int64]
    whites: tuple[int, ...] = ()


class Unreadable(NamedTuple):
    """An image that cannot be read, and a sentence that says why."""

    place: int
    sentence: str


@dataclass(frozen=True)
class Source:
    """One split before it is read: N images, K class names, and the blocks, which can be iterated over once.

    The stamp changes whenever the images or their labels may have changed. Names, keys and digests are those of an
    `ImageSet`.
    """

    num_images: int
    classes: tuple[str, ...]
    blocks: Iterator[Block | Unreadable]
    stamp: str
    names: tuple[str, ...] | None = None
    keys: NDArray[np.uint64] | None = None
    digests: NDArray[np.uint64] | None = None


def in_order(images: NDArray[np.uint8], labels: NDArray[np.int64], *, start: int) -> Block:
    """Make a block whose images follow the first `start` ones."""
    return Block(images, labels, np.arange(start, start + len(labels)))


def stamp_files(files: Sequence[Path]) -> str:
    """Hash the names, inodes, sizes and times of files. Raises: UserError if one is missing.

    A file replaced by one of the same size and modification time is still detected: its inode or its change time,
    which no program can set, differs.
    """
    digest = hashlib.sha256()
    for file in files:
        try:
            status = file.stat()
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror}") from None
        digest.update(f"{os.path.abspath(file)}\0{version_of(status)}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()


def version_of(status: os.stat_result) -> tuple[int, ...]:
    """Return values that differ between two versions of a file."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def resize(images: NDArray[np.uint8], size: int, how: Resizing = "squeeze") -> NDArray[np.uint8]:
    """Resize (N, C, H, W) to (N, C, size, size), bilinear with antialiasing; within 1 of Pillow's result."""
    height, width = images.shape[2:]
    if (height, width) == (size, size):
        return images
    box, (inner_width, inner_height), (x, y) = frame(width, height, side=size, resize=how)
    left, top, right, bottom = map(int, box)
    taken = torch.from_numpy(images)[..., top:bottom, left:right]
    resized = F.interpolate(taken, size=(inner_height, inner_width), mode="bilinear", antialias=True)
    bars = (x, size - inner_width - x, y, size - inner_height - y)
    return (F.pad(resized, bars) if any(bars) else resized).contiguous().numpy()

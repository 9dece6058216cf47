"""Images outside memory, with a tensor's shape, length and indexing.

Every selection is read into a new tensor; nothing here ever reads a whole set. Axes: N images, C channels, H rows,
W columns. Pixels are uint8, 0 to 255.
"""

import io
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reslab.data.pictures import with_channels
from reslab.errors import Failure

Places = NDArray[np.int64]
Chosen = slice | int | Tensor | NDArray[np.int64] | NDArray[np.bool_] | Sequence[int] | Sequence[bool]

SMALL = 64 << 20  # bytes: smaller sets are held in memory, which is faster
BLOCK = 16 << 20  # bytes read at a time when iterating over a whole set


class Pixels(ABC):
    """Images (N, C, H, W) uint8 outside memory; `pixels[chosen]` reads some of them, as it would of a tensor."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, chosen: Chosen) -> Tensor:
        places = to_places(chosen, len(self))
        return torch.from_numpy(self.read(places.reshape(-1))).reshape(*places.shape, *self.shape[1:])

    @abstractmethod
    def read(self, places: Places) -> NDArray[np.uint8]:
        """Read the images at `places` (M,) in that order: (M, C, H, W)."""

    @property
    def is_streamed(self) -> bool:
        """Whether the images are remote and only fast to read in one order."""
        return False

    def contents(self) -> Iterator[NDArray[np.uint8]]:
        """Return blocks of bytes that identify these images: all their bytes, in order."""
        return (block.numpy().reshape(-1) for block in blocks_of(self))

    def select(self, places: Places) -> "Tensor | Pixels":
        """Select images: read them if they are few and local, else return a view."""
        if not self.is_streamed and len(places) * _image_bytes(self.shape) < SMALL:
            return self[places]
        return Selected(self, places)


class Selected(Pixels):
    """Some images of `base`, in any order."""

    def __init__(self, base: Pixels, places: Places) -> None:
        super().__init__((len(places), *base.shape[1:]))
        self.base, self.places = base, places

    def read(self, places: Places) -> NDArray[np.uint8]:
        return self.base.read(self.places[places])

    @property
    def is_streamed(self) -> bool:
        return self.base.is_streamed

    def contents(self) -> Iterator[NDArray[np.uint8]]:
        if not self.is_streamed:
            return super().contents()
        return chain(self.base.contents(), [self.places.astype("<i8").view(np.uint8)])

    def select(self, places: Places) -> Tensor | Pixels:
        return self.base.select(self.places[places])


class Joined(Pixels):
    """Several sets of images of the same shape, one after another."""

    def __init__(self, parts: Sequence[NDArray[np.uint8] | Pixels]) -> None:
        self.parts = tuple(parts)
        self.ends = np.cumsum([len(part) for part in parts])
        super().__init__((int(self.ends[-1]), *parts[0].shape[1:]))

    def read(self, places: Places) -> NDArray[np.uint8]:
        images = np.empty((len(places), *self.shape[1:]), dtype=np.uint8)
        owners = np.searchsorted(self.ends, places, side="right")
        for number in np.unique(owners):
            part, begin = self.parts[number], self.ends[number] - len(self.parts[number])
            inside = places[owners == number] - begin
            images[owners == number] = part.read(inside) if isinstance(part, Pixels) else part[inside]
        return images


class Converted(Pixels):
    """Images in grey or in RGB, whichever `base` is not."""

    def __init__(self, base: Pixels, channels: int) -> None:
        super().__init__((len(base), channels, *base.shape[2:]))
        self.base = base

    def read(self, places: Places) -> NDArray[np.uint8]:
        return with_channels(self.base.read(places), self.shape[1])


class StoredPixels(Pixels):
    """A file of images, raw and one after another.

    It is read, not memory-mapped: mapped pages count as memory until released, and mapping anew for each image takes
    longer than copying it. The system caches what was read, and all processes share that cache.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self.path, self._file = path, path.open("rb", buffering=0)
        weakref.finalize(self, self._file.close)

    def read(self, places: Places) -> NDArray[np.uint8]:
        """Read runs of adjacent images at once. Raises: Failure if the file has been truncated since."""
        images = np.empty((len(places), *self.shape[1:]), dtype=np.uint8)
        into, size = memoryview(images.reshape(-1).data), _image_bytes(self.shape)
        jumps = np.flatnonzero(places[1:] != places[:-1] + 1) + 1
        borders, numbers = [0, *jumps.tolist(), len(places)], places.tolist()
        for begin, end in pairwise(borders) if numbers else ():
            self._fill(into[begin * size : end * size], at=numbers[begin] * size)
        return images

    def _fill(self, into: memoryview, *, at: int) -> None:
        """Read bytes from `at` on; the system returns at most 2 GB at a time."""
        while into:
            num = _read_some(self._file, into, at=at)
            if not num:
                raise Failure(f"{self.path} was truncated while in use: start again to rebuild it")
            into, at = into[num:], at + num


def _read_some(file: io.FileIO, into: memoryview, *, at: int) -> int:
    """Read some bytes, if possible by a call that does not move the file position, which threads share."""
    if hasattr(os, "preadv"):
        return os.preadv(file.fileno(), [into], at)
    file.seek(at)
    return file.readinto(into) or 0


def blocks_of(images: Tensor | Pixels) -> Iterator[Tensor]:
    """Iterate over all images in order, a few at a time."""
    step = max(1, BLOCK // max(1, _image_bytes(tuple(images.shape))))
    for start in range(0, len(images), step):
        yield images[start : start + step]


def join(parts: Sequence[NDArray[np.uint8] | Pixels]) -> NDArray[np.uint8] | Pixels:
    """Concatenate sets of images of the same shape; copied if all of them are in memory."""
    arrays = [part for part in parts if not isinstance(part, Pixels)]
    return np.concatenate(arrays) if len(arrays) == len(parts) else Joined(parts)


def _image_bytes(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[1:], dtype=np.int64))


def to_places(chosen: Chosen, num: int) -> Places:
    """Turn a slice, indices (negative ones count from the end) or a mask (`num`,) into places from 0 on.

    Raises: IndexError if they are none of these, or beyond the `num` images.
    """
    if isinstance(chosen, slice):
        return np.arange(*chosen.indices(num))
    places: NDArray[Any] = np.asarray(chosen.cpu() if isinstance(chosen, Tensor) else chosen)
    if places.dtype == bool and places.shape == (num,):
        return np.flatnonzero(places)
    if places.size and (places.dtype.kind not in "iu" or places.min() < -num or places.max() >= num):
        raise IndexError(f"images are chosen by indices from {-num:,} to {num - 1:,}, or by a mask of {num:,}")
    places = places.astype(np.int64)
    return np.where(places < 0, places + num, places)

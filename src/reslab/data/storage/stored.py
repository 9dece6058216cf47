"""Images that were read once, in the cache on the disk: raw pixels, of which processes read what they need.

An entry has `images.bin`, (N, C, H, W) uint8, and `labels.npy`, (N,) int64. Its name covers the source, its files'
names and versions, the split and the size of the images.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reslab.data.images import Labelled, Split
from reslab.data.pixels import SMALL, StoredPixels
from reslab.data.storage.blocks import Block, Source, resize
from reslab.data.storage.cache import make_room, name_of, opening, read_facts
from reslab.errors import Failure
from reslab.runs.files import writing

FORMAT = 1


def read_cached(source: Source, *, origin: str, split: Split, image_size: int) -> Labelled:
    """Give the images of `source`, squares of `image_size` pixels, from the cache; they are put there if need be.

    Few images are read into memory, many stay in their file. Raises: UserError or Failure where the disk cannot take
    them, and what reading the source raises.
    """

    def make(part: Path) -> dict[str, Any]:
        shape, labels = _write_images(part / "images.bin", source, image_size=image_size)
        writing(part, lambda: np.save(part / "labels.npy", labels))
        return {"origin": origin, "split": split, "shape": shape}

    with opening(name_of(FORMAT, origin, split, image_size, source.stamp, source.classes), make) as path:
        return _open(path, source.classes)


def _open(path: Path, classes: tuple[str, ...]) -> Labelled:
    shape = tuple(read_facts(path)["shape"])
    labels: NDArray[np.int64] = np.load(path / "labels.npy", allow_pickle=False)
    if int(np.prod(shape, dtype=np.int64)) < SMALL:
        return Labelled(np.fromfile(path / "images.bin", dtype=np.uint8).reshape(shape), labels, classes)
    return Labelled(StoredPixels(path / "images.bin", shape), labels, classes)


def _write_images(path: Path, source: Source, *, image_size: int) -> tuple[list[int], NDArray[np.int64]]:
    labels = np.full(source.num_images, -1, dtype=np.int64)
    channels = 0
    with writing(path, lambda: path.open("wb")) as file:
        for block in source.blocks:
            images = resize(block.images, image_size)
            if not channels:
                channels = images.shape[1]
                make_room(
                    source.num_images * channels * image_size**2,
                    what="the images",
                    otherwise=", or stream them from shards (--set stream=10000)",
                )
            labels[block.places] = block.labels
            writing(path, lambda images=images, block=block: _write_block(file, images, block))  # type: ignore[misc]
        writing(path, file.flush)
    if (labels < 0).any():
        raise Failure(f"{path.name}: {int((labels < 0).sum())} images of the source never came")
    return [source.num_images, channels, image_size, image_size], labels


def _write_block(file: Any, images: NDArray[np.uint8], block: Block) -> None:
    """Write each run of images that follow on each other at once."""
    for run in np.split(np.arange(len(images)), np.flatnonzero(np.diff(block.places) != 1) + 1):
        file.seek(int(block.places[run[0]]) * images[0].nbytes)
        file.write(np.ascontiguousarray(images[run[0] : run[-1] + 1]).data)

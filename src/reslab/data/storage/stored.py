"""Raw pixels of images in the cache on disk, from which processes read what they need.

An entry has `images.bin`, (N, C, H, W) uint8, and `labels.npy`, (N,) int64; an unreadable image has the label -1, and
`entry.json` says why. The cache key covers the source, its files' names and versions, the labels, the split, the
image size, how pictures become squares, and white.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reslab.data.framing import Form
from reslab.data.images import Labelled
from reslab.data.notes import say_once
from reslab.data.pixels import SMALL, StoredPixels
from reslab.data.progress import counting
from reslab.data.storage.blocks import Block, Source, Unreadable, resize
from reslab.data.storage.cache import make_room, name_of, opening, read_facts
from reslab.errors import Failure, UserError
from reslab.records import SplitName
from reslab.runs.files import writing
from reslab.words import counted, some

FORMAT = 5  # increase it when pixels change, or which pictures are read
_DAMAGED_SHOWN = 10
_LEAVE_OUT = "train, fit, extend and evaluate --data leave {} out with --skip-damaged"
_DAMAGED_NAMED = 3  # when they are left out


class DamagedPictures(UserError):  # noqa: N818 - a kind of error, not its name
    """Pictures of a source cannot be read; `sentences` are those of `decode`."""

    def __init__(self, sentences: Sequence[str], *, origin: str) -> None:
        super().__init__(describe_damaged(sentences, origin=origin))
        self.sentences = tuple(sentences)


def read_cached(
    source: Source,
    *,
    origin: str,
    split: SplitName,
    form: Form,
    skip_damaged: bool = False,
) -> Labelled:
    """Return the images of `source` as squares, in their own channels, from the cache, storing them first if necessary.

    Small sets are read into memory, large ones stay in their file. With `skip_damaged`, unreadable images are counted
    and left out. Raises: DamagedPictures that names them otherwise; UserError or Failure if the cache cannot store the
    images, and whatever reading the source raises.
    """

    def make(part: Path) -> dict[str, Any]:
        shape, labels, damaged, whites = _write_images(part / "images.bin", source, origin=origin, form=form)
        writing(part, lambda: np.save(part / "labels.npy", labels))
        return {"origin": origin, "split": split, "shape": shape, "damaged": damaged, "whites": sorted(whites.items())}

    identity = (FORMAT, origin, split, form.image_size, form.resize, form.white, source.stamp, source.classes)
    with opening(name_of(*identity), make) as path:
        facts = read_facts(path)
        images = _open(path, source, shape=tuple(facts["shape"]))
    if split == "train" and form.white is not None:
        for line in _compare_whites(form.white, dict(facts["whites"])):
            say_once(f"{origin}: {line}")
    damaged: list[str] = [sentence for _, sentence in facts["damaged"]]
    if not damaged:
        return images
    if not skip_damaged:
        raise DamagedPictures(damaged, origin=origin)
    shown = some([_without_advice(sentence) for sentence in damaged], len(damaged), _DAMAGED_NAMED)
    say_once(f"{origin}: {counted(len(damaged), 'damaged picture')} left out of the {split} split: {shown}")
    return images.subset(np.flatnonzero(images.labels >= 0))._replace(num_damaged=len(damaged))


def _compare_whites(white: int, own: dict[int, int]) -> Iterator[str]:
    """Say if many grey pictures stay far below white, or some are brighter; `own` counts them by their own whites."""
    total = sum(own.values())
    darker = {each: num for each, num in own.items() if each < white}
    if (num := sum(darker.values())) > total / 2:
        yield (
            f"{num:,} of {counted(total, 'grey picture')} stay within {max(darker):,} while white is {white:,}: "
            f"--set white={max(darker)} shows more of them, and clips brighter ones"
        )
    if num := sum(num for each, num in own.items() if each > white):
        yield f"{counted(num, 'grey picture')} of {total:,} are clipped, since white is {white:,}"


def describe_damaged(sentences: Sequence[str], *, origin: str) -> str:
    """Combine sentences of `decode` about unreadable images into one."""
    if len(sentences) == 1:
        return f"{origin}: {sentences[0]}; {_LEAVE_OUT.format('it')}"
    shown = "; ".join(_without_advice(sentence) for sentence in sentences[:_DAMAGED_SHOWN])
    more = f"; and {len(sentences) - _DAMAGED_SHOWN:,} more" if len(sentences) > _DAMAGED_SHOWN else ""
    return (
        f"{len(sentences):,} pictures of {origin} cannot be used: {shown}{more}: replace or remove them; "
        f"{_LEAVE_OUT.format('them')}"
    )


def _without_advice(sentence: str) -> str:
    return sentence.rpartition(": ")[0]


def _open(path: Path, source: Source, *, shape: tuple[int, ...]) -> Labelled:
    labels: NDArray[np.int64] = np.load(path / "labels.npy", allow_pickle=False)
    images: NDArray[np.uint8] | StoredPixels
    if int(np.prod(shape, dtype=np.int64)) < SMALL:
        images = np.fromfile(path / "images.bin", dtype=np.uint8).reshape(shape)
    else:
        images = StoredPixels(path / "images.bin", shape)
    return Labelled(images, labels, source.classes, source.names, source.keys, source.digests)


def _write_images(
    path: Path, source: Source, *, origin: str, form: Form
) -> tuple[list[int], NDArray[np.int64], list[Unreadable], Counter[int]]:
    labels = np.full(source.num_images, -1, dtype=np.int64)
    damaged: list[Unreadable] = []
    whites: Counter[int] = Counter()
    channels = num_done = num_bytes = 0
    with writing(path, lambda: path.open("wb")) as file, counting(origin, total=source.num_images) as show:
        for block in source.blocks:
            if isinstance(block, Unreadable):
                damaged.append(block)
                continue
            num_done += len(block.places)
            show(num_done)
            images = resize(block.images, form.image_size, form.resize)
            if not channels:
                channels = images.shape[1]
                num_bytes = source.num_images * images[0].nbytes
                make_room(
                    num_bytes,
                    what="the images",
                    otherwise=", or stream them from shards (--set stream=10000)",
                )
            labels[block.places] = block.labels
            whites.update(block.whites)
            writing(path, lambda images=images, block=block: _write_block(file, images, block))  # type: ignore[misc]
        if damaged:
            if not channels:
                raise DamagedPictures([each.sentence for each in damaged], origin=origin)
            writing(path, lambda: file.truncate(num_bytes))
        writing(path, file.flush)
    if missing := int((labels < 0).sum()) - len(damaged):
        raise Failure(f"{path.name}: {missing} images of the source are missing")
    return [source.num_images, channels, form.image_size, form.image_size], labels, damaged, whites


def _write_block(file: Any, images: NDArray[np.uint8], block: Block) -> None:
    """Write each run of adjacent images at once."""
    for run in np.split(np.arange(len(images)), np.flatnonzero(np.diff(block.places) != 1) + 1):
        file.seek(int(block.places[run[0]]) * images[0].nbytes)
        file.write(np.ascontiguousarray(images[run[0] : run[-1] + 1]).data)

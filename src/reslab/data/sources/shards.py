"""Images in shards: tar archives in the WebDataset layout, read from a folder or an address.

A shard contains, for each image, `000000123.png` and its label `000000123.cls`; the number is its index in the packed
set. Nothing is unpacked to disk or unpickled: every member must be a picture or a number, or the shard is refused.
Axes: N images, C channels, H rows, W columns.
"""

import hashlib
import io
import os
import re
import sys
import tarfile
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reslab.data.framing import Form
from reslab.data.images import Labelled
from reslab.data.pictures import decode, with_channels
from reslab.data.pixels import Pixels, Places
from reslab.data.sources.shard_index import (
    Hashes,
    Shard,
    Store,
    compare,
    find_damaged,
    read_hashes,
    read_index,
    read_labels,
)
from reslab.data.storage.blocks import Block, Source
from reslab.errors import UserError, naming_problem
from reslab.records import SplitName
from reslab.words import printable

PICTURES = ("png", "jpg", "jpeg", "webp")
MEMBER = re.compile(rf"[0-9]{{1,15}}\.({'|'.join(PICTURES)}|cls|json)")
MAX_SHARD = 4 << 30  # bytes
MAX_MEMBER = 100 << 20  # bytes
WORKERS = min(8, os.cpu_count() or 1)


class Reader:
    """The undamaged shards of one split, and their images in the requested form.

    Raises: UserError if there are no such shards, or one is missing or truncated and must not be skipped.
    """

    def __init__(self, url: str, split: SplitName, *, form: Form, skip_damaged: bool, deep: bool) -> None:
        self.store = Store.at(url)
        self.index, digest = read_index(self.store)
        if split not in self.index.splits:
            raise UserError(f"{url} holds no shards of the {split} split: pack it again")
        shards = self.index.splits[split].shards
        ends = np.cumsum([shard.num_images for shard in shards])
        labels = np.split(read_labels(self.store, self.index, split), ends[:-1])
        hashes = read_hashes(self.store, self.index, split)
        damaged = find_damaged(self.store, shards)
        if skip_damaged and deep:
            damaged |= self._find_changed(shards, damaged)
        self._say(damaged, shards, skip=skip_damaged)
        kept = [number for number in range(len(shards)) if number not in damaged]
        if not kept:
            raise UserError(f"{url} has no undamaged shard of the {split} split: pack it again")
        self.shards, self.labels = [shards[number] for number in kept], [labels[number] for number in kept]
        self.is_whole, self.form = not damaged, form
        is_kept = np.isin(np.searchsorted(ends, np.arange(ends[-1]), side="right"), kept)
        self.hashes = None if hashes is None else Hashes(*(each[is_kept] for each in hashes))
        channels = self.index.image_shape[0] if form.channels == "auto" else form.channels
        self.shape = (channels, form.image_size, form.image_size)
        self.stamp = hashlib.sha256(f"{digest} {kept}".encode()).hexdigest()

    def _find_changed(self, shards: tuple[Shard, ...], known: dict[int, str]) -> dict[int, str]:
        """Check the contents of the shards that have the right size."""
        some = [(number, shard) for number, shard in enumerate(shards) if number not in known]
        problems = ((number, compare(self.store.read(shard.name), shard)) for number, shard in some)
        return {number: f"is damaged ({problem})" for number, problem in problems if problem}

    def _say(self, damaged: dict[int, str], shards: tuple[Shard, ...], *, skip: bool) -> None:
        if not damaged:
            return
        first, problem = next(iter(damaged.items()))
        more = f" (and {len(damaged) - 1} more of {len(shards)} are incomplete)" if len(damaged) > 1 else ""
        words = f"the shard {self.store.url}/{shards[first].name} {problem}{more}"
        if not skip:
            raise UserError(f"{words}: copy or pack it again, or train without it (--set skip_damaged=true)")
        names = ", ".join(shards[number].name for number in damaged)
        lost = sum(shards[number].num_images for number in damaged)
        print(printable(f"reslab: {self.store.url} is read without {names} ({lost:,} images)"), file=sys.stderr)

    def read(self, number: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Read a shard: images (M, C, H, W) and their numbers (M,). Raises: UserError that names the shard."""
        shard = self.shards[number]
        where = f"the shard {self.store.url}/{shard.name}"
        if shard.num_bytes > MAX_SHARD:
            raise UserError(f"{where} is too large: pack fewer images into one")
        try:
            content = self.store.read(shard.name)
        except FileNotFoundError:
            raise UserError(f"{where} is missing: copy or pack it again") from None
        if problem := compare(content, shard):
            raise UserError(f"{where} is damaged ({problem}): copy or pack it again")
        samples = read_samples(content, where=where)
        _check_labels(samples, self.labels[number], where=where)
        with ThreadPoolExecutor(WORKERS) as pool:
            images = list(pool.map(lambda sample: self._decode(sample, where), samples))
        return np.stack(images), np.array([int(sample["__key__"]) for sample in samples], dtype=np.int64)

    def _decode(self, sample: dict[str, Any], where: str) -> NDArray[np.uint8]:
        kind = next(kind for kind in PICTURES if kind in sample)
        name = f"{where}: {sample['__key__']}.{kind}"
        image = decode(io.BytesIO(sample[kind]), image_size=self.shape[1], resize=self.form.resize, name=name)
        return with_channels(image, self.shape[0])

    def find_hashes(self, *, by_place: bool) -> tuple[NDArray[np.uint64] | None, NDArray[np.uint64] | None]:
        """Return the images' keys and digests, if their source had any, by original index or in the shards' order."""
        if self.hashes is None:
            return None, None
        order = np.argsort(self.hashes.places) if by_place else slice(None)
        keys, digests = (each[order] if each.any() else None for each in self.hashes[1:])
        return keys, digests

    def blocks(self) -> Iterator[Block]:
        """Read all shards, with images at their original indices, or in shard order if some shards are skipped."""
        seen = np.zeros(sum(map(len, self.labels)), dtype=bool)
        for number, labels in enumerate(self.labels):
            images, places = self.read(number)
            if not self.is_whole:
                places = np.flatnonzero(~seen)[: len(labels)]
            if len(np.unique(places)) < len(places) or places.max() >= len(seen) or seen[places].any():
                name = self.shards[number].name
                raise UserError(
                    f"the shard {self.store.url}/{name} numbers an image twice or beyond the last: pack again"
                )
            seen[places] = True
            order = np.argsort(places)
            yield Block(images[order], labels[order], places[order])


def read_samples(content: bytes, *, where: str) -> list[dict[str, Any]]:
    """Parse a shard: for each image its `__key__` and, by ending, the bytes of its files.

    Raises: UserError if it is not a plain tar archive, or holds anything but pictures and labels.
    """
    samples: dict[str, dict[str, Any]] = {}
    broken = f"{where} is not a valid tar archive"
    with naming_problem(broken), tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
        members = tar.getmembers()
        _check_members(members, where=where)
        files = [(member.name, tar.extractfile(member).read()) for member in members]  # type: ignore[union-attr]
    for name, file in files:
        key, _, kind = name.partition(".")
        sample = samples.setdefault(key, {"__key__": key})
        if kind in sample:
            raise UserError(f"{where} holds {name} twice: pack it again")
        sample[kind] = file
    return list(samples.values())


def _check_members(members: list[tarfile.TarInfo], *, where: str) -> None:
    """Refuse members that reslab's shards never have (links, paths, huge files) before reading any."""
    for member in members:
        if not member.isreg() or member.issparse() or not MEMBER.fullmatch(member.name):
            kinds = ", ".join((*PICTURES, "cls"))
            raise UserError(f"{where} holds {member.name[:80]!r}, which is not a shard file: NUMBER.({kinds})")
        if member.size > MAX_MEMBER:
            raise UserError(f"{where} holds {member.name} of {member.size:,} bytes: at most {MAX_MEMBER:,} are read")


def _check_labels(samples: list[dict[str, Any]], labels: NDArray[np.int64], *, where: str) -> None:
    if len(samples) != len(labels):
        raise UserError(f"{where} holds {len(samples)} images instead of {len(labels)}: copy or pack it again")
    for sample, label in zip(samples, labels.tolist(), strict=True):
        key = sample["__key__"]
        if not any(kind in sample for kind in PICTURES):
            raise UserError(f"{where} has no picture for {key}.cls: pack it again")
        if "cls" not in sample:
            raise UserError(f"{where} has no label {key}.cls: pack it again")
        if sample["cls"] != str(label).encode():
            raise UserError(f"{where}: {key}.cls is not the label {label} that the index has: pack it again")


def open_shards(url: str, *, split: SplitName, form: Form, skip_damaged: bool) -> Source:
    """Open the shards of one split; its blocks are (M, C, image_size, image_size) and can be read once."""
    reader = Reader(url, split, form=form, skip_damaged=skip_damaged, deep=True)
    keys, digests = reader.find_hashes(by_place=reader.is_whole)
    num_images = sum(map(len, reader.labels))
    return Source(num_images, reader.index.classes, reader.blocks(), reader.stamp, keys=keys, digests=digests)


def white_of_shards(url: str) -> int | None:
    """Return the white of the pictures that were packed. Raises: UserError if the index is missing or invalid."""
    return read_index(Store.at(url))[0].white


class Sharded(Pixels):
    """Images left in their shards: a shard is read when one of its images is needed, and `buffer` images are kept.

    Fast only if images are requested shard by shard.
    """

    def __init__(self, reader: Reader, *, buffer: int) -> None:
        self.reader, self.buffer = reader, buffer
        self.counts = np.array([len(labels) for labels in reader.labels])
        self.ends = np.cumsum(self.counts)
        self._held: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        super().__init__((int(self.ends[-1]), *reader.shape))

    @property
    def is_streamed(self) -> bool:
        return True

    def contents(self) -> Iterator[NDArray[np.uint8]]:
        return (np.frombuffer(bytes.fromhex(shard.sha256), dtype=np.uint8) for shard in self.reader.shards)

    def shards_of(self, places: Places) -> NDArray[np.int64]:
        return np.searchsorted(self.ends, places, side="right")

    def read(self, places: Places) -> NDArray[np.uint8]:
        images = np.empty((len(places), *self.shape[1:]), dtype=np.uint8)
        owners = self.shards_of(places)
        # Cached shards first, before others evict them; those read last are the likeliest to be needed again.
        for number in sorted(dict.fromkeys(owners.tolist()), key=lambda number: number not in self._held):
            inside = places[owners == number] - (self.ends[number] - self.counts[number])
            images[owners == number] = self._shard(number)[inside]
        return images

    def _shard(self, number: int) -> NDArray[np.uint8]:
        if number not in self._held:
            while self._held and sum(map(len, self._held.values())) + self.counts[number] > self.buffer:
                self._held.popitem(last=False)
            self._held[number] = self.reader.read(number)[0]
        self._held.move_to_end(number)
        return self._held[number]


def stream_shards(url: str, *, split: SplitName, form: Form, skip_damaged: bool, buffer: int) -> Labelled:
    """Open the shards of one split without reading them."""
    reader = Reader(url, split, form=form, skip_damaged=skip_damaged, deep=False)
    keys, digests = reader.find_hashes(by_place=False)
    labels = np.concatenate(reader.labels)
    return Labelled(Sharded(reader, buffer=buffer), labels, reader.index.classes, keys=keys, digests=digests)

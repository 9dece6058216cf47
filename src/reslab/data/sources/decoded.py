"""Decode the pictures of a listing, a few at a time in several threads, and report unreadable ones."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from reslab.data.framing import Form
from reslab.data.pictures import UnavailableError, describe_decoders, opening, shrink, white_of
from reslab.data.sources.listing import Listing, keys_of
from reslab.data.storage.blocks import Block, Source, Unreadable, stamp_files
from reslab.errors import UserError
from reslab.records import SplitName

WORKERS = min(8, os.cpu_count() or 1)
BLOCK = 256  # pictures at a time


def open_listing(listing: Listing, *, split: SplitName, form: Form) -> Source:
    """Return the pictures of a split as a source whose blocks are (M, 3, image_size, image_size)."""
    part = listing.of_split(split)
    places = [slice(start, start + BLOCK) for start in range(0, len(part.files), BLOCK)]
    blocks = (list(zip(part.names[place], part.files[place], strict=True)) for place in places)
    return Source(
        num_images=len(part.files),
        classes=part.classes,
        blocks=decode_all(blocks, part.labels, form),
        stamp=f"{stamp_files(part.files)} {describe_decoders()} {hashlib.sha256(part.labels.tobytes()).hexdigest()}",
        names=part.names,
        keys=part.keys(),
        digests=keys_of(part.digests()),
    )


def decode_all(
    blocks: Iterable[Sequence[tuple[str, Path | BinaryIO]]], labels: NDArray[np.int64], form: Form
) -> Iterator[Block | Unreadable]:
    """Decode pictures, given with their names, one block after another to (M, 3, image_size, image_size).

    Raises: UnavailableError if one may be sound but cannot be read now.
    """

    def read(picture: tuple[str, Path | BinaryIO]) -> tuple[NDArray[np.uint8], int | None] | str:
        name, file = picture
        try:
            with opening(file, name=name) as image:
                pixels = shrink(image, image_size=form.image_size, resize=form.resize, white=form.white)
                return pixels, white_of(image)
        except UnavailableError:
            raise
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(WORKERS) as pool:
        start = 0
        for block in blocks:
            answers = dict(enumerate(pool.map(read, block), start))
            start += len(answers)
            sound = {place: answer for place, answer in answers.items() if not isinstance(answer, str)}
            yield from (Unreadable(place, answer) for place, answer in answers.items() if isinstance(answer, str))
            if sound:
                images, whites = zip(*sound.values(), strict=True)
                numbers = np.array(list(sound), dtype=np.int64)
                yield Block(np.stack(images), labels[numbers], numbers, tuple(filter(None, whites)))

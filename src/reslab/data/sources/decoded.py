"""The pictures of a listing, decoded a few at a time by several threads; those that cannot be read are named."""

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reslab.data.images import Split
from reslab.data.pictures import decode
from reslab.data.sources.listing import Listing, keys_of
from reslab.data.storage.blocks import Block, Source, Unreadable, stamp_files
from reslab.errors import UserError
from reslab.recipe.shapes import Resizing

WORKERS = min(8, os.cpu_count() or 1)
BLOCK = 256  # pictures at a time


def open_listing(listing: Listing, *, split: Split, image_size: int, resize: Resizing = "squeeze") -> Source:
    """Choose the pictures of a split; the blocks are (M, 3, image_size, image_size)."""
    part = listing.of_split(split)
    return Source(
        num_images=len(part.files),
        classes=part.classes,
        blocks=_decode_all(part, image_size, resize),
        stamp=stamp_files(part.files),
        names=part.names,
        keys=part.keys(),
        digests=keys_of(part.digests()),
    )


def _decode_all(listing: Listing, image_size: int, resize: Resizing) -> Iterator[Block | Unreadable]:
    def read(place: int) -> NDArray[np.uint8] | str:
        try:
            return decode(listing.files[place], image_size=image_size, resize=resize, name=listing.names[place])
        except UserError as error:
            return str(error)

    with warnings.catch_warnings(), ThreadPoolExecutor(WORKERS) as pool:
        # Between 89 and 179 megapixels Pillow warns; above it refuses, which is the limit that counts here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for start in range(0, len(listing.files), BLOCK):
            places = range(start, min(start + BLOCK, len(listing.files)))
            answers = dict(zip(places, pool.map(read, places), strict=True))
            images = {place: answer for place, answer in answers.items() if not isinstance(answer, str)}
            yield from (Unreadable(place, answer) for place, answer in answers.items() if isinstance(answer, str))
            if images:
                sound = np.array(list(images), dtype=np.int64)
                yield Block(np.stack(list(images.values())), listing.labels[sound], sound)

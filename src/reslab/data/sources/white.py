"""The white of a source: one grey value for all its pictures of more than 8 bits, found from training pictures alone.

It is the smallest of `WHITES` that holds every training picture. Two exposures of one scene therefore stay different,
and whatever is brighter in a later picture is clipped.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from reslab.data.pictures import describe_decoders, look_for_white
from reslab.data.progress import in_threads
from reslab.data.sources.listing import Listing
from reslab.data.storage.blocks import stamp_files
from reslab.data.storage.cache import name_of, opening, read_facts

FORMAT = 1  # increase it when whites change


def white_of_listing(listing: Listing) -> int | None:
    """Find the white of a listing's training pictures; None if none has more than 8 bits of grey."""
    part = listing.of_split("train")
    pictures, origin = list(zip(part.names, part.files, strict=True)), str(listing.root)
    return keep_white(lambda: white_of_pictures(pictures, origin=origin), stamp=stamp_files(part.files), origin=origin)


def white_of_pictures(pictures: Sequence[tuple[str, Path | BinaryIO]], *, origin: str) -> int | None:
    """Find the smallest white that holds all pictures, given with names; None if none has more than 8 bits of grey."""

    def find(picture: tuple[str, Path | BinaryIO]) -> int | None:
        name, file = picture
        return look_for_white(file, name=name)

    return brightest(in_threads(find, pictures, what=f"{origin}: brightest values"))


def brightest(whites: Iterable[int | None]) -> int | None:
    """Return the largest white; None if there is none."""
    return max(filter(None, whites), default=None)


def keep_white(find: Callable[[], int | None], *, stamp: str, origin: str) -> int | None:
    """Return a white from the cache if the stamp and the decoders are the same, else find it."""

    def make(_: Path) -> dict[str, object]:
        return {"origin": origin, "split": "white", "shape": [], "white": find()}

    with opening(name_of("white", FORMAT, describe_decoders(), stamp), make) as path:
        white: int | None = read_facts(path)["white"]
    return white

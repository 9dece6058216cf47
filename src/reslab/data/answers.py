"""Classification of any number of picture files, read and classified a few at a time. No torch.

Axes: N pictures, C channels, H rows, W columns, K classes.
"""

import glob
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reslab.data.pictures import Answer, Said, Wanted, check_taken, is_picture, name_best, read_pictures, walk_pictures
from reslab.data.progress import READERS, counting
from reslab.errors import UserError
from reslab.recipe.shapes import Resizing

BLOCK = 256  # pictures at a time


@dataclass(frozen=True)
class Unread:
    """A file that cannot be read as a picture, and a sentence that says why."""

    file: str
    sentence: str


def find_pictures(paths: Sequence[Path]) -> list[Path]:
    """Expand folders recursively and patterns such as `photos/*.jpg`; keep other paths as they are.

    Raises: UserError if a folder or a pattern contains no pictures.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(walk_pictures(path))
        elif not path.exists() and glob.has_magic(str(path)):
            found = [Path(each) for each in sorted(glob.glob(str(path), recursive=True)) if _is_taken(Path(each))]
        else:
            found = [path]
        if not found:
            raise UserError(
                f"{path} holds no picture: give picture files, folders of them, or a pattern such as '*.jpg'"
            )
        files += found
    return files


def _is_taken(path: Path) -> bool:
    return not path.name.startswith(".") and path.is_file() and is_picture(path)


def answer_all(
    files: Sequence[Path],
    say: Callable[[NDArray[np.uint8]], Said],
    *,
    classes: Sequence[str],
    image_size: int,
    channels: int,
    resize: Resizing,
    white: int | None,
    wanted: Wanted,
) -> Iterator[Answer | Unread]:
    """Yield the `wanted` answer to each picture, in order; `say` runs the network.

    Raises: UserError if the network takes neither grey nor RGB images.
    """
    for block in read_blocks(
        files, image_size=image_size, channels=channels, resize=resize, white=white, what="predict"
    ):
        images = {file: each for file, each in block if not isinstance(each, Unread)}
        said: dict[str, Answer] = {}
        if images:
            found_out = say(np.stack(list(images.values())))
            named = name_best(list(images), found_out, classes=classes, wanted=wanted)
            said = {each.file: each for each in named}
        for file, each in block:
            yield each if isinstance(each, Unread) else said[str(file)]


def read_blocks(
    files: Sequence[Path], *, image_size: int, channels: int, resize: Resizing, white: int | None, what: str
) -> Iterator[list[tuple[Path, NDArray[np.uint8] | Unread]]]:
    """Read pictures to (C, image_size, image_size), some at a time; the progress line names their purpose.

    Raises: UserError if a network takes neither grey nor RGB images.
    """
    check_taken(image_size=image_size, channels=channels)

    def read(file: Path) -> NDArray[np.uint8] | Unread:
        try:
            (image,) = read_pictures([file], image_size=image_size, channels=channels, resize=resize, white=white)
        except UserError as error:
            return Unread(str(file), str(error))
        return np.asarray(image)

    with ThreadPoolExecutor(READERS) as pool, counting(what, total=len(files)) as show:
        for start in range(0, len(files), BLOCK):
            some = files[start : start + BLOCK]
            yield list(zip(some, pool.map(read, some), strict=True))
            show(min(start + BLOCK, len(files)))


def read_sound(
    files: Sequence[Path], *, image_size: int, channels: int, resize: Resizing, white: int | None, what: str
) -> tuple[list[Path], NDArray[np.uint8], list[Unread]]:
    """Read all valid pictures; return their files, the images (N, C, H, W), and the files that cannot be read.

    Raises: UserError if no picture is valid.
    """
    read = [
        pair
        for block in read_blocks(files, image_size=image_size, channels=channels, resize=resize, white=white, what=what)
        for pair in block
    ]
    unread = [each for _, each in read if isinstance(each, Unread)]
    sound = [(file, each) for file, each in read if not isinstance(each, Unread)]
    if not sound:
        raise UserError(unread[0].sentence)
    return [file for file, _ in sound], np.stack([image for _, image in sound]), unread


def all_read(answers: Iterator[Answer | Unread]) -> list[Answer]:
    """Collect the answers. Raises: UserError for the first file that cannot be read as a picture."""
    read = []
    for each in answers:
        if isinstance(each, Unread):
            raise UserError(each.sentence)
        read.append(each)
    return read

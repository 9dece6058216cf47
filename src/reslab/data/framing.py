"""How a picture becomes a square: squeezed, padded or cropped to its middle.

All resizing, of pictures by Pillow or of stored images by PyTorch, takes its geometry from here.
"""

from typing import NamedTuple

from reslab.recipe.shapes import Channels, Resizing


class Form(NamedTuple):
    """What pictures become: squares of `image_size` pixels, with the given channels.

    `white` is the value that becomes white in grey pictures of more than 8 bits.
    """

    image_size: int = 32
    resize: Resizing = "squeeze"
    channels: Channels = "auto"
    white: int | None = None


class Frame(NamedTuple):
    """Take `box` (left, top, right, bottom) of an image, resize it to `size` (width, height), put it at `corner`."""

    box: tuple[float, float, float, float]
    size: tuple[int, int]
    corner: tuple[int, int]


def frame(width: int, height: int, *, side: int, resize: Resizing) -> Frame:
    """Place an image in a square of `side` pixels; `pad` fills the rest with black."""
    whole = (0, 0, width, height)
    match resize:
        case "squeeze":
            return Frame(whole, (side, side), (0, 0))
        case "pad":
            longest = max(width, height)
            size = (max(1, round(side * width / longest)), max(1, round(side * height / longest)))
            return Frame(whole, size, ((side - size[0]) // 2, (side - size[1]) // 2))
        case "crop":
            edge = min(width, height)
            left, top = (width - edge) / 2, (height - edge) / 2
            return Frame((left, top, left + edge, top + edge), (side, side), (0, 0))


def size_needed(width: int, height: int, *, side: int, resize: Resizing) -> tuple[int, int]:
    """Return the smallest width and height at which an image keeps the detail that its frame shows."""
    box, size, _ = frame(width, height, side=side, resize=resize)
    return round(width * size[0] / (box[2] - box[0])), round(height * size[1] / (box[3] - box[1]))

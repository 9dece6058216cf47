"""How a picture becomes a square: squeezed, with bars, or its middle alone. The one place that decides it.

Whatever resizes, a picture by Pillow or stored images by PyTorch, asks here what goes where.
"""

from typing import NamedTuple

from reslab.recipe.shapes import Channels, Resizing


class Form(NamedTuple):
    """What pictures become: squares of `image_size` pixels, of so many channels."""

    image_size: int = 32
    resize: Resizing = "squeeze"
    channels: Channels = "auto"


class Frame(NamedTuple):
    """Take `box` (left, top, right, bottom) of an image, resize it to `size` (width, height), put it at `corner`."""

    box: tuple[float, float, float, float]
    size: tuple[int, int]
    corner: tuple[int, int]


def frame(width: int, height: int, *, side: int, resize: Resizing) -> Frame:
    """Place an image in a square of `side` pixels; what `pad` leaves free is black."""
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
    """Give the width and height below which an image would lose what its frame shows."""
    box, size, _ = frame(width, height, side=side, resize=resize)
    return round(width * size[0] / (box[2] - box[0])), round(height * size[1] / (box[3] - box[1]))

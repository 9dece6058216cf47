"""Options of a recipe for the shape of images; prediction imports these without pydantic."""

from typing import Literal

Resizing = Literal["squeeze", "pad", "crop"]  # for pictures that are not square: see data.framing
Channels = Literal["auto", 1, 3]  # as in the data; grey; RGB

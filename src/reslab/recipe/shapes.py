"""What pictures may become, as words of a recipe; what only predicts reads this without pydantic."""

from typing import Literal

Resizing = Literal["squeeze", "pad", "crop"]  # pictures that are no squares: see data.framing
Channels = Literal["auto", 1, 3]  # as the data has them; grey; RGB

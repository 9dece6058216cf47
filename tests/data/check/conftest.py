from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Draw = Callable[..., None]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Give a function that draws a picture of random patches, the same for the same number, into a file below."""

    def write(name: str, number: int, *, size: tuple[int, int] = (40, 40), scale: float = 1.0) -> None:
        patches = np.random.default_rng(number).integers(60, 200, (9, 9, 3)).astype(np.uint8)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((patches * scale).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
        picture.save(path, format="PNG")

    return write

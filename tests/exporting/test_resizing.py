"""How a graph resizes pictures, against Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image

from reslab.data.pictures import shrink
from reslab.exporting.resizing import resize_any
from reslab.recipe.shapes import Resizing

SIZES = [(32, 32), (33, 32), (64, 64), (97, 41), (41, 97), (400, 301), (5, 200), (3, 2), (1, 1), (1, 90)]


@pytest.mark.parametrize("resize", ["squeeze", "pad", "crop"])
@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_those_of_pillow(size: tuple[int, int], resize: Resizing) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    picture = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    found = resize_any(picture, side=32, resize=resize)[0].numpy()
    wanted = shrink(Image.fromarray(pixels), image_size=32, resize=resize)
    np.testing.assert_array_equal(found, wanted)

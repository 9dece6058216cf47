"""The training images that are nearest to a picture, by the angle between their features.

Axes: N pictures, M images of the index, D features, C channels, H rows, W columns.
"""

import base64
import io
from typing import NamedTuple

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from reslab.data.images import ImageSet

THUMBNAIL = 128  # pixels a side, at most


class Nearest(NamedTuple):
    """One training image (C, H, W) uint8, its label, and the cosine of the angle to the picture's features."""

    image: Tensor
    label: int
    similarity: float


class Index:
    """Training images with their features (M, D)."""

    def __init__(self, images: ImageSet, features: Tensor) -> None:
        self.images, self.directions = images, F.normalize(features)

    def search(self, features: Tensor, *, num: int) -> list[list[Nearest]]:
        """Find the `num` nearest images of each picture by its features (N, D), the nearest first."""
        cosines, places = (F.normalize(features) @ self.directions.T).topk(min(num, len(self.directions)))
        return [
            [
                Nearest(self.images.images[place], int(self.images.labels[place]), cosine)
                for place, cosine in zip(places_of_one, cosines_of_one, strict=True)
            ]
            for places_of_one, cosines_of_one in zip(places.tolist(), cosines.tolist(), strict=True)
        ]


def to_data_url(image: Tensor) -> str:
    """Encode an image (C, H, W) uint8 as a PNG in a data URL, shrunk if it is large."""
    pixels = image.permute(1, 2, 0).numpy()
    shown = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    shown.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    shown.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

"""The training images that are nearest to a picture, by the angle between their features.

Axes: N pictures, M images of the index, D features, C channels, H rows, W columns.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from reslab.data import ImageSet


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

"""The training images that are nearest to a picture, by the angle between their features.

Axes: N pictures, M images of the index, D features, C channels, H rows, W columns.
"""

from pathlib import Path
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from reslab.data import ImageSet, find_data_dir, parse
from reslab.data.catalog import OFFICIAL
from reslab.data.recipe_data import read_split
from reslab.data.split import limit
from reslab.errors import Failure, UserError
from reslab.runs import Run


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


def read_some(run: Run, *, num: int, data_dir: Path | None) -> ImageSet | str:
    """Read about `num` of the run's training images, as many of each class; or say why not. Downloads nothing."""
    try:
        if absent := _find_absent(run.recipe.data, data_dir):
            return f"{absent} is not on this machine: give --data-dir where it lies."
        images = read_split(run.recipe, "train", data_dir=data_dir)
    except (UserError, Failure) as error:
        return str(error)
    of_each = -(-num // len(images.classes))
    return images.subset(limit(images.labels.numpy(), classes=images.classes, num=of_each))


def _find_absent(expression: str, data_dir: Path | None) -> str | None:
    """Name a source that reading would download."""
    folder = find_data_dir(data_dir)
    for source in {term.source for term in parse(expression)} & OFFICIAL.keys():
        archive = OFFICIAL[source].archive
        files = [folder / archive.folder / member.name for member in archive.members]
        if not (folder / archive.name).exists() and not all(file.exists() for file in files):
            return source
    return None

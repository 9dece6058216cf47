"""Batches for training: each a pure function of the seed, the epoch and its place in the epoch.

So a run that goes on from any update sees exactly the batches that it would have seen, and no generator's state has to
be kept. Axes: N images, C channels, H rows, W columns.
"""

import hashlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from reslab.data.augment import augment
from reslab.data.spec import ImageSet
from reslab.recipe import Recipe, Standardize


def standardize(images: Tensor, *, by: Standardize) -> Tensor:
    """Turn stored pixels (N, C, H, W) uint8 into float32 of mean 0 and deviation 1 per channel."""
    mean, deviation = torch.tensor([by.mean, by.deviation], device=images.device)[:, :, None, None]
    return images.to(torch.float32).sub_(mean).div_(deviation)


def seeded(seed: int, *place: int | str) -> torch.Generator:
    """Make a generator that depends on `seed` and `place` alone, and differs between any two of them."""
    digest = hashlib.sha256("/".join(map(str, (seed, *place))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))


class Batches:
    """The training split in shuffled, standardised, augmented batches, on the device of its images."""

    def __init__(self, images: ImageSet, *, recipe: Recipe, by: Standardize, seed: int, device: torch.device) -> None:
        self.images, self.labels = images.images.to(device), images.labels.to(device)
        self.recipe, self.by, self.seed = recipe, by, seed
        self.num_images = len(self.labels)

    def __len__(self) -> int:
        """Count the batches of an epoch; the last one may be smaller."""
        return -(-self.num_images // self.recipe.batch_size)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (N, C, H, W) float32 and labels (N,) of one epoch (from 0), from batch `start` on."""
        order = torch.randperm(self.num_images, generator=seeded(self.seed, "order", epoch)).to(self.labels.device)
        size = image_size_at(self.recipe, epoch)
        for place, chosen in enumerate(torch.split(order, self.recipe.batch_size)):
            if place < start:
                continue
            images = standardize(self.images[chosen], by=self.by)
            if size != images.shape[3]:
                images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
            generator = seeded(self.seed, "augment", epoch, place)
            yield augment(images, parts=self.recipe.augment, generator=generator), self.labels[chosen]


def image_size_at(recipe: Recipe, epoch: int) -> int:
    """Look up the side that `recipe` trains at in `epoch` (from 0)."""
    begun = [growth for growth in recipe.growth if growth.epoch <= epoch]
    return max(begun, key=lambda growth: growth.epoch).image_size if begun else recipe.image_size

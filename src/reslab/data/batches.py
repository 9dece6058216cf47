"""Batches for training: each a pure function of the seed, the epoch and its place in the epoch.

So a run that goes on from any update sees exactly the batches that it would have seen, and no generator's state has to
be kept. Axes: N images, C channels, H rows, W columns.
"""

import functools
import hashlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from reslab.data.augment import augment, send
from reslab.data.pixels import Pixels
from reslab.data.spec import ImageSet
from reslab.data.stream import stream_order
from reslab.recipe import Recipe, Sampling, Standardize


def standardize(images: Tensor, *, by: Standardize) -> Tensor:
    """Turn stored pixels (N, C, H, W) uint8 into float32 of mean 0 and deviation 1 per channel."""
    mean, deviation = _statistics(by, images.device)
    return images.to(torch.float32).sub_(mean).div_(deviation)


@functools.lru_cache(maxsize=16)
def _statistics(by: Standardize, device: torch.device) -> Tensor:
    """Give mean and deviation (2, C, 1, 1) on a device; kept there, since a GPU waits for every copy."""
    with torch.inference_mode(False):  # whoever asks first
        return torch.tensor([by.mean, by.deviation], device=device)[:, :, None, None]


def seeded(seed: int, *place: int | str) -> torch.Generator:
    """Make a generator that depends on `seed` and `place` alone, and differs between any two of them."""
    digest = hashlib.sha256("/".join(map(str, (seed, *place))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))


class Batches:
    """The training split in shuffled, standardised, augmented batches, on a device.

    Images that do not lie in memory stay where they are, and only a batch is read. Of streamed ones a process can have
    a `share`: its number, and how many there are.
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        recipe: Recipe,
        by: Standardize,
        seed: int,
        device: torch.device,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.images = images.images if isinstance(images.images, Pixels) else images.images.to(device)
        self.labels, self.share = images.labels.to(device), share
        self.recipe, self.by, self.seed = recipe, by, seed
        self.num_images = recipe.sampling.images_per_epoch if recipe.sampling else len(self.labels) // share[1]
        self.mirrored = torch.rand(len(self.labels), generator=seeded(seed, "mirrored")) < 0.5

    def __len__(self) -> int:
        """Count the batches of an epoch; the last one may be smaller, but it is never one image alone.

        That one goes into the batch before, since batch norm has no statistics of a single value.
        """
        whole, left = divmod(self.num_images, self.recipe.batch_size)
        return whole + (left > 1 or whole == 0) if self.recipe.batch_size > 1 else whole

    def count_shapes(self) -> int:
        """Count the shapes of batches: the sizes of images, twice where the last batch has another number of them."""
        sizes = {image_size_at(self.recipe, epoch) for epoch in range(self.recipe.epochs)}
        return len(sizes) * (2 if self.num_images % self.recipe.batch_size else 1)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (N, C, H, W) float32 and labels (N,) of one epoch (from 0), from batch `start` on."""
        order = self._order(seeded(self.seed, "order", epoch))
        mirrored = self.mirrored ^ (epoch % 2 == 1)
        size = image_size_at(self.recipe, epoch)
        ends = range(self.recipe.batch_size, len(self) * self.recipe.batch_size, self.recipe.batch_size)
        for place, chosen in enumerate(torch.tensor_split(order, tuple(ends))):
            if place < start:
                continue
            places = send(chosen, to=self.labels.device)
            images = standardize(self._pick(chosen, places), by=self.by)
            if size != images.shape[3]:
                images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
            generator = seeded(self.seed, "augment", epoch, place)
            images = augment(images, parts=self.recipe.augment, generator=generator, mirrored=mirrored[chosen])
            yield images, self.labels[places]

    def _pick(self, chosen: Tensor, places: Tensor) -> Tensor:
        """Read stored images (N, C, H, W) uint8 at `chosen`, which are `places` on the device."""
        return send(self.images[chosen], to=places.device) if isinstance(self.images, Pixels) else self.images[places]

    def _order(self, generator: torch.Generator) -> Tensor:
        """Choose the images of an epoch, shuffled."""
        if isinstance(self.images, Pixels) and self.images.is_streamed:
            buffer = self.recipe.stream or len(self.images)
            return stream_order(self.images, buffer=buffer, generator=generator, share=self.share)
        if self.recipe.sampling is None:
            return torch.randperm(self.num_images, generator=generator)
        return sample(self.labels.cpu(), sampling=self.recipe.sampling, generator=generator)


def sample(labels: Tensor, *, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """Draw the places of `images_per_epoch` images, shuffled; within a class every image as often, give or take one."""
    counts = torch.bincount(labels).double()
    weights = torch.where(counts > 0, counts ** (1 - sampling.balance), 0.0)
    ends = (sampling.images_per_epoch * weights.cumsum(0) / weights.sum()).round().long()
    quotas = ends.diff(prepend=torch.zeros(1, dtype=torch.int64))
    chosen = []
    for label, quota in enumerate(quotas.tolist()):
        places = (labels == label).nonzero().flatten()
        rounds = -(-quota // max(1, len(places)))
        drawn = [places[torch.randperm(len(places), generator=generator)] for _ in range(rounds)]
        chosen += [torch.cat(drawn)[:quota]] if drawn else []
    drawn_places = torch.cat(chosen)
    return drawn_places[torch.randperm(len(drawn_places), generator=generator)]


def image_size_at(recipe: Recipe, epoch: int) -> int:
    """Look up the side that `recipe` trains at in `epoch` (from 0)."""
    begun = [growth for growth in recipe.growth if growth.epoch <= epoch]
    return max(begun, key=lambda growth: growth.epoch).image_size if begun else recipe.image_size

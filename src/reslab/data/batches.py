"""Training batches: each is a pure function of the seed, the epoch and its place in the epoch.

So a run resumed from any update sees exactly the same batches, and no generator state has to be saved.
Axes: N images, C channels, H rows, W columns.
"""

import functools
import hashlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from reslab.data.augment import augment, send
from reslab.data.images import ImageSet
from reslab.data.mixing import mix
from reslab.data.parts import cut_evenly, part_of
from reslab.data.pixels import Pixels
from reslab.data.stream import stream_order
from reslab.recipe.recipe import Recipe, Sampling, Standardize, divide_epoch


def standardize(images: Tensor, *, by: Standardize) -> Tensor:
    """Turn stored pixels (N, C, H, W) uint8 into float32 with mean 0 and standard deviation 1 per channel."""
    mean, deviation = _statistics(by, images.device)
    return images.to(torch.float32).sub_(mean).div_(deviation)


@functools.lru_cache(maxsize=16)
def _statistics(by: Standardize, device: torch.device) -> Tensor:
    """Return mean and standard deviation (2, C, 1, 1) on a device; cached there, since every copy makes a GPU wait."""
    with torch.inference_mode(False):  # whoever calls first
        return torch.tensor([by.mean, by.std], device=device)[:, :, None, None]


def seeded(seed: int, *place: int | str) -> torch.Generator:
    """Create a generator that depends only on `seed` and `place` and differs between any two of them."""
    digest = hashlib.sha256("/".join(map(str, (seed, *place))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))


class Batches:
    """The training split in shuffled, standardised, augmented batches, on a device.

    Images outside memory are read one batch at a time. Each of `num_ranks` processes gets its part of every batch. It
    prepares the whole batch, so that augmentation is the same as with one process; of streamed images it reads and
    prepares only its part.
    """

    def __init__(
        self,
        images: ImageSet,
        *,
        recipe: Recipe,
        by: Standardize,
        seed: int,
        device: torch.device,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self.images = images.images if isinstance(images.images, Pixels) else images.images.to(device)
        self.labels, self.rank, self.num_ranks = images.labels.to(device), rank, num_ranks
        self.weights = None if images.weights is None else images.weights.to(device)
        self.recipe, self.by, self.seed = recipe, by, seed
        self.num_classes = len(images.classes)
        self.num_images = recipe.sampling.images_per_epoch if recipe.sampling else len(self.labels)
        self.sizes = divide_epoch(self.num_images, recipe.batch_size)  # images of each batch, over all processes
        self.mirrored = torch.rand(len(self.labels), generator=seeded(seed, "mirrored")) < 0.5

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return len(self.sizes)

    def count_shapes(self) -> int:
        """Count the distinct shapes of this process's chunks of batches; freezing more parameters makes them new."""
        parts = {part_of(size, rank=self.rank, num_ranks=self.num_ranks) for size in self.sizes}
        chunks = {size for part in parts for size in cut_evenly(part, size=self.recipe.micro_batch_size)}
        stages = {
            (self.recipe.image_size_at(epoch), sum(each.epoch <= epoch for each in self.recipe.freeze))
            for epoch in range(self.recipe.epochs)
        }
        return len(stages) * len(chunks)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (N, C, H, W) float32 and labels (N,) of one epoch (from 0), from batch `start` on.

        If images are mixed or weighted, labels are class shares (N, K) times the image's weight.
        """
        order = self._order(seeded(self.seed, "order", epoch))
        for place, chosen in enumerate(torch.split(order, self.sizes)):
            if place < start:
                continue
            part = part_of(len(chosen), rank=self.rank, num_ranks=self.num_ranks)
            mine = slice(part.begin, part.end)
            if self.is_streamed:
                own = ("rank", self.rank) if self.rank else ()
                generator = seeded(self.seed, "augment", epoch, place, *own)
                yield self._prepare(chosen[mine], epoch=epoch, generator=generator)
            else:
                generator = seeded(self.seed, "augment", epoch, place)
                images, labels = self._prepare(chosen, epoch=epoch, generator=generator)
                yield images[mine], labels[mine]

    def stored(self, *, num_images: int, batch_size: int) -> Iterator[Tensor]:
        """Yield stored images (N, C, H, W) uint8, uncropped and unaugmented, drawn as for an epoch."""
        order = self._order(seeded(self.seed, "stored"))[:num_images]
        for chosen in torch.split(order, divide_epoch(len(order), batch_size)):
            yield self._pick(chosen, send(chosen, to=self.labels.device))

    @property
    def is_streamed(self) -> bool:
        """Whether images are read from their shards on demand."""
        return isinstance(self.images, Pixels) and self.images.is_streamed

    def _prepare(self, chosen: Tensor, *, epoch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Read, standardise and augment images (N, C, H, W); return them with labels as in `epoch`."""
        places = send(chosen, to=self.labels.device)
        images = standardize(self._pick(chosen, places), by=self.by)
        size = self.recipe.image_size_at(epoch)
        if size != images.shape[3]:
            images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
        mirrored = self.mirrored[chosen] ^ (epoch % 2 == 1)
        images = augment(images, parts=self.recipe.augment, by=self.by, generator=generator, mirrored=mirrored)
        labels = self.labels[places]
        if self.recipe.mixing or self.weights is not None:
            labels = F.one_hot(labels, self.num_classes).float()
        if self.weights is not None:
            labels = labels * self.weights[places, None]
        if self.recipe.mixing:
            return mix(images, labels, parts=self.recipe.mixing, generator=generator)
        return images, labels

    def _pick(self, chosen: Tensor, places: Tensor) -> Tensor:
        """Read stored images (N, C, H, W) uint8 at `chosen`; `places` are the same indices on the device."""
        return send(self.images[chosen], to=places.device) if isinstance(self.images, Pixels) else self.images[places]

    def _order(self, generator: torch.Generator) -> Tensor:
        """Choose and shuffle the images of an epoch."""
        if isinstance(self.images, Pixels) and self.images.is_streamed:
            buffer = self.recipe.stream or len(self.images)
            return stream_order(
                self.images, buffer=buffer, generator=generator, batches=self.sizes, num_ranks=self.num_ranks
            )
        if self.recipe.sampling is None:
            return torch.randperm(self.num_images, generator=generator)
        return sample(self.labels.cpu(), sampling=self.recipe.sampling, generator=generator)


def sample(labels: Tensor, *, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """Draw and shuffle `images_per_epoch` indices; within a class, images are drawn equally often, give or take one."""
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

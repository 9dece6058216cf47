"""A data set that has been read, in memory or in files.

Axes: N images, C channels, H rows, W columns, K classes. Pixels are uint8, 0 to 255.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reslab.data.pixels import Chosen, Pixels, blocks_of, to_places
from reslab.recipe.recipe import Standardize
from reslab.records import SplitName


class Labelled(NamedTuple):
    """Output of a source, in its own size: images (N, C, H, W) uint8, labels (N,) in [0, K), K class names.

    The rest is as in an `ImageSet`.
    """

    images: NDArray[np.uint8] | Pixels
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    names: tuple[str, ...] | None = None
    keys: NDArray[np.uint64] | None = None
    digests: NDArray[np.uint64] | None = None
    num_damaged: int = 0

    def subset(self, places: NDArray[np.int64]) -> "Labelled":
        """Choose images, in the order given, with the same classes."""
        chosen = self.images.select(places) if isinstance(self.images, Pixels) else self.images[places]
        return self._replace(
            images=chosen.numpy() if isinstance(chosen, Tensor) else chosen,
            labels=self.labels[places],
            names=None if self.names is None else tuple(self.names[place] for place in places),
            keys=None if self.keys is None else self.keys[places],
            digests=None if self.digests is None else self.digests[places],
        )


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split of a data expression.

    Only the training split may have classes without images: those of a source with `@0`.

    Attributes
    ----------
    images : Tensor or Pixels
        (N, C, H, W) uint8. Images outside memory have a shape and a length, and are read by `images[places]`.
    labels : Tensor
        (N,) int64 in [0, K).
    classes : tuple of str
        The names of the K classes.
    expression : str
        The data expression they come from.
    split : {"train", "validation", "test"}
        The split they belong to.
    names : tuple of str, optional
        The picture files' paths inside their source (N,), "" if there is none.
    keys : ndarray, optional
        Hashes of a picture's content, or of its group, which decide its split: (N,) uint64, 0 if there is none.
    digests : ndarray, optional
        Hashes of each picture as stored, independent of the size it is read at: (N,) uint64, 0 if there is none.
    num_damaged : int
        Number of damaged pictures left out of the split.
    white : int, optional
        The value that became white in grey pictures of more than 8 bits, in all splits; None if there are none.
    weights : Tensor, optional
        Weight of each image in the training loss: (N,) float32 of mean 1.

    Examples
    --------
    >>> import reslab
    >>> images = reslab.load("digits:0-2", "test", image_size=8)
    >>> images.counts(), len(images.subset([0, 5]).labels)
    ([36, 36, 35], 2)
    """

    images: Tensor | Pixels
    labels: Tensor
    classes: tuple[str, ...]
    expression: str
    split: SplitName
    names: tuple[str, ...] | None = None
    keys: NDArray[np.uint64] | None = None
    digests: NDArray[np.uint64] | None = None
    num_damaged: int = 0
    white: int | None = None
    weights: Tensor | None = None

    @property
    def is_streamed(self) -> bool:
        """Whether the images are on another machine, and read only in their own order."""
        return isinstance(self.images, Pixels) and self.images.is_streamed

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex over class names, shapes, images, labels and weights, but not over the expression.

        Streamed images are represented by the digests of their shards.
        """
        shapes = [list(self.images.shape), list(self.labels.shape)]
        digest = hashlib.sha256(json.dumps([self.classes, shapes]).encode())
        images = self.images
        contents = images.contents() if isinstance(images, Pixels) else [_little_endian_bytes(images.numpy())]
        numbers = [self.labels] if self.weights is None else [self.labels, self.weights]
        for content in chain(contents, (_little_endian_bytes(each.numpy()) for each in numbers)):
            digest.update(content.data)
        return digest.hexdigest()

    def subset(self, indices: Chosen) -> "ImageSet":
        """Select images by index, in the order given, or by a mask, with the same classes.

        Large sets in files are not copied.
        """
        places = to_places(indices, len(self.labels)).reshape(-1)
        chosen = torch.from_numpy(places)
        images = self.images.select(places) if isinstance(self.images, Pixels) else self.images[chosen]
        return replace(
            self,
            images=images,
            labels=self.labels[chosen],
            names=None if self.names is None else tuple(self.names[place] for place in places.tolist()),
            keys=None if self.keys is None else self.keys[places],
            digests=None if self.digests is None else self.digests[places],
            weights=None if self.weights is None else self.weights[chosen],
        )

    def counts(self) -> list[int]:
        """Count the images of each class, K numbers."""
        return [int(count) for count in torch.bincount(self.labels, minlength=len(self.classes))]

    def statistics(self) -> Standardize:
        """Measure each channel's mean and population standard deviation in pixel units (0 to 255).

        Exact in double precision, from a histogram of the 256 values: no float copy of the images is made.
        A constant channel gets the standard deviation 1, so that dividing by it does no harm.
        """
        return to_statistics(self.count_values())

    def count_values(self) -> Tensor:
        """Count each channel's values, (C, 256)."""
        counts = torch.zeros(self.images.shape[1], 256, dtype=torch.int64)
        for block in blocks_of(self.images):
            for channel, pixels in enumerate(block.unbind(dim=1)):
                counts[channel] += torch.bincount(pixels.reshape(-1), minlength=256)
        return counts


def to_statistics(counts: Tensor) -> Standardize:
    """Compute each channel's mean and standard deviation from its histogram (C, 256)."""
    values = torch.arange(256, dtype=torch.float64)
    means, deviations = [], []
    for channel in counts:
        share = channel.double() / channel.sum()
        mean = (share * values).sum()
        deviation = (share * (values - mean) ** 2).sum().sqrt()
        means.append(float(mean))
        deviations.append(float(deviation) or 1.0)
    return Standardize(mean=tuple(means), std=tuple(deviations))


def _little_endian_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """View an array's content as bytes that are the same on every machine."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)

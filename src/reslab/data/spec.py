"""What a data set is once it lies in memory.

Axes: N images, C channels, H rows, W columns, K classes. Pixels are uint8, 0 to 255.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reslab.recipe import Standardize

Split = Literal["train", "validation", "test"]
Indices = Tensor | NDArray[np.int64] | Sequence[int]


class Labelled(NamedTuple):
    """What a source hands over, in its own size: images (N, C, H, W) uint8, labels (N,) in [0, K), K class names."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """One split of a data expression: images (N, C, H, W) uint8, labels (N,) int64 in [0, K), K class names.

    The training split may have classes without images, those of a source with `@0`; no other split has.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    expression: str
    split: Split

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex over class names, shapes, images and labels; not over the expression that led to them."""
        shapes = [list(self.images.shape), list(self.labels.shape)]
        digest = hashlib.sha256(json.dumps([self.classes, shapes]).encode())
        for array in (self.images.numpy(), self.labels.numpy()):
            digest.update(_little_endian_bytes(array).data)
        return digest.hexdigest()

    def subset(self, indices: Indices) -> "ImageSet":
        """Pick images by their place, in the order given, with the same classes."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])

    def counts(self) -> list[int]:
        """Count the images of each class, K numbers."""
        return [int(count) for count in torch.bincount(self.labels, minlength=len(self.classes))]

    def statistics(self) -> Standardize:
        """Measure each channel's mean and population deviation in units of the pixels (0 to 255).

        Exact in double precision, from a histogram of the 256 values: no float copy of the images is made.
        A channel that never changes gets the deviation 1, so that dividing by it does no harm.
        """
        values = torch.arange(256, dtype=torch.float64)
        means, deviations = [], []
        for channel in self.images.unbind(dim=1):
            share = torch.bincount(channel.reshape(-1), minlength=256).double() / channel.numel()
            mean = (share * values).sum()
            deviation = (share * (values - mean) ** 2).sum().sqrt()
            means.append(float(mean))
            deviations.append(float(deviation) or 1.0)
        return Standardize(mean=tuple(means), deviation=tuple(deviations))


def _little_endian_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """View an array's content as bytes that are the same on every machine."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)

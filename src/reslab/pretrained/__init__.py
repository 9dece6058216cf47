"""Features of pictures from pretrained networks, for classifiers with few pictures.

Axes: N images, C channels, H rows, W columns, D features.
"""

import time
from functools import cached_property
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reslab.data.pixels import Pixels
from reslab.errors import UserError
from reslab.pretrained.kept import digest_of, find_or_compute
from reslab.pretrained.routes import Compute, Route, choose_route, open_route
from reslab.pretrained.weights import (
    PRETRAINED,
    STANDARDIZE,
    is_installed,
    load_pretrained,
    standardize_for,
    start_from,
)

__all__ = ["PRETRAINED", "Pretrained", "is_installed", "load_pretrained", "standardize_for", "start_from"]

BATCH = 16  # pictures, few enough for activations to stay in a processor's cache
FORMAT = 2  # of cached features: increase it when they change

Pictures = Tensor | NDArray[np.uint8] | Pixels


class Pretrained:
    """A network with ImageNet weights that computes features of pictures.

    Parameters
    ----------
    name
        `efficientnet_lite0`, `1` or `2`; the weights of the first come with `reslab[pretrained]`.
    image_size
        Side in pixels to which pictures are resized; by default the one that the network was trained with. Time grows
        with its square.
    route
        `onnxruntime` or `folded`; by default the fastest that is installed.

    Raises
    ------
    UserError
        If the weights are not installed, or are not the published ones.

    Examples
    --------
    >>> import numpy as np
    >>> from reslab import Pretrained
    >>> features = Pretrained("efficientnet_lite0", image_size=32).features(np.zeros((2, 3, 8, 8), dtype=np.uint8))
    >>> features.shape
    (2, 1280)
    """

    def __init__(self, name: str, *, image_size: int | None = None, route: Route | None = None) -> None:
        if route not in (None, *get_args(Route)):
            raise UserError(f"there is no route {route!r}: choose from {', '.join(get_args(Route))}")
        self.name, self.route = name, route or choose_route()
        if image_size is not None and image_size < 1:
            raise UserError(f"pictures of {image_size} pixels a side show nothing: choose 32 or more, such as 128")
        self.model = load_pretrained(name)
        self.image_size = self.model.resize = self.model.image_size if image_size is None else image_size
        self._num_computed, self._seconds = 0, 0.0

    def features(self, images: Pictures, *, mirrored: bool = False) -> NDArray[np.float32]:
        """Compute the features (N, D) of stored pictures (N, C, H, W) uint8 of any size, grey or RGB.

        Each picture is computed once and kept in the cache, see `reslab data cache`. With `mirrored`, pictures are
        first mirrored left to right.
        Raises: UserError if pictures have another type or number of channels, or there is no space on disk.
        """
        is_stored = isinstance(images, Pixels) or images.dtype in (torch.uint8, np.dtype(np.uint8))
        if not is_stored or len(images.shape) != 4:
            raise UserError(f"{self.name} is for pictures (N, C, H, W) uint8, from 0 to 255")
        if images.shape[1] not in (1, 3):
            raise UserError(f"{self.name} is for grey or RGB pictures, not for {images.shape[1]} channels")
        digests = [digest_of(picture) for start in range(0, len(images), BATCH) for picture in _pick(images, start)]
        identity = (FORMAT, PRETRAINED[self.name].sha256, self.image_size, self.route, mirrored)
        return find_or_compute(
            digests,
            lambda places: self._compute_all(images, places, mirrored=mirrored),
            identity=identity,
            origin=f"{self.name}, {self.image_size} pixels, {self.route}{', mirrored' if mirrored else ''}",
            num_features=self.model.head.in_features,
        )

    def measure_speed(self, images: Pictures) -> float:
        """Return the pictures computed per second so far; if most were in the cache, compute a few of these again."""
        if self._num_computed < BATCH:
            self._compute_all(images, list(range(min(BATCH, len(images)))), mirrored=False)
        return self._num_computed / self._seconds

    def _compute_all(self, images: Pictures, places: list[int], *, mirrored: bool) -> NDArray[np.float32]:
        found = []
        compute, began = self._compute, time.perf_counter()
        for start in range(0, len(places), BATCH):
            chosen = torch.as_tensor(images[places[start : start + BATCH]])
            rgb = chosen.expand(-1, 3, -1, -1)
            found.append(compute((rgb.flip(3) if mirrored else rgb).contiguous().numpy()))
        self._num_computed += len(places)
        self._seconds += time.perf_counter() - began
        return np.concatenate(found)

    @cached_property
    def _compute(self) -> Compute:
        return open_route(self.route, self.model, by=STANDARDIZE)


def _pick(images: Any, start: int) -> NDArray[np.uint8]:
    return np.asarray(images[start : start + BATCH])

"""Texture: how ordinary the colours and contours of a picture are, without any network.

What a network computes may look familiar although the picture is nothing like the training images: it learns what tells
its classes apart, and no more. So a few statistics of the pixels are compared with those of the training images, by
their Mahalanobis distance. A picture that is more ordinary than the median does not count as more familiar.

Differs from measures of features (see `familiarity.py`): it tells noise, patterns and drawings from photographs, and
knows nothing about what they show.
Axes: N images, C channels, H rows, W columns, P statistics, M training images.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SCALES = (1, 2, 4)  # pixels whose mean counts as one
_LEAST = 1e-3  # added to variances of standardised values before their logarithm
_SMALLEST = 0.05  # standard deviation of a statistic
_SHRINKAGE = 0.1  # of the correlations of statistics, so that few images suffice


class Texture(nn.Module):
    """Computes scores (N,) from a network's input (N, C, H, W): the negative distance of its statistics.

    The distance is the Euclidean norm of the statistics less `centre` (P,), times `whiten` (P, P), at least `limit` ().
    """

    centre: Tensor
    whiten: Tensor
    limit: Tensor

    def __init__(self, centre: Tensor, whiten: Tensor, limit: Tensor) -> None:
        super().__init__()
        for name, value in {"centre": centre, "whiten": whiten, "limit": limit}.items():
            self.register_buffer(name, value)

    def forward(self, images: Tensor) -> Tensor:
        return self.score(describe_texture(images))

    def score(self, statistics: Tensor) -> Tensor:
        """Score statistics (N, P)."""
        distance = ((statistics - self.centre) @ self.whiten).norm(dim=1)
        return -torch.maximum(distance, self.limit)


def describe_texture(images: Tensor) -> Tensor:
    """Compute statistics (N, P) of a network's input: colours, contrast, saturation, and contours at three scales."""
    return torch.cat(list(_describe(images.float())), dim=1)


def count_statistics(channels: int, side: int) -> int:
    """Return P for images of so many channels and pixels a side."""
    scales = [scale for scale in _SCALES if side // scale >= 2]
    return 2 * channels + (channels > 1) + 2 * len(scales)


def _describe(images: Tensor) -> Iterator[Tensor]:
    mean = images.mean(dim=(2, 3), keepdim=True)
    yield mean.flatten(1)
    yield _log((images - mean).square().mean(dim=(2, 3)))
    grey = images.mean(dim=1, keepdim=True)
    if images.shape[1] > 1:
        yield _log((images - grey).square().mean(dim=(1, 2, 3))[:, None])
    for scale in _SCALES:
        if images.shape[2] // scale < 2:  # pixels a side
            break
        small = F.avg_pool2d(grey, scale) if scale > 1 else grey
        yield _log((small[..., 1:] - small[..., :-1]).square().mean(dim=(2, 3)))
        yield _log((small[..., 1:, :] - small[..., :-1, :]).square().mean(dim=(2, 3)))


def _log(variance: Tensor) -> Tensor:
    return (variance + _LEAST).log()


def fit_texture(known: Tensor, held_out: Tensor) -> Texture:
    """Fit on the statistics of training images (M, P); the limit is the median distance of held-out images."""
    rows = known.double()
    centre = rows.mean(dim=0)
    deviations = rows.std(dim=0, correction=0).clamp(min=_SMALLEST)
    scaled = (rows - centre) / deviations
    identity = torch.eye(rows.shape[1]).double()
    variances, turn = torch.linalg.eigh((1 - _SHRINKAGE) * scaled.T @ scaled / len(rows) + _SHRINKAGE * identity)
    whiten = turn / variances.sqrt() / deviations[:, None]
    distances = ((held_out.double() - centre) @ whiten).norm(dim=1)
    return Texture(centre.float(), whiten.float(), distances.median().float())

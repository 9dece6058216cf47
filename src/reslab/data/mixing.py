"""Mixup and CutMix: images and labels blended with others of their batch.

Source: mixup, Zhang et al. 2017, arXiv:1710.09412; CutMix, Yun et al. 2019, arXiv:1905.04899. As there, one share is
drawn for a batch.
Axes: N images, C channels, H rows, W columns, K classes.
"""

from typing import assert_never

import numpy as np
import torch
from torch import Tensor

from reslab.recipe.recipe import CutMix, Mixing, Mixup


def mix(
    images: Tensor, shares: Tensor, *, parts: tuple[Mixing, ...], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mix images (N, C, H, W) and shares of the classes (N, K) by one of `parts`."""
    part = parts[int(torch.randint(len(parts), (), generator=generator))]
    draw = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    others = torch.randperm(len(images), generator=generator).to(images.device)
    kept = float(draw.beta(part.alpha, part.alpha))
    match part:
        case Mixup():
            images = images * kept + images[others] * (1 - kept)
        case CutMix():
            images, kept = _paste(images, others, kept=kept, draw=draw)
        case _ as unreachable:
            assert_never(unreachable)
    return images, shares * kept + shares[others] * (1 - kept)


def _paste(images: Tensor, others: Tensor, *, kept: float, draw: np.random.Generator) -> tuple[Tensor, float]:
    """Paste a rectangle of the others that leaves about the share `kept`; also return the exact share left."""
    rows, columns = images.shape[2:]
    height, width = (round(side * (1 - kept) ** 0.5) for side in (rows, columns))
    top, left = draw.integers(rows - height + 1), draw.integers(columns - width + 1)
    pasted = images.clone()
    window = (slice(None), slice(None), slice(top, top + height), slice(left, left + width))
    pasted[window] = images[others][window]
    return pasted, 1 - height * width / (rows * columns)

"""Augmentation: pure functions on whole batches of standardised images.

Every random number is drawn on the CPU from the given generator, so a batch is the same on every device.
Axes: N images, C channels, H rows, W columns.
"""

import math
from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from reslab.data.colors import color_jitter, trivial_augment
from reslab.recipe.recipe import (
    Augment,
    ColorJitter,
    Crop,
    Flip,
    RandomErasing,
    RandomResizedCrop,
    Shift,
    Standardize,
    TrivialAugment,
)

ERASED_RATIO = (0.3, 1 / 0.3)
WINDOWS = 10  # tried for each image: one with its whole area in another shape may never fit


def augment(
    images: Tensor,
    *,
    parts: tuple[Augment, ...],
    by: Standardize,
    generator: torch.Generator,
    mirrored: Tensor | None = None,
) -> Tensor:
    """Apply `parts` in order to images (N, C, H, W) standardised `by`.

    An alternating flip mirrors the images marked in `mirrored` (N,).
    """
    for part in parts:
        match part:
            case Flip(alternate=True) if mirrored is not None:
                images = mirror(images, chosen=mirrored)
            case Flip():
                images = flip(images, generator=generator)
            case Shift(fraction=fraction):
                images = shift(images, fraction=fraction, generator=generator)
            case Crop(pixels=pixels, fill=fill):
                images = crop(images, pixels=pixels, fill=fill, generator=generator)
            case RandomResizedCrop(area=area, ratio=ratio):
                images = random_resized_crop(images, area=area, ratio=ratio, generator=generator)
            case RandomErasing(probability=probability, area=area):
                images = erase(images, probability=probability, area=area, generator=generator)
            case ColorJitter():
                images = color_jitter(images, settings=part, by=by, generator=generator)
            case TrivialAugment():
                images = trivial_augment(images, by=by, generator=generator)
            case _ as unreachable:
                assert_never(unreachable)
    return images


def send(values: Tensor, *, to: torch.device) -> Tensor:
    """Copy to a device, through pinned memory so that the copy does not wait for the GPU's queue."""
    return values.pin_memory().to(to, non_blocking=True) if to.type == "cuda" else values.to(to)


def flip(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability 1/2."""
    return mirror(images, chosen=torch.rand(len(images), generator=generator) < 0.5)


def mirror(images: Tensor, *, chosen: Tensor) -> Tensor:
    """Mirror the images marked in `chosen` (N,) left to right."""
    return torch.where(send(chosen, to=images.device)[:, None, None, None], images.flip(3), images)


def shift(images: Tensor, *, fraction: float, generator: torch.Generator) -> Tensor:
    """Shift each image by up to `fraction` of its side, with bilinear interpolation and zeros outside.

    A sub-pixel shift along one axis is a matrix with two bands, so two matrix products shift the batch.
    """
    num, _, rows, columns = images.shape
    draws = 2 * torch.rand(2, num, generator=generator) - 1
    down, right = send(fraction * torch.tensor([[rows], [columns]]) * draws, to=images.device)
    return _move_matrix(down, rows)[:, None] @ images @ _move_matrix(right, columns).transpose(1, 2)[:, None]


def _move_matrix(distance: Tensor, side: int) -> Tensor:
    """Build (N, side, side): output pixel i takes from input pixel j the share 1 - |i - distance - j|, if any."""
    pixels = torch.arange(side, device=distance.device)
    apart = pixels[:, None] - pixels[None, :] - distance[:, None, None]
    return (1 - apart.abs()).clamp_(min=0)


def crop(images: Tensor, *, pixels: int, fill: str, generator: torch.Generator) -> Tensor:
    """Pad by `pixels` on every side with zeros or by reflection, and crop the original size at a random place."""
    num, _, rows, columns = images.shape
    padded = F.pad(images, (pixels,) * 4, mode="constant" if fill == "zeros" else "reflect")
    top, left = send(torch.randint(0, 2 * pixels + 1, (2, num), generator=generator), to=images.device)
    windows = padded.unfold(2, rows, 1).unfold(3, columns, 1)
    return windows[torch.arange(num, device=images.device), :, top, left]


def random_resized_crop(
    images: Tensor, *, area: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Crop a window of random area and aspect ratio from each image, and resize it to the original size.

    Interpolation is bilinear and a window may begin between pixels. As for a shift, two matrix products suffice.
    """
    num, _, rows, columns = images.shape
    heights, widths = _draw_windows(num, rows, columns, area=area, ratio=ratio, generator=generator)
    down, right = torch.rand(2, num, generator=generator)
    from_rows = send(_window_matrix(down * (rows - heights), heights, rows), to=images.device)
    from_columns = send(_window_matrix(right * (columns - widths), widths, columns), to=images.device)
    return from_rows[:, None] @ images @ from_columns.transpose(1, 2)[:, None]


def erase(images: Tensor, *, probability: float, area: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Fill a rectangle of each image with zeros, the mean colour, with `probability`; see arXiv:1708.04896."""
    num, _, rows, columns = images.shape
    chosen = torch.rand(num, generator=generator) < probability
    heights, widths = _draw_windows(num, rows, columns, area=area, ratio=ERASED_RATIO, generator=generator)
    down, right = torch.rand(2, num, generator=generator)
    over_rows = _inside((down * (rows - heights)).round(), heights.round(), rows) & chosen[:, None]
    over_columns = _inside((right * (columns - widths)).round(), widths.round(), columns)
    covered = over_rows[:, None, :, None] & over_columns[:, None, None, :]
    return images.masked_fill(send(covered, to=images.device), 0.0)


def _inside(start: Tensor, length: Tensor, side: int) -> Tensor:
    """Return a mask (N, side) of `length` pixels from `start` on."""
    pixels = torch.arange(side)
    return (pixels >= start[:, None]) & (pixels < (start + length)[:, None])


def _draw_windows(
    num: int,
    rows: int,
    columns: int,
    *,
    area: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw heights and widths (N,): the first of ten windows that fits into the image, or else the whole image."""
    draws = torch.rand(2, WINDOWS, num, generator=generator)
    shares = area[0] + (area[1] - area[0]) * draws[0]
    shapes = (math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * draws[1]).exp()
    heights, widths = (shares * rows * columns / shapes).sqrt(), (shares * rows * columns * shapes).sqrt()
    fits = (heights <= rows) & (widths <= columns)
    first = fits.int().argmax(0), torch.arange(num)
    return torch.where(fits.any(0), heights[first], rows), torch.where(fits.any(0), widths[first], columns)


def _window_matrix(start: Tensor, length: Tensor, side: int) -> Tensor:
    """Build (N, side, side): output pixel i takes its share of those input pixels between which its centre lies."""
    pixels = torch.arange(side)
    centres = start[:, None] + (pixels + 0.5) * (length / side)[:, None] - 0.5
    apart = centres.clamp(0, side - 1)[:, :, None] - pixels
    return (1 - apart.abs()).clamp_(min=0)

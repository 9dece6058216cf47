"""Augmentation of pixels from 0 to 1: colour jitter, and TrivialAugment's fourteen operations.

Source: Müller and Hutter 2021, "TrivialAugment", arXiv:2103.10158, the wide ranges; the operations are Pillow's.
Differs from it: bilinear interpolation, and values are rounded to 256 levels only if an operation counts them.
Axes: N images, C channels, H rows, W columns.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from reslab.data.pictures import LUMA
from reslab.recipe.recipe import ColorJitter, Standardize

FURTHEST, STEEPEST, TURN, WIDEST = 32, 0.99, 135, 0.99  # pixels, shear, degrees, change of a factor
LEVELS, FEWEST_BITS = 255, 2


def color_jitter(images: Tensor, *, settings: ColorJitter, by: Standardize, generator: torch.Generator) -> Tensor:
    """Scale brightness, contrast and saturation of each image standardised `by`, in this order."""
    draws = (2 * torch.rand(3, len(images), generator=generator) - 1).to(images.device)
    pixels = _to_pixels(images, by=by)
    changes = (brightness, settings.brightness), (contrast, settings.contrast), (saturation, settings.saturation)
    for (change, most), draw in zip(changes, draws, strict=True):
        pixels = change(pixels, 1 + most * draw) if most else pixels
    return _from_pixels(pixels, by=by)


def trivial_augment(images: Tensor, *, by: Standardize, generator: torch.Generator) -> Tensor:
    """Apply one operation to each image standardised `by`, at a strength uniform in [-1, 1]."""
    operations = torch.randint(len(OPERATIONS), (len(images),), generator=generator)
    strengths = 2 * torch.rand(len(images), generator=generator) - 1
    pixels = _to_pixels(images, by=by)
    for number, apply in enumerate(OPERATIONS):
        chosen = (operations == number).nonzero().flatten()
        if len(chosen):
            places = chosen.to(images.device)
            pixels[places] = apply(pixels[places], strengths[chosen].to(images.device))
    return _from_pixels(pixels, by=by)


def _to_pixels(images: Tensor, *, by: Standardize) -> Tensor:
    std, mean = (torch.tensor(values, device=images.device)[:, None, None] for values in (by.std, by.mean))
    return ((images * std + mean) / LEVELS).clamp_(0, 1)


def _from_pixels(pixels: Tensor, *, by: Standardize) -> Tensor:
    std, mean = (torch.tensor(values, device=pixels.device)[:, None, None] for values in (by.std, by.mean))
    return (pixels * LEVELS - mean) / std


# ---- colours, by a factor for each image (N,)


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with black."""
    return _blend(torch.zeros_like(pixels), pixels, factor)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image's mean grey."""
    return _blend(_grey(pixels).mean((2, 3), keepdim=True), pixels, factor)


def saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the image in grey; a grey image stays as it is."""
    return _blend(_grey(pixels), pixels, factor)


def sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with a smoothed image, except at its border."""
    channels = pixels.shape[1]
    kernel = torch.ones(3, 3, device=pixels.device)
    kernel[1, 1] = 5
    smooth = pixels.clone()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(pixels, (kernel / 13).expand(channels, 1, 3, 3), groups=channels)
    return _blend(smooth, pixels, factor)


def _grey(pixels: Tensor) -> Tensor:
    if pixels.shape[1] != len(LUMA):
        return pixels.mean(1, keepdim=True)
    return (pixels * torch.tensor(LUMA, dtype=pixels.dtype, device=pixels.device)[:, None, None]).sum(1, keepdim=True)


def _blend(zero: Tensor, one: Tensor, factor: Tensor) -> Tensor:
    return (zero + (one - zero) * factor[:, None, None, None]).clamp_(0, 1)


# ---- the operations, by a strength for each image (N,) in [-1, 1]


def shear_x(pixels: Tensor, strength: Tensor) -> Tensor:
    """Shift each row in proportion to its distance from the centre."""
    return _warp(pixels, strength, lambda s: ((1, STEEPEST * s, 0), (0, 1, 0)))


def shear_y(pixels: Tensor, strength: Tensor) -> Tensor:
    """Shift each column in proportion to its distance from the centre."""
    return _warp(pixels, strength, lambda s: ((1, 0, 0), (STEEPEST * s, 1, 0)))


def translate_x(pixels: Tensor, strength: Tensor) -> Tensor:
    """Shift left or right."""
    return _warp(pixels, strength, lambda s: ((1, 0, 2 * FURTHEST / pixels.shape[3] * s), (0, 1, 0)))


def translate_y(pixels: Tensor, strength: Tensor) -> Tensor:
    """Shift up or down."""
    return _warp(pixels, strength, lambda s: ((1, 0, 0), (0, 1, 2 * FURTHEST / pixels.shape[2] * s)))


def rotate(pixels: Tensor, strength: Tensor) -> Tensor:
    """Rotate around the centre."""

    def turn(s: float) -> "_Matrix":
        angle = math.radians(TURN * s)
        return (math.cos(angle), -math.sin(angle), 0), (math.sin(angle), math.cos(angle), 0)

    return _warp(pixels, strength, turn)


_Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]


def _warp(pixels: Tensor, strength: Tensor, matrix: Callable[[float], _Matrix]) -> Tensor:
    """Take each pixel from the place to which the matrix maps it, black outside."""
    matrices = torch.tensor([matrix(each) for each in strength.tolist()], device=pixels.device)
    grid = F.affine_grid(matrices, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="zeros", align_corners=False)


def posterize(pixels: Tensor, strength: Tensor) -> Tensor:
    """Keep between eight and two bits of each value."""
    step = 2 ** (strength.abs() * (8 - FEWEST_BITS)).round()[:, None, None, None]
    return ((pixels * LEVELS).round() / step).floor() * step / LEVELS


def solarize(pixels: Tensor, strength: Tensor) -> Tensor:
    """Invert the values from a threshold on."""
    return torch.where(pixels >= 1 - strength.abs()[:, None, None, None], 1 - pixels, pixels)


def autocontrast(pixels: Tensor, strength: Tensor) -> Tensor:
    """Stretch the values of each channel to the full range."""
    low, high = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
    return torch.where(high > low, (pixels - low) / (high - low).clamp(min=1e-6), pixels)


def equalize(pixels: Tensor, strength: Tensor) -> Tensor:
    """Make all values of each channel equally frequent, as Pillow does."""
    levels = (pixels * LEVELS).round().long().flatten(2)  # (N, C, pixels)
    counts = torch.zeros(*levels.shape[:2], LEVELS + 1, device=pixels.device, dtype=torch.int64)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    highest = counts.gather(2, levels.amax(2, keepdim=True))
    step = (levels.shape[2] - highest) // LEVELS
    before = counts.cumsum(2) - counts
    table = ((before + step // 2) // step.clamp(min=1)).clamp_(0, LEVELS)
    return torch.where(step > 0, table.gather(2, levels), levels).view(pixels.shape).to(pixels.dtype) / LEVELS


OPERATIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    lambda pixels, strength: pixels,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
    rotate,
    *(
        (lambda pixels, strength, change=change: change(pixels, 1 + WIDEST * strength))
        for change in (brightness, saturation, contrast, sharpness)
    ),
    posterize,
    solarize,
    autocontrast,
    equalize,
)

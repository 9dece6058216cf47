import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from reslab.data import colors

STRENGTHS = (-0.9, -0.3, 0.2, 0.7)


def make_pixels():
    """Smooth pictures (N, 3, H, W) from 0 to 1 in 256 levels, which do not use all of them."""
    coarse = torch.rand(len(STRENGTHS), 3, 4, 5, generator=torch.Generator().manual_seed(0))
    large = torch.nn.functional.interpolate(coarse, size=(24, 30), mode="bilinear")
    return (large * 200 + 20).round() / 255


def by_pillow(pixels, change):
    """Apply a change of one picture, given its strength, to all."""
    found = []
    for image, strength in zip(pixels, STRENGTHS, strict=True):
        picture = Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy())
        found.append(torch.from_numpy(np.array(change(picture, strength))).permute(2, 0, 1))
    return torch.stack(found).float()


PILLOW = {
    "brightness": lambda picture, s: ImageEnhance.Brightness(picture).enhance(1 + s),
    "saturation": lambda picture, s: ImageEnhance.Color(picture).enhance(1 + s),
    "contrast": lambda picture, s: ImageEnhance.Contrast(picture).enhance(1 + s),
    "sharpness": lambda picture, s: ImageEnhance.Sharpness(picture).enhance(1 + s),
    "posterize": lambda picture, s: ImageOps.posterize(picture, 8 - round(6 * abs(s))),
    "solarize": lambda picture, s: ImageOps.solarize(picture, 255 * (1 - abs(s))),
    "autocontrast": lambda picture, s: ImageOps.autocontrast(picture),
    "equalize": lambda picture, s: ImageOps.equalize(picture),
    "rotate": lambda picture, s: picture.rotate(colors.TURN * s, Image.Resampling.BILINEAR),
}


@pytest.mark.parametrize("name", PILLOW)
def test_an_operation_is_pillow_s(name):
    pixels, strengths = make_pixels(), torch.tensor(STRENGTHS)
    if name == "rotate":
        pixels = pixels[..., :24]
    factor = name in ("brightness", "saturation", "contrast", "sharpness")
    found = getattr(colors, name)(pixels, 1 + strengths if factor else strengths) * 255
    apart = (found - by_pillow(pixels, PILLOW[name])).abs()
    # Pillow rounds in between, and turns off the centre by a part of a pixel.
    assert float(apart.median()) <= 1.5
    assert float((apart <= 3).float().mean()) > (0.93 if name == "rotate" else 0.999)


def test_all_operations_are_drawn_and_an_image_gets_one_alone(monkeypatch):
    calls = [(lambda pixels, strength, number=number: pixels + number + 1) for number in range(14)]
    assert len(colors.OPERATIONS) == len(calls)
    monkeypatch.setattr(colors, "OPERATIONS", calls)
    monkeypatch.setattr(colors, "_to_pixels", lambda images, by: images.clone())
    monkeypatch.setattr(colors, "_from_pixels", lambda pixels, by: pixels)
    images = torch.zeros(700, 1, 1, 1)
    found = colors.trivial_augment(images, by=None, generator=torch.Generator().manual_seed(0))
    counts = found.flatten().long().bincount(minlength=15)[1:]
    assert counts.sum() == len(images)
    assert counts.min() > 25

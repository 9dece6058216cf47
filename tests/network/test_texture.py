"""Statistics of pixels: what they tell apart, and that ordinary pictures are not told apart by them."""

import numpy as np
import pytest
import torch
from torch import Tensor

from reslab.network.texture import count_statistics, describe_texture, fit_texture


def draw_photographs(num: int, *, seed: int, side: int = 32) -> Tensor:
    """Draw soft patches of varied colours and contrast."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.randn(num, 3, 6, 6, generator=generator)
    soft = torch.nn.functional.interpolate(small, size=side, mode="bicubic")
    grain = 0.1 * torch.randn(num, 3, side, side, generator=generator)
    return (
        torch.randn(num, 3, 1, 1, generator=generator) / 2
        + soft * torch.rand(num, 1, 1, 1, generator=generator)
        + grain
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [1, 2, 3, 4, 8, 33])
def test_images_of_any_size_are_described_by_finite_numbers(channels: int, side: int) -> None:
    for images in (torch.zeros(4, channels, side, side), torch.randn(4, channels, side, side)):
        found = describe_texture(images)
        assert found.shape == (4, count_statistics(channels, side))
        assert found.isfinite().all()
    assert fit_texture(found, found).score(found).isfinite().all()


def test_the_statistics_of_images_of_any_size_are_counted_without_making_one() -> None:
    assert count_statistics(3, 10**9) == count_statistics(3, 8) == 13


def test_statistics_are_what_their_names_say() -> None:
    images = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    values = images.numpy().astype(np.float64)[0]
    grey = values.mean(axis=0)
    halves = grey.reshape(4, 2, 4, 2).mean(axis=(1, 3))
    expected = [
        *values.mean(axis=(1, 2)),
        *np.log(values.var(axis=(1, 2)) + 1e-3),
        np.log(((values - grey) ** 2).mean() + 1e-3),
        np.log((np.diff(grey, axis=1) ** 2).mean() + 1e-3),
        np.log((np.diff(grey, axis=0) ** 2).mean() + 1e-3),
        np.log((np.diff(halves, axis=1) ** 2).mean() + 1e-3),
        np.log((np.diff(halves, axis=0) ** 2).mean() + 1e-3),
    ]
    np.testing.assert_allclose(describe_texture(images)[0, :11], expected, rtol=1e-4)


def test_what_shows_nothing_is_stranger_than_what_is_like_the_training_images() -> None:
    known, held_out, coming = (describe_texture(draw_photographs(400, seed=seed)) for seed in range(3))
    texture = fit_texture(known, held_out)
    usual = texture.score(coming)
    assert float(usual.max()) == pytest.approx(-float(texture.limit))  # no more ordinary than the median
    assert float((usual == usual.max()).float().mean()) == pytest.approx(0.5, abs=0.1)
    generator = torch.Generator().manual_seed(3)
    rows = torch.linspace(0, 40, 32)
    strange = {
        "noise": torch.randn(50, 3, 32, 32, generator=generator),
        "one colour": torch.randn(50, 3, 1, 1, generator=generator).expand(-1, -1, 32, 32),
        "stripes": torch.sin(rows)[None, None, :, None].expand(50, 3, 32, 32)
        * torch.rand(50, 3, 1, 1, generator=generator),
    }
    for name, images in strange.items():
        assert float(texture(images).max()) < float(usual.quantile(0.05)), name

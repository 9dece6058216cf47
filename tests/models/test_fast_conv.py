"""The fast network against a naive re-implementation, its counts by hand, and the whitening against its definition."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reslab.models import build, fast_conv
from reslab.models.costs import count_multiply_adds, count_parameters
from reslab.models.fast_conv import SMALLEST_VARIANCE
from reslab.models.layers import ImageClassifier
from reslab.recipe.networks import FastConv, ResNet

WIDTHS = (8, 24, 16)  # more channels than before, and fewer


def make_network(*, channels: int = 3, widths: tuple[int, int, int] = WIDTHS, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return build(FastConv(widths=widths), num_classes=7, channels=channels)


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_correlated(num: int = 400, *, channels: int = 3, side: int = 12) -> Tensor:
    """Random images whose channels and neighbouring pixels resemble each other, of mean 0."""
    noise = draw(num, channels, side + 2, side + 2)
    mixed = torch.einsum("nchw,dc->ndhw", noise, draw(channels, channels, seed=2))
    return 10 * F.avg_pool2d(mixed, 3, stride=1).float()


# ---- the forward pass


def naive_norm(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    mean, variance = norm.running_mean, norm.running_var
    if norm.training:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    assert mean is not None
    assert variance is not None
    return (x - mean[:, None, None]) / variance[:, None, None].sqrt() + norm.bias[:, None, None]


def naive_gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def naive_pool(x: Tensor) -> Tensor:
    """The maximum of every whole 2x2 square; an odd row or column at the end is left out."""
    rows, columns = x.shape[2] // 2, x.shape[3] // 2
    out = x.new_zeros(*x.shape[:2], rows, columns)
    for row, column in itertools.product(range(rows), range(columns)):
        out[:, :, row, column] = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten(2).max(2).values
    return out


def naive_features(model: Any, images: Tensor) -> Tensor:
    x = naive_gelu(F.conv2d(images, model.stem.weight, model.stem.bias))
    for group in model.groups:
        x = naive_gelu(naive_norm(group.norm1, naive_pool(F.conv2d(x, group.conv1.weight, padding=1))))
        x = naive_gelu(naive_norm(group.norm2, F.conv2d(x, group.conv2.weight, padding=1)))
    return x.flatten(2).max(2).values / x.shape[1]


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize(("rows", "columns"), [(17, 22), (9, 16)])
def test_network_is_the_naive_one(rows: int, columns: int, training: bool) -> None:
    model = make_network().double().train(training)
    for number, (name, tensor) in enumerate(model.state_dict().items()):
        values = draw(*tensor.shape, seed=number)
        if tensor.ndim == 4:
            tensor.add_(values, alpha=0.1)  # no longer the identity
        elif tensor.ndim == 1 and not name.endswith("norm1.weight") and not name.endswith("norm2.weight"):
            tensor.copy_(values.abs() + 0.5 if name.endswith("running_var") else values)
    images = draw(3, 3, rows, columns)
    features, expected = model.features(images), naive_features(model, images)
    torch.testing.assert_close(features, expected, rtol=1e-8, atol=1e-9)
    trained = [each for name, each in model.named_parameters() if each.requires_grad and not name.startswith("head")]
    weight = draw(*features.shape)
    gradients = torch.autograd.grad((features * weight).sum(), trained)
    torch.testing.assert_close(gradients, torch.autograd.grad((expected * weight).sum(), trained), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_many_sides_are_taken(channels: int) -> None:
    model = make_network(channels=channels).train()
    for side in (FastConv.SMALLEST_IMAGE, 10, 15, 16, 17, 19, 23, 24, 28, 31, 32, 40):
        logits = model(torch.randn(2, channels, side, side))
        assert logits.shape == (2, 7)
        assert logits.isfinite().all()


def test_the_smallest_image_is_the_smallest_that_leaves_a_pixel() -> None:
    model = make_network()
    side = FastConv.SMALLEST_IMAGE - 1
    with pytest.raises(RuntimeError, match="Output size is too small"):
        model(torch.randn(2, 3, side, side))


# ---- counts by hand


def count_by_hand(*, channels: int, widths: tuple[int, int, int], classes: int, side: int) -> dict[str, int]:
    patches = 2 * channels * 4
    stem, biases, head = patches * channels * 4, patches + 2 * sum(widths), widths[-1] * classes
    adds, filters, side = stem * (side - 1) ** 2, 0, side - 1
    for inputs, outputs in itertools.pairwise((patches, *widths)):
        filters += 9 * (inputs * outputs + outputs * outputs)
        adds += 9 * (inputs * outputs * side**2 + outputs * outputs * (side // 2) ** 2)
        side //= 2
    scales = 2 * sum(widths)
    return {
        "trained": filters + biases + head,
        "untrained": stem + scales + classes,
        "statistics": 2 * scales,
        "multiply_adds": adds + head,
    }


def test_counts_of_the_network_of_the_record() -> None:
    hand = count_by_hand(channels=3, widths=(64, 256, 256), classes=10, side=32)
    assert hand == {"trained": 1_971_352, "untrained": 1_450, "statistics": 2_304, "multiply_adds": 118_147_360}
    model = build(FastConv(), num_classes=10)
    assert count_parameters(model, trained_only=False) == 1_975_106 == sum(hand.values()) - hand["multiply_adds"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [9, 24, 32])
def test_counts_of_other_widths(channels: int, side: int) -> None:
    model = make_network(channels=channels)
    hand = count_by_hand(channels=channels, widths=WIDTHS, classes=7, side=side)
    sizes = {True: 0, False: 0}
    for parameter in model.parameters():
        sizes[parameter.requires_grad] += parameter.numel()
    assert sizes == {True: hand["trained"], False: hand["untrained"]}
    assert count_parameters(model, trained_only=False) == sum(sizes.values()) + hand["statistics"]
    assert count_multiply_adds(model, image=torch.zeros(channels, side, side)) == hand["multiply_adds"]


# ---- whitened patches


def naive_patches(images: Tensor) -> Tensor:
    """Every 2x2 patch as a row, channels first."""
    rows, columns = images.shape[2] - 1, images.shape[3] - 1
    places = itertools.product(range(rows), range(columns))
    return torch.cat([images[:, :, row : row + 2, column : column + 2].flatten(1) for row, column in places])


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_have_no_correlation_left_and_come_with_both_signs(channels: int) -> None:
    model, images = make_network(channels=channels), draw_correlated(channels=channels)
    patches = naive_patches(images).double()
    before = patches.T @ patches / len(patches)
    model.prepare(images)
    white = F.conv2d(images, model.stem.weight, model.stem.bias).double()
    half = 4 * channels
    torch.testing.assert_close(white[:, half:], -white[:, :half])
    rows = white[:, :half].permute(0, 2, 3, 1).reshape(-1, half)
    after = rows.T @ rows / len(rows)
    # A direction of variance v is left with v / (v + the smallest variance): 1 but for the faintest.
    variances = torch.linalg.eigvalsh(before)
    assert variances.max() / variances.min() > 10
    expected = torch.diag(variances / (variances + SMALLEST_VARIANCE))
    torch.testing.assert_close(after, expected, rtol=1e-3, atol=1e-3)
    assert expected.diagonal().min() > 0.99


def test_what_hardly_varies_is_not_blown_up() -> None:
    """Constant images vary along one direction only; the others are as good as noise of rounding."""
    model = make_network()
    model.prepare(torch.randn(50, 3, 1, 1).expand(-1, -1, 9, 9))
    assert model.stem.weight.isfinite().all()
    assert model.stem.weight.abs().max() <= 1.0001 / SMALLEST_VARIANCE**0.5


def test_preparing_is_deterministic_and_touches_the_stems_kernels_alone() -> None:
    images = draw_correlated()
    first, again, plain = make_network(), make_network(), make_network()
    first.prepare(images)
    torch.manual_seed(99)
    again.prepare(images.clone())
    assert not torch.equal(first.stem.weight, plain.stem.weight)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        assert name == "stem.weight" or torch.equal(value, plain.state_dict()[name])
    assert not first.stem.weight.requires_grad


def test_images_are_prepared_by_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    images = draw_correlated()
    whole, parts = make_network(), make_network()
    whole.prepare(images)
    monkeypatch.setattr(fast_conv, "PIXELS_AT_ONCE", 3 * images[0, 0].numel())
    parts.prepare(images)
    torch.testing.assert_close(parts.stem.weight.abs(), whole.stem.weight.abs(), rtol=1e-3, atol=1e-3)


def test_other_families_are_left_as_they_are() -> None:
    model: ImageClassifier = build(ResNet(depth=8, width=8), num_classes=7)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.prepare(torch.randn(10, 3, 9, 9))
    assert not model.is_prepared  # so that no image is read for it
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# ---- initial weights


def test_filters_hand_their_inputs_on_at_first_and_only_the_rest_is_drawn() -> None:
    for group in make_network().groups:
        for conv in (group.conv1, group.conv2):
            inputs, outputs = conv.in_channels, conv.out_channels
            x = torch.randn(2, inputs, 5, 6)
            shared = min(inputs, outputs)
            torch.testing.assert_close(conv(x)[:, :shared], x[:, :shared])
            assert conv.bias is None
            assert all(kernel.count_nonzero() == kernel.numel() for kernel in conv.weight[shared:])


def test_head_has_deviation_1_and_no_bias_at_first() -> None:
    model = make_network(widths=(8, 8, 64))
    assert model.head.weight.std().item() == pytest.approx(1)
    assert not model.head.bias.any()
    assert not model.stem.bias.any()
    assert model.stem.bias.requires_grad

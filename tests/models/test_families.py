"""Each family against a naive re-implementation, out of place and in double precision; initial weights, padding."""

import itertools
import math
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reslab.models import build
from reslab.models.elu_resnet import BLOCKS
from reslab.models.layers import ImageClassifier, SubsampleAndPad, init_kaiming
from reslab.models.preact_resnet import TRUNCATED_DEVIATION, init_as_keras, pad_as_keras
from reslab.recipe.networks import EluResNet, Model, Plain, PreActResNet, ResNet


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---- the naive parts: nothing is written in place, nothing is a module


def naive_activate(kind: str, x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.zeros_like(x) if kind == "relu" else torch.exp(x.clamp(max=0)) - 1)


def naive_norm(norm: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(norm, nn.BatchNorm2d)
    mean, variance = norm.running_mean, norm.running_var
    if norm.training:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    assert mean is not None
    assert variance is not None
    centred = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
    return centred * norm.weight[:, None, None] + norm.bias[:, None, None]


def naive_subsample(x: Tensor, outputs: int, stride: int) -> Tensor:
    rows, columns = range(0, x.shape[2], stride), range(0, x.shape[3], stride)
    out = x.new_zeros(x.shape[0], outputs, len(rows), len(columns))
    for channel in range(x.shape[1]):
        for (i, row), (j, column) in itertools.product(enumerate(rows), enumerate(columns)):
            out[:, channel, i, j] = x[:, channel, row, column]
    return out


def naive_pad(x: Tensor) -> Tensor:
    """What `same` means at stride 2 for a window of 3: enough for ceil(side / 2) windows, the odd pixel at the end."""
    total = [max((math.ceil(side / 2) - 1) * 2 + 3 - side, 0) for side in x.shape[2:]]
    out = x.new_zeros(*x.shape[:2], *(side + t for side, t in zip(x.shape[2:], total, strict=True)))
    top, left = (t // 2 for t in total)
    out[:, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    return out


def naive_shortcut(block: Any, x: Tensor, kind: str) -> Tensor:
    stride, outputs = block.conv1.stride[0], block.conv1.out_channels
    if (stride, outputs) == (1, x.shape[1]):
        return x
    if kind == "B":
        conv, norm = block.shortcut
        return naive_norm(norm, F.conv2d(x, conv.weight, stride=stride))
    return naive_subsample(x, outputs, stride)


# ---- the naive blocks and networks


def naive_preact_block(block: Any, x: Tensor, options: Any) -> Tensor:
    activation = options.activation
    active = naive_activate(activation, naive_norm(block.norm1, x))
    keras = options.keras_padding and block.conv1.stride == (2, 2)
    padded = naive_pad(active) if keras else F.pad(active, (1, 1, 1, 1))
    hidden = F.conv2d(padded, block.conv1.weight, block.conv1.bias, stride=block.conv1.stride)
    change: Tensor = block.conv2(naive_activate(activation, naive_norm(block.norm2, hidden)))
    return change + (x if block.project is None else block.project(active))


def naive_resnet_block(block: Any, x: Tensor, options: Any) -> Tensor:
    activation = options.activation
    hidden = naive_activate(activation, naive_norm(block.norm1, block.conv1(x)))
    return naive_activate(
        activation,
        naive_norm(block.norm2, block.conv2(hidden)) + naive_shortcut(block, x, options.shortcut),
    )


def naive_plain_block(block: Any, x: Tensor, options: Any) -> Tensor:
    activation = options.activation
    hidden = naive_activate(activation, naive_norm(block.norm1, block.conv1(x)))
    return naive_activate(activation, naive_norm(block.norm2, block.conv2(hidden)))


def naive_elu_block(block: Any, x: Tensor, options: Any) -> Tensor:
    def elu(x: Tensor) -> Tensor:
        return naive_activate("elu", x)

    around = naive_shortcut(block, x, options.shortcut)
    match options.block:
        case "conv-elu-conv-bn":
            return naive_norm(block.norm2, block.conv2(elu(block.conv1(x)))) + around
        case "elu-after-addition":
            return elu(block.conv2(elu(block.conv1(x))) + around)
        case "bn-before-elu":
            return elu(naive_norm(block.norm2, block.conv2(elu(block.conv1(x)))) + around)
        case "conv-bn-elu":
            return elu(naive_norm(block.norm2, block.conv2(elu(naive_norm(block.norm1, block.conv1(x))))) + around)
    raise AssertionError(options)


NAIVE_BLOCKS = {
    "preact_resnet": naive_preact_block,
    "resnet": naive_resnet_block,
    "plain": naive_plain_block,
    "elu_resnet": naive_elu_block,
}


def naive_features(model: Any, images: Tensor, options: Any) -> Tensor:
    activation = "elu" if options.kind == "elu_resnet" else options.activation
    before = options.kind == "preact_resnet"  # the first norm stands in the blocks and the last one behind them
    x = model.stem(images)
    x = x if before else naive_activate(activation, naive_norm(model.norm, x))
    for block in model.blocks:
        x = NAIVE_BLOCKS[options.kind](block, x, options)
    x = naive_activate(activation, naive_norm(model.norm, x)) if before else x
    return x.flatten(2).sum(2) / (x.shape[2] * x.shape[3])


SHORTCUTS: tuple[Literal["A", "B"], ...] = ("A", "B")
SMALL: dict[str, Any] = {"depth": 14, "width": 8}
NETWORKS: list[Model] = [
    *(PreActResNet(**SMALL, activation=a, keras_padding=k) for a in ("relu", "elu") for k in (False, True)),
    *(ResNet(**SMALL, activation=a, shortcut=s) for a in ("relu", "elu") for s in SHORTCUTS),
    *(Plain(**SMALL, activation=a) for a in ("relu", "elu")),
    *(EluResNet(**SMALL | {"block": b}, shortcut=s) for b in BLOCKS for s in SHORTCUTS),
]


def make_network(options: Model) -> ImageClassifier:
    """A network with an identity and a changing shortcut, whose norms neither scale by 1 nor shift by 0."""
    torch.manual_seed(0)
    model = build(options, num_classes=7).double()
    for number, (name, tensor) in enumerate(model.state_dict().items()):
        if tensor.ndim == 1:
            values = draw(*tensor.shape, seed=number)
            tensor.copy_(values.abs() + 0.5 if name.endswith("running_var") else values)
    return model


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("options", NETWORKS, ids=lambda options: options.words)
def test_network_is_the_naive_one(options: Any, training: bool) -> None:
    model = make_network(options).train(training)
    given = draw(3, 3, 9, 8)
    images, same_images = given.clone().requires_grad_(), given.clone().requires_grad_()
    features, expected = model.features(images), naive_features(model, same_images, options)
    torch.testing.assert_close(features, expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(images, given)

    trained = [parameter for name, parameter in model.named_parameters() if not name.startswith("head")]
    weight = draw(*features.shape)
    gradients = torch.autograd.grad((features * weight).sum(), [images, *trained])
    expected_gradients = torch.autograd.grad((expected * weight).sum(), [same_images, *trained])
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-8, atol=1e-8)


def test_options_make_different_networks() -> None:
    images = draw(2, 3, 8, 8)
    for kind in NAIVE_BLOCKS:
        outputs = []
        for options in (options for options in NETWORKS if options.kind == kind):
            with torch.inference_mode():
                outputs.append(make_network(options).eval().features(images))
        for one, other in itertools.combinations(outputs, 2):
            assert (one - other).abs().max() > 1e-3


# ---- what a block holds


@pytest.mark.parametrize(
    ("block", "held"),
    [
        ("conv-elu-conv-bn", ["conv1.weight", "conv1.bias", "conv2.weight", "norm2.weight", "norm2.bias"]),
        ("elu-after-addition", ["conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"]),
        ("bn-before-elu", ["conv1.weight", "conv1.bias", "conv2.weight", "norm2.weight", "norm2.bias"]),
        (
            "conv-bn-elu",
            ["conv1.weight", "norm1.weight", "norm1.bias", "conv2.weight", "norm2.weight", "norm2.bias"],
        ),
    ],
)
def test_elu_block_holds_its_norms_and_a_bias_where_none_follows(block: Any, held: list[str]) -> None:
    model: Any = make_network(EluResNet(**SMALL, block=block))
    for one in model.blocks:
        assert [name for name, _ in one.named_parameters()] == held


# ---- shortcuts and padding


@pytest.mark.parametrize(("rows", "columns", "stride"), [(8, 8, 2), (7, 7, 2), (5, 8, 2), (1, 2, 2), (4, 4, 1)])
def test_option_a_is_every_second_pixel_and_zero_channels(rows: int, columns: int, stride: int) -> None:
    x = draw(2, 3, rows, columns)
    out = SubsampleAndPad(3, 6, stride)(x)
    torch.testing.assert_close(out, naive_subsample(x, 6, stride), rtol=0, atol=0)
    assert not out[:, 3:].any()


def test_the_gradient_of_a_subsampling_shortcut_keeps_the_layout_of_its_images():
    x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    (gradient,) = torch.autograd.grad(SubsampleAndPad(3, 6, 2)(x).square().sum(), x)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    expected = torch.zeros_like(x)
    expected[:, :, ::2, ::2] = 2 * x.detach()[:, :, ::2, ::2]
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (7, 7), (32, 17), (17, 32), (2, 1), (1, 2)])
def test_padding_is_that_of_keras(rows: int, columns: int) -> None:
    x = draw(2, 3, rows, columns)
    padded = pad_as_keras(x)
    torch.testing.assert_close(padded, naive_pad(x), rtol=0, atol=0)
    kernel = draw(1, 3, 3, 3)
    assert F.conv2d(padded, kernel, stride=2).shape[2:] == (math.ceil(rows / 2), math.ceil(columns / 2))


def test_padding_of_even_sides_is_only_below_and_to_the_right() -> None:
    expected = torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 0]])
    torch.testing.assert_close(pad_as_keras(torch.ones(1, 1, 2, 2))[0, 0], expected, rtol=0, atol=0)


# ---- initial weights


def test_truncated_deviation_is_that_of_a_normal_cut_at_two() -> None:
    density, inside = math.exp(-2) / math.sqrt(2 * math.pi), math.erf(2 / math.sqrt(2))
    assert pytest.approx(math.sqrt(1 - 4 * density / inside), rel=1e-12) == TRUNCATED_DEVIATION


@pytest.mark.parametrize("layer", [nn.Conv2d(32, 1000, 3), nn.Conv2d(400, 1000, 1), nn.Linear(300, 1000)])
def test_kernels_of_the_lab_are_cut_at_two_deviations(layer: nn.Conv2d | nn.Linear) -> None:
    torch.manual_seed(0)
    init_as_keras(layer)
    fan_in = layer.weight.numel() / 1000
    # At least 288,000 numbers: the standard errors are about 0.1 %.
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.01)
    assert abs(layer.weight.mean().item()) < 0.01 * math.sqrt(2 / fan_in)
    cut = 2 * math.sqrt(2 / fan_in) / 0.8796256610342398
    assert 0.999 * cut < layer.weight.abs().max().item() <= cut * (1 + 1e-6)
    assert torch.count_nonzero(layer.state_dict()["bias"]) == 0


@pytest.mark.parametrize("layer", [nn.Conv2d(32, 1000, 3), nn.Linear(300, 1000)])
def test_kernels_of_he_are_normal(layer: nn.Conv2d | nn.Linear) -> None:
    torch.manual_seed(0)
    init_kaiming(layer)
    standard = layer.weight.detach() / math.sqrt(2 / (layer.weight.numel() / 1000))
    assert standard.std().item() == pytest.approx(1, rel=0.01)
    # A normal leaves 4.55 % beyond two deviations and 0.27 % beyond three; a cut or uniform one far fewer.
    assert (standard.abs() > 2).double().mean().item() == pytest.approx(0.0455, rel=0.05)
    assert (standard.abs() > 3).double().mean().item() == pytest.approx(0.0027, rel=0.2)
    assert torch.count_nonzero(layer.state_dict()["bias"]) == 0

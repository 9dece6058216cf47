"""The networks of the zoo against naive re-implementations in double precision, whose sizes stand here as numbers."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reslab.models import build
from reslab.models.layers import ImageClassifier
from reslab.network.folding import fold
from reslab.recipe.networks import (
    DenseNet,
    EfficientNetLite,
    ImageNetResNet,
    LeNet,
    Model,
    NiN,
    ResNeXt,
    Vgg19,
    WideResNet,
)


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_network(options: Model) -> ImageClassifier:
    """A network in evaluation mode whose norms neither scale by 1 nor shift by 0."""
    torch.manual_seed(0)
    model = build(options, num_classes=7).double().eval()
    for number, (name, tensor) in enumerate(model.state_dict().items()):
        if tensor.ndim == 1:
            values = draw(*tensor.shape, seed=number)
            tensor.copy_(values.abs() + 0.5 if name.endswith("running_var") else values)
    return model


# ---- the naive parts


def norm(layer: Any, x: Tensor, chosen: slice = slice(None), *, epsilon: float = 1e-5) -> Tensor:
    shape = (-1, *[1] * (x.ndim - 2))
    mean, variance, weight, bias = (
        each[chosen].reshape(shape) for each in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    )
    return (x - mean) / (variance + epsilon).sqrt() * weight + bias


def relu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.0)


def conv(layer: Any, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    return F.conv2d(x, layer.weight, layer.bias, stride, padding)


def windows(x: Tensor, side: int, stride: int) -> Tensor:
    """Every window as the last axis; those that reach over the end are filled with what is not a number."""
    rows, columns = (-(-(length - side) // stride) * stride + side - length for length in x.shape[2:])
    padded = F.pad(x, (0, max(columns, 0), 0, max(rows, 0)), value=torch.nan)
    return padded.unfold(2, side, stride).unfold(3, side, stride).flatten(4)


def maxima(x: Tensor, side: int, stride: int) -> Tensor:
    return windows(x, side, stride).nan_to_num(-torch.inf).amax(4)


def mean(x: Tensor) -> Tensor:
    return x.flatten(2).sum(2) / (x.shape[2] * x.shape[3])


def layers_of(model: nn.Module, kind: type[nn.Module]) -> Iterator[Any]:
    return iter([module for module in model.modules() if isinstance(module, kind)])


# ---- the naive networks


def naive_lenet(model: Any, x: Tensor) -> Tensor:
    x = maxima(relu(conv(model.conv1, x)), 2, 2)
    x = maxima(relu(conv(model.conv2, x)), 2, 2)
    assert x.shape[1:] == (16, 5, 5)
    x = relu(x.flatten(1) @ model.linear1.weight.T + model.linear1.bias)
    return relu(x @ model.linear2.weight.T + model.linear2.bias)


def naive_nin(model: Any, x: Tensor) -> Tensor:
    convs, norms = layers_of(model, nn.Conv2d), layers_of(model, nn.BatchNorm2d)
    for side in (5, 5, 3):
        for width in (side, 1, 1) if side == 5 else (side, 1):
            x = relu(norm(next(norms), conv(next(convs), x, padding=width // 2)))
        if side == 5:
            x = maxima(x, 3, 2)
    return mean(x)


def naive_vgg19(model: Any, x: Tensor) -> Tensor:
    convs, norms = layers_of(model, nn.Conv2d), layers_of(model, nn.BatchNorm2d)
    for count in (2, 2, 4, 4, 4):
        for _ in range(count):
            x = relu(norm(next(norms), conv(next(convs), x, padding=1)))
        x = maxima(x, 2, 2)
    x = mean(x)
    linears, last = layers_of(model.hidden, nn.Linear), layers_of(model.hidden, nn.BatchNorm1d)
    for _ in range(2):
        x = relu(norm(next(last), x @ next(linears).weight.T))
    return x / 4  # the root of 16 features


def naive_wide_resnet(model: Any, x: Tensor, *, projects: bool = False) -> Tensor:
    x = conv(model.stem, x, padding=1)
    for place, block in enumerate(model.blocks):  # two in each of three stages
        stride = 2 if place in (2, 4) else 1
        active = relu(norm(block.norm1, x))
        change = relu(norm(block.norm2, conv(block.conv1, active, stride, 1)))
        around = conv(block.project, active, stride) if projects or place in (0, 2, 4) else x
        x = conv(block.conv2, change, padding=1) + around
    return mean(relu(norm(model.norm, x)))


def naive_densenet(model: Any, x: Tensor, *, last: bool = False) -> Tensor:
    layers = iter(model.layers)
    maps = [conv(model.stem, x, padding=1)]
    for stage in range(3):
        for layer in (next(layers), next(layers)):
            narrow = conv(layer.conv1, relu(norm(layer.norm1, torch.cat(maps, 1))))
            maps.append(conv(layer.conv2, relu(norm(layer.norm2, narrow)), padding=1))
        if stage < 2 or last:
            before, _, half, _ = (next(layers) for _ in range(4))
            maps = [windows(conv(half, relu(norm(before, torch.cat(maps, 1)))), 2, 2).nanmean(4)]
    return mean(relu(norm(model.norm, torch.cat(maps, 1))))


def naive_resnext(model: Any, x: Tensor, *, groups: int, script: bool = False) -> Tensor:
    """The sum of ways, each with convolutions of its own."""
    x = relu(norm(model.norm, conv(model.stem, x, padding=1)))
    for stage, block in enumerate(model.blocks):
        stride, width = 1 if stage == 0 else 2, 8 * 2**stage
        change: Any = 0
        for way in (slice(group * width, (group + 1) * width) for group in range(groups)):
            hidden = relu(norm(block.norm1, F.conv2d(x, block.conv1.weight[way]), way))
            hidden = relu(norm(block.norm2, F.conv2d(hidden, block.conv2.weight[way], None, stride, 1), way))
            change = change + F.conv2d(hidden, block.conv3.weight[:, way])
        change = norm(block.norm3, change)
        change = relu(change) if script else change
        if script:  # the test's network of the script is that with squeeze and excitation
            squeezed = relu(mean(change) @ block.excite.squeeze.weight.T)
            change = change / (1 + torch.exp(-squeezed @ block.excite.excite.weight.T))[:, :, None, None]
        x = relu(change + norm(block.shortcut[1], conv(block.shortcut[0], x, stride)))
    return mean(x)


def naive_imagenet_resnet(model: Any, x: Tensor, *, first: bool = True, small: bool = False) -> Tensor:
    x = relu(norm(model.norm, conv(model.stem, x, 1, 1) if small else conv(model.stem, x, 2, 3)))
    if not small:  # a pixel on every side, which is no maximum of what is above zero
        x = maxima(F.pad(x, (1, 1, 1, 1)), 3, 2)[:, :, : (x.shape[2] + 1) // 2, : (x.shape[3] + 1) // 2]
    for place, block in enumerate(model.blocks):  # 3, 4, 6 and 3
        stride = 2 if place in (3, 7, 13) else 1
        change = relu(norm(block.norm1, conv(block.conv1, x, stride if first else 1)))
        change = relu(norm(block.norm2, conv(block.conv2, change, 1 if first else stride, 1)))
        change = norm(block.norm3, conv(block.conv3, change))
        changes = place in (0, 3, 7, 13)
        x = relu(change + (norm(block.shortcut[1], conv(block.shortcut[0], x, stride)) if changes else x))
    return mean(x)


def convolve_same(kernels: Tensor, x: Tensor, stride: int) -> Tensor:
    """TensorFlow's `same`, window by window: of the zeros that the last window needs, the odd one is at the end."""
    groups = x.shape[1] // kernels.shape[1]
    side, maps = kernels.shape[2], []
    needed = [(-(-length // stride) - 1) * stride + side - length for length in x.shape[2:]]
    (top, bottom), (left, right) = [(max(num, 0) // 2, max(num, 0) - max(num, 0) // 2) for num in needed]
    padded = F.pad(x, (left, right, top, bottom))
    for row in range(0, padded.shape[2] - side + 1, stride):
        for column in range(0, padded.shape[3] - side + 1, stride):
            window = padded[:, :, row : row + side, column : column + side].unflatten(1, (groups, -1))
            maps.append(torch.einsum("ngcij,gocij->ngo", window, kernels.unflatten(0, (groups, -1))).flatten(1))
    rows = -(-x.shape[2] // stride)
    return torch.stack(maps, 2).unflatten(2, (rows, -1))


def naive_efficientnet_lite(model: Any, x: Tensor) -> Tensor:
    """Lite0's sixteen blocks by their tables of kernels and strides; a convolution and its norm stand side by side."""
    kernels = [3, 3, 3, 5, 5, 3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 3]
    halved, added = (1, 3, 5, 11), (2, 4, 6, 7, 9, 10, 12, 13, 14)

    def layer(layers: Any, x: Tensor, stride: int = 1) -> Tensor:
        conv, batch_norm = [each for each in layers if [*each.parameters()]]
        return norm(batch_norm, convolve_same(conv.weight, x, stride), epsilon=1e-3)

    def relu6(x: Tensor) -> Tensor:
        return x.clip(0, 6)

    x = relu6(layer(model.stem, x, 2))
    for place, block in enumerate(model.blocks):
        change = x if place == 0 else relu6(layer(block.expand, x))
        assert [*block.depthwise.modules()][-3].kernel_size == (kernels[place],) * 2
        change = layer(block.project, relu6(layer(block.depthwise, change, 2 if place in halved else 1)))
        x = change + x if place in added else change
    return mean(relu6(layer(model.last, x)))


Naive = Callable[[Any, Tensor], Tensor]
NETWORKS: dict[str, tuple[Model, Naive, tuple[int, int]]] = {
    "lenet": (LeNet(), naive_lenet, (32, 32)),
    "nin": (NiN(), naive_nin, (12, 9)),
    "vgg19": (Vgg19(width=8, hidden=16), naive_vgg19, (40, 33)),
    "wide_resnet": (WideResNet(depth=16, widening=2), naive_wide_resnet, (9, 8)),
    "wide_resnet-projected": (
        WideResNet(depth=16, widening=1, project_every_block=True),
        lambda model, x: naive_wide_resnet(model, x, projects=True),
        (9, 8),
    ),
    "densenet": (DenseNet(depth=16, growth=4), naive_densenet, (9, 8)),
    "densenet-last": (
        DenseNet(depth=16, growth=4, last_transition=True),
        lambda model, x: naive_densenet(model, x, last=True),
        (9, 8),
    ),
    "resnext": (
        ResNeXt(depth=11, cardinality=3, width=8),
        lambda model, x: naive_resnext(model, x, groups=3),
        (9, 8),
    ),
    "se_resnext-script": (
        ResNeXt(depth=11, cardinality=2, width=8, reduction=64, keras_script=True),
        lambda model, x: naive_resnext(model, x, groups=2, script=True),
        (9, 8),
    ),
    "imagenet_resnet50": (ImageNetResNet(depth=50, width=8), naive_imagenet_resnet, (33, 40)),
    "imagenet_resnet50-later": (
        ImageNetResNet(depth=50, width=8, stride_in="3x3", stem="small"),
        lambda model, x: naive_imagenet_resnet(model, x, first=False, small=True),
        (9, 8),
    ),
    "efficientnet_lite0": (EfficientNetLite(), naive_efficientnet_lite, (37, 22)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_network_is_the_naive_one(name: str) -> None:
    options, naive, (rows, columns) = NETWORKS[name]
    model, images = make_network(options), draw(3, 3, rows, columns)
    given = images.clone()
    with torch.inference_mode():
        expected = naive(model, images)
        # Deep networks whose norms are drawn at random make large numbers.
        torch.testing.assert_close(model.features(images), expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
    assert torch.equal(images, given)
    assert (expected - expected[0])[1:].abs().max() > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folded_network_says_the_same(name: str) -> None:
    options, _, sides = NETWORKS[name]
    model, images = make_network(options), draw(2, 3, *sides)
    folded = fold(model)
    assert folded is not model
    with torch.inference_mode():
        expected = model(images)
        torch.testing.assert_close(folded(images), expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


def test_basic_blocks_of_large_images_are_those_of_small_ones() -> None:
    large = make_network(ImageNetResNet(depth=18, width=8, shortcut="A", stem="small"))
    assert {type(block).__module__ for block in large.blocks} == {"reslab.models.resnet"}
    assert not [name for name, _ in large.named_parameters() if "shortcut" in name]


def test_vgg19_starts_near_guessing_and_one_update_moves_its_logits_little() -> None:
    """As with the norm on the classes in its script, however many features there are: the rate counts on it."""
    torch.manual_seed(0)
    model = build(Vgg19(width=8, hidden=1024), num_classes=7)
    features = model.features(torch.randn(32, 3, 32, 32)).detach()
    before = model.head(features)
    assert 0.5 < before.var() < 2
    F.cross_entropy(before, torch.arange(32) % 7).backward()
    torch.optim.SGD(model.head.parameters(), lr=0.1).step()
    assert (model.head(features) - before).abs().max() < 0.2


# ---- dropout


@pytest.mark.parametrize("options", [NiN(), Vgg19(width=8, hidden=16), EfficientNetLite()])
def test_dropout_acts_in_training_alone_and_follows_the_seed(options: NiN | Vgg19 | EfficientNetLite) -> None:
    images = draw(4, 3, 8, 8)

    def outputs(dropout: float, seed: int) -> Tensor:
        model = make_network(options.model_copy(update={"dropout": dropout})).train()
        torch.manual_seed(seed)
        return model.features(images)

    assert torch.equal(outputs(0.5, 1), outputs(0.5, 1))
    assert not torch.equal(outputs(0.5, 1), outputs(0.5, 2))
    assert torch.equal(outputs(0.0, 1), outputs(0.0, 2))


def test_images_of_another_size_are_averaged_to_what_lenet_knows() -> None:
    model = make_network(LeNet())
    assert model.features(draw(2, 3, 16, 40)).shape == (2, 84)

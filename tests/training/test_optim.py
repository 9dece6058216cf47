"""Rates against hand-computed values, the optimizer against the update written out in NumPy."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from reslab.models import build
from reslab.models.foreign import ForeignClassifier
from reslab.models.layers import ImageClassifier
from reslab.recipe.networks import MODELS, EfficientNetLite, FastConv, Fusion, LeNet, Model, ResNet
from reslab.recipe.recipe import AdamW, Cosine, Linear, Muon, Optimizer, Sgd, Steps
from reslab.training.optim import describe_layers, make_optimizer, rate_at


def rates(schedule, num: int, *, per_epoch: int = 10) -> list[float]:
    return [rate_at(schedule, update=update, updates_per_epoch=per_epoch, total_updates=num) for update in range(num)]


def test_steps_count_epochs_from_zero() -> None:
    found = rates(Steps(at=(2, 3), factor=0.1), 40)
    assert found[:20] == [1.0] * 20
    assert found[20:30] == pytest.approx([0.1] * 10)
    assert found[30:] == pytest.approx([0.01] * 10)


def test_steps_can_count_updates() -> None:
    assert rates(Steps(at=(3, 5), unit="updates", factor=0.5), 6) == [1, 1, 1, 0.5, 0.5, 0.25]


def test_linear_rises_over_its_warmup_and_falls_to_nearly_nothing() -> None:
    assert rates(Linear(warmup=0.4), 10) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_a_rise_that_takes_the_whole_run_never_falls() -> None:
    assert rates(Linear(warmup=1), 4) == pytest.approx([0.25, 0.5, 0.75, 1])


def test_linear_without_warmup_starts_at_the_peak_and_ends_over_its_final_share() -> None:
    assert rates(Linear(final=0.2), 4) == pytest.approx([1.0, 0.8, 0.6, 0.4])


def test_cosine_is_half_way_down_in_the_middle() -> None:
    found = rates(Cosine(), 100)
    assert found[0] == 1
    assert found[50] == pytest.approx(0.5)
    assert found[99] < 0.001
    assert found == sorted(found, reverse=True)


class Tiny(ImageClassifier):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Linear(2, 3)


@pytest.mark.parametrize(("decay_on", "decayed"), [("kernels", {"conv.weight", "head.weight"}), ("all", None)])
def test_decay_reaches_kernels_alone_unless_the_recipe_says_all(decay_on, decayed) -> None:
    model = Tiny()
    optimizer = make_optimizer(model, settings=Sgd(peak_lr=0.1, weight_decay=0.5, decay_on=decay_on))
    found = {
        name
        for name, parameter in model.named_parameters()
        for group in optimizer.param_groups
        if group["weight_decay"] == 0.5 and any(parameter is each for each in group["params"])
    }
    assert found == (decayed or {name for name, _ in model.named_parameters()})
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))


def test_each_layer_below_the_head_has_a_smaller_share_of_adams_rate() -> None:
    model = Tiny()
    optimizer = make_optimizer(model, settings=AdamW(peak_lr=0.1, weight_decay=0.5, layer_decay=0.5))
    found = {
        name: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for name, parameter in model.named_parameters()
        if any(parameter is each for each in group["params"])
    }
    assert found == {
        **{
            "conv.weight": (0.025, 0.5),
            "conv.bias": (0.025, 0.0),
            "norm.weight": (0.05, 0.0),
            "norm.bias": (0.05, 0.0),
        },
        **{"head.weight": (0.1, 0.5), "head.bias": (0.1, 0.0)},
    }


def test_networks_side_by_side_have_a_rate_for_each_layer() -> None:
    """Both end below the common head, however deep the other is."""
    options = Fusion(base=LeNet(), pretrained=EfficientNetLite(size=0))
    with torch.device("meta"):
        model = build(options, num_classes=7, channels=3)
    optimizer = make_optimizer(model, settings=AdamW(peak_lr=1.0, layer_decay=0.5))
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    found = {name: rates[id(parameter)] for name, parameter in model.named_parameters()}
    assert found["head.weight"] == 1
    assert [found[f"base.{name}.weight"] for name in ("linear2", "linear1", "conv2", "conv1")] == [
        0.5,
        0.25,
        0.125,
        0.0625,
    ]
    pretrained = [rate for name, rate in found.items() if name.startswith("pretrained.")]
    assert len(set(pretrained)) > 10
    assert pretrained == sorted(pretrained)
    assert pretrained[-1] == 0.5


def levels(model: ImageClassifier) -> dict[str, int]:
    """Count by each parameter's rate how many layers below the head it lies."""
    optimizer = make_optimizer(model, settings=AdamW(peak_lr=1.0, layer_decay=0.5))
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    return {name: round(-np.log2(rates[id(parameter)])) for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(("name", "num"), [("nin", 8), ("vgg19", 18), ("densenet_bc_100_12", 52)])
def test_each_kernel_of_a_plain_sequence_is_a_layer(name: str, num: int) -> None:
    with torch.device("meta"):
        model = build(MODELS[name], num_classes=7)
    found = levels(model)
    below = [level for name, level in found.items() if not name.startswith("head.")]
    assert below == sorted(below, reverse=True)
    assert set(below) == set(range(1, num + 1))
    if name == "vgg19":  # a norm belongs to the kernel before it
        assert (found["layers.0.weight"], found["layers.1.bias"], found["layers.3.weight"]) == (18, 18, 17)


def test_a_stem_of_kernel_and_norm_stays_one_layer() -> None:
    with torch.device("meta"):
        model = build(EfficientNetLite(size=0), num_classes=7)
    found = levels(model)
    assert {level for name, level in found.items() if name.startswith("stem.")} == {18}
    assert {name: level for name, level in found.items() if name.startswith(("blocks.3.", "last."))} == {
        name: 14 if name.startswith("blocks.3.") else 1 for name in found if name.startswith(("blocks.3.", "last."))
    }


class Staged(nn.Module):
    """Names like those of timm's networks: stages that are sequences of blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 3)
        self.stages = nn.ModuleList(nn.ModuleDict({"blocks": nn.ModuleList([Tiny(), Tiny()])}) for _ in range(2))
        self.blocks = nn.ModuleList(nn.ModuleList([Tiny(), Tiny()]) for _ in range(2))


def test_layers_inside_a_foreign_network_are_told_apart() -> None:
    foreign = ForeignClassifier(Staged(), features=nn.Identity(), head=nn.Linear(2, 3))
    found = levels(foreign)
    first = [
        *("body.stem.weight", "body.stages.0.blocks.0.conv.bias", "body.stages.0.blocks.1.conv.bias"),
        *("body.stages.1.blocks.0.conv.bias", "body.stages.1.blocks.1.conv.bias", "body.blocks.0.0.norm.bias"),
        *("body.blocks.0.1.norm.bias", "body.blocks.1.0.norm.bias", "body.blocks.1.1.norm.bias", "head.weight"),
    ]
    assert [found[name] for name in first] == list(range(9, -1, -1))
    assert max(found.values()) == 9


def test_a_decay_that_finds_a_single_layer_is_told() -> None:
    lone = ForeignClassifier(nn.ModuleDict({"net": Tiny()}), features=nn.Identity(), head=nn.Linear(2, 3))
    line = "layer_decay=0.5 gives all layers below the head one rate, since their names do not tell them apart"
    assert describe_layers(lone, AdamW(layer_decay=0.5)) == line
    assert describe_layers(lone, AdamW()) is None
    assert describe_layers(Tiny(), AdamW(layer_decay=0.5)) is None


class OneLayer(ImageClassifier):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 1, bias=False)


def test_the_update_is_nesterov_momentum_with_decay() -> None:
    """Three steps against g = grad + decay w; v = m v + g; w -= rate (g + m v), v starting as g."""
    rate, momentum, decay = 0.1, 0.9, 0.01
    model = OneLayer()
    layer = model.head
    weight = layer.weight.detach().numpy().astype(np.float64).copy()
    optimizer = make_optimizer(model, settings=Sgd(peak_lr=rate, momentum=momentum, weight_decay=decay))
    velocity = None
    for step in range(3):
        inputs = torch.tensor([[1.0 + step, 2.0]])
        layer(inputs).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        gradient = inputs.numpy() + decay * weight
        velocity = gradient if velocity is None else momentum * velocity + gradient
        weight -= rate * (gradient + momentum * velocity)
    np.testing.assert_allclose(layer.weight.detach().numpy(), weight, rtol=1e-5)


# ---- a rate of its own for the backbone

NETWORKS: dict[str, Model] = {
    "resnet": ResNet(depth=8, width=8),
    "fast_conv": FastConv(widths=(8, 8, 8)),
}


def peaks(model: ImageClassifier, settings: Optimizer, backbone: float) -> dict[str, float]:
    """Look up the peak rate of every parameter by its name; each stands in one group, and none without a gradient."""
    found = {}
    names = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for group in make_optimizer(model, settings=settings, backbone=backbone).param_groups:
        assert group["lr"] == group["peak_lr"]
        for parameter in group["params"]:
            assert names[id(parameter)] not in found
            found[names[id(parameter)]] = group["peak_lr"]
    assert set(found) == set(names.values())
    return found


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("factor", [1.0, 0.25, 0.0])
def test_the_backbone_has_a_share_of_the_heads_rate_under_sgd(options, factor) -> None:
    found = peaks(build(options, num_classes=7), Sgd(peak_lr=0.5), factor)
    assert {rate for name, rate in found.items() if name.startswith("head.")} == {0.5}
    assert {rate for name, rate in found.items() if not name.startswith("head.")} == {0.5 * factor}


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("factor", [1.0, 0.25, 0.0])
def test_the_backbone_has_a_share_of_its_rates_under_muon(options, factor) -> None:
    model = build(options, num_classes=7)
    settings = Muon(peak_lr=0.5, head_lr=40.0, bias_lr=8.0, decay=0.02)
    dimensions = {name: parameter.ndim for name, parameter in model.named_parameters()}
    for name, rate in peaks(model, settings, factor).items():
        if name.startswith("head."):
            assert rate == 40
        else:
            assert rate == (0.5 if dimensions[name] > 1 else 8) * factor


def test_muon_takes_the_filters_alone_and_what_is_decayed_loses_its_share_at_the_peak_rate() -> None:
    settings = Muon(peak_lr=0.5, momentum=0.7, iterations=5, head_lr=40.0, bias_lr=8.0, other_momentum=0.8, decay=0.02)
    groups = make_optimizer(build(NETWORKS["resnet"], num_classes=7), settings=settings).param_groups
    filters, *others = groups
    assert (filters["orthogonal"], filters["iterations"], filters["momentum"]) == (True, 5, 0.7)
    assert filters["weight_decay"] == 0
    assert all(parameter.ndim == 4 for parameter in filters["params"])
    for group in others:
        assert (group["orthogonal"], group["momentum"]) == (False, 0.8)
        assert group["weight_decay"] * group["peak_lr"] == pytest.approx(0.02)
    assert [parameter.ndim for parameter in others[1]["params"]] == [2, 1]


# ---- against torch.optim.SGD itself


@pytest.mark.parametrize("decay_on", ["kernels", "all"])
def test_groups_of_sgd_move_as_torchs_own_optimizer_moves_them(decay_on) -> None:
    """A reference optimizer for each parameter, with the rate and the decay that it should have."""
    torch.manual_seed(0)
    ours = Tiny()
    theirs = copy.deepcopy(ours)
    optimizer = make_optimizer(
        ours, settings=Sgd(peak_lr=0.1, momentum=0.8, weight_decay=0.05, decay_on=decay_on), backbone=0.5
    )
    reference = [
        torch.optim.SGD(
            [parameter],
            lr=0.1 if name.startswith("head.") else 0.05,
            momentum=0.8,
            nesterov=True,
            weight_decay=0.05 if parameter.ndim > 1 or decay_on == "all" else 0.0,
        )
        for name, parameter in theirs.named_parameters()
    ]
    for _ in range(4):
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        for each in (optimizer, *reference):
            each.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)

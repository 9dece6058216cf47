"""Folded networks against the networks themselves: what is folded, what must not be, and what is left alone."""

import pytest
import torch
from torch import Tensor, nn

from reslab.machine import kernels, winograd
from reslab.models import build
from reslab.models.foreign import ForeignClassifier
from reslab.models.layers import conv3x3 as wide
from reslab.network.folding import fold
from reslab.recipe.networks import MODELS, FastConv


class TwoWays(nn.Module):
    """A convolution that two norms read, and another one that reads itself: neither may take them in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.again = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.norm1, self.norm2, self.norm3 = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = self.norm1(x) * self.norm2(x)
        return self.norm3(self.again(self.again(x)))


class Body(nn.Module):
    """A network of somebody's own, without its head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).mean((2, 3))


class Doubling(nn.Conv2d):
    """A convolution that does something of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def settle(model: nn.Module) -> nn.Module:
    """Give every norm scales of both signs, shifts and statistics of its own."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                if tensor is not None:
                    tensor.detach().normal_(generator=generator)
            if module.running_var is not None:
                module.running_var.uniform_(0.5, 2, generator=generator)
    return model.eval()


def count(model: nn.Module, kind: str) -> int:
    """Count the calls of modules of a class, by its name."""
    calls = [node.target for node in model.graph.nodes if node.op == "call_module"]
    return sum(type(model.get_submodule(name)).__name__ == kind for name in calls)


def check(model: nn.Module, channels: int = 3, num: int = 3) -> nn.Module:
    """Fold a network and hold it to what it says itself; the network keeps every number."""
    images = torch.randn(num, channels, 12, 12, generator=torch.Generator().manual_seed(1))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        expected = model(images)
        folded = fold(model)
        torch.testing.assert_close(folded(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    torch.testing.assert_close(dict(model.state_dict()), state, rtol=0, atol=0)
    return folded


@pytest.mark.parametrize(
    ("name", "norms_left"),
    [("preact_resnet20", 10), ("resnet20", 0), ("plain20", 0), ("elu_resnet20", 0)],
)
def test_every_family_says_the_same_with_fewer_norms(name: str, norms_left: int) -> None:
    torch.manual_seed(0)
    folded = check(settle(build(MODELS[name], num_classes=7)))
    assert count(folded, "_Norm") == norms_left
    assert count(folded, "BatchNorm2d") == 0


def test_a_norm_after_a_maximum_is_folded_only_where_it_keeps_the_order() -> None:
    torch.manual_seed(0)
    network = build(FastConv(widths=(8, 8, 8)), num_classes=7).eval()
    assert count(check(network), "_Norm") == 0
    assert count(check(settle(network)), "_Norm") == 3


def test_what_others_read_too_is_not_folded() -> None:
    torch.manual_seed(0)
    assert count(check(settle(TwoWays())), "_Norm") == 3


def test_norms_without_statistics_or_scales_and_other_convolutions_are_as_they_were() -> None:
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
        nn.BatchNorm2d(4),
        Doubling(4, 4, 1),
        nn.BatchNorm2d(4, affine=False),
        nn.Conv2d(4, 4, 3, groups=2, dilation=2, padding="same"),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.Conv2d(4, 4, 3, stride=2, bias=False),
        nn.BatchNorm2d(4),
    )
    folded = check(settle(nn.Sequential(*layers)))
    assert [count(folded, kind) for kind in ("_Convolution", "_Norm", "BatchNorm2d", "Doubling")] == [2, 2, 1, 1]


def test_wide_convolutions_go_by_the_faster_way_with_a_bias_or_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_on", None)
    kernels.enable(torch.device("cpu"))
    sizes, conv3x3 = [], winograd.conv3x3
    monkeypatch.setattr(winograd, "conv3x3", lambda *tensors: sizes.append(len(tensors[1])) or conv3x3(*tensors))
    torch.manual_seed(0)
    layers = nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), wide(64, 64), nn.BatchNorm2d(64), wide(64, 64)
    check(settle(nn.Sequential(*layers)), 64, num=8)
    assert len(sizes) == (5 if kernels.are_on() else 0)  # the network's own two, then three of the folded one


def test_what_cannot_be_traced_is_used_as_it_is() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    model = Branching()
    assert fold(model) is model


def test_a_network_of_ones_own_is_folded() -> None:
    body = Body()
    model = settle(ForeignClassifier(body, features=body, head=nn.Linear(4, 2))).eval()
    folded, images = fold(model), torch.randn(5, 3, 8, 8)
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    torch.testing.assert_close(folded(images), model(images))

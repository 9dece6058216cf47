"""Receptive fields against what gradients say, memory against what can be counted by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reslab.machine import kernels, winograd
from reslab.machine.timing import time_update
from reslab.models import build
from reslab.models.costs import count_memory, count_multiply_adds, measure_receptive_field
from reslab.models.layers import ImageClassifier
from reslab.recipe.networks import DenseNet, Model, NiN, PreActResNet, ResNet, WideResNet


class Tiny(ImageClassifier):
    """Two convolutions around maxima: 3, then 4 with steps of 2, then 4 + 2 * 4 = 12 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 5, padding=2)
        self.head = nn.Linear(2, 7)

    def features(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(torch.sigmoid(self.conv1(images)), 2)
        return torch.tanh(self.conv2(x)).mean(dim=(2, 3))


def test_receptive_field_by_hand() -> None:
    assert measure_receptive_field(Tiny(), image=torch.zeros(3, 8, 8)) == 12


@pytest.mark.parametrize(
    ("options", "last"),
    [
        (ResNet(depth=8), "blocks"),
        (WideResNet(depth=10, widening=1), "norm"),
        (DenseNet(depth=10, growth=8), "norm"),
        (NiN(), "layers"),
    ],
    ids=str,
)
def test_receptive_field_is_where_gradients_come_from(options: Model, last: str) -> None:
    torch.manual_seed(0)
    model = build(options, num_classes=7).double().eval()
    maps: list[Tensor] = []
    model.get_submodule(last).register_forward_hook(lambda module, given, result: maps.append(result))
    # In double precision and with each pixel of its own value, no way around comes to zero by accident.
    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    images.requires_grad_()
    model.features(images)
    middle = maps[0].shape[2] // 2
    (gradient,) = torch.autograd.grad(maps[0][:, :, middle, middle].sum(), images)
    reached = gradient.abs().sum((0, 1)).nonzero()
    sides = (reached.amax(0) - reached.amin(0) + 1).tolist()
    # A maximum hands one of its pixels on, so that a gradient may miss the outermost ones.
    measured = measure_receptive_field(model, image=torch.zeros(3, 96, 96))
    assert max(sides) <= measured
    assert min(sides) >= measured - (4 if options.kind == "nin" else 0)


def test_memory_by_hand() -> None:
    """Four bytes each of: the image, sigmoid, maxima and where they lay (8 bytes), tanh, features."""
    numbers = 3 * 64 + 4 * 64 + 4 * 16 + 2 * 4 * 16 + 2 * 16 + 2
    assert count_memory(Tiny(), image=torch.zeros(3, 8, 8)) == 4 * numbers


def test_memory_leaves_the_network_as_it_was() -> None:
    model = Tiny().eval()
    count_memory(model, image=torch.zeros(3, 8, 8))
    assert not model.training
    assert model.conv1.weight.device.type == "cpu"
    assert model.conv1.weight.grad is None


def test_more_images_take_longer_and_the_network_stays_as_it_was() -> None:
    model = Tiny()
    before = model.conv1.weight.clone()
    assert 0 < time_update(model, batch=(2, 3, 8, 8)) < time_update(model, batch=(400, 3, 32, 32))
    assert torch.equal(model.conv1.weight, before)
    assert model.conv1.weight.grad is None


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_who_counts_operations_sees_every_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """As counters look: at the classes of modules, at the graph of a trace, at the operations that are dispatched."""
    monkeypatch.setattr(kernels, "_on", None)
    kernels.enable(torch.device("cpu"))
    monkeypatch.setattr(winograd, "MIN_REUSE_FORWARD", 0)
    model = build(PreActResNet(depth=8), num_classes=7, channels=3).eval()
    convolutions = [each for each in model.modules() if type(each) is nn.Conv2d]
    assert len(convolutions) == sum(isinstance(each, nn.Conv2d) for each in model.modules()) == 9
    images = torch.zeros(1, 3, 16, 16)
    graph = torch.jit.trace(model, images).inlined_graph
    assert len(graph.findAllNodes("aten::_convolution")) == 9
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    assert counter.get_total_flops() == 2 * count_multiply_adds(model, image=images[0])

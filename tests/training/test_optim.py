"""Rates against hand-computed values, the optimizer against the update written out in NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from reslab.recipe import Cosine, Linear, Sgd, Steps
from reslab.training.optim import make_optimizer, rate_at


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


def test_linear_without_warmup_starts_at_the_peak_and_ends_over_its_final_share() -> None:
    assert rates(Linear(final=0.2), 4) == pytest.approx([1.0, 0.8, 0.6, 0.4])


def test_cosine_is_half_way_down_in_the_middle() -> None:
    found = rates(Cosine(), 100)
    assert found[0] == 1
    assert found[50] == pytest.approx(0.5)
    assert found[99] < 0.001
    assert found == sorted(found, reverse=True)


class Tiny(nn.Module):
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


def test_the_update_is_nesterov_momentum_with_decay() -> None:
    """Three steps against g = grad + decay w; v = m v + g; w -= rate (g + m v), v starting as g."""
    rate, momentum, decay = 0.1, 0.9, 0.01
    layer = nn.Linear(2, 1, bias=False)
    weight = layer.weight.detach().numpy().astype(np.float64).copy()
    optimizer = make_optimizer(layer, settings=Sgd(peak_lr=rate, momentum=momentum, weight_decay=decay))
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

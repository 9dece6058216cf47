"""Muon against a transcription in NumPy, in double precision; the iteration against the singular values it promises."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from reslab.training.muon import MuonOptimizer, orthogonalize

Array = NDArray[np.float64]
RATE, MOMENTUM, DECAY = 0.24, 0.6, 0.02


# ---- the transcription


def polynomial(value: Any) -> Any:
    return 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5


def naive_orthogonalize(matrix: Array, iterations: int) -> Array:
    """The polynomial of the singular values, applied to them one by one."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = values / np.sqrt((values**2).sum())
    for _ in range(iterations):
        values = polynomial(values)
    return (left * values) @ right


class Reference:
    """One parameter: v = m v + g, d = g + m v; filters are brought to the norm sqrt(outputs), d made orthogonal."""

    def __init__(self, weight: Array, **group: Any) -> None:
        self.weight, self.velocity, self.group = weight.copy(), np.zeros_like(weight), group

    def step(self, gradient: Array) -> None:
        group = self.group
        gradient = gradient + group.get("weight_decay", 0) * self.weight
        self.velocity = group["momentum"] * self.velocity + gradient
        direction = gradient + group["momentum"] * self.velocity
        if group["orthogonal"]:
            outputs = len(self.weight)
            self.weight = self.weight * np.sqrt(outputs) / np.sqrt((self.weight**2).sum())
            flat = naive_orthogonalize(direction.reshape(outputs, -1), group["iterations"])
            direction = flat.reshape(direction.shape)
        self.weight = self.weight - group["lr"] * direction


FILTERS = {"orthogonal": True, "iterations": 3, "lr": RATE, "momentum": MOMENTUM}
OTHERS = {"orthogonal": False, "lr": 0.05, "momentum": 0.85, "weight_decay": DECAY}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(8, 3, 3, 3), (40, 3, 3, 3), (9, 1, 3, 3)], ids=str)
def test_filters_move_as_in_the_transcription(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(shape, dtype=torch.float64, generator=generator)
    parameter = nn.Parameter(drawn.to(memory_format=layout))
    reference, optimizer = Reference(drawn.numpy(), **FILTERS), MuonOptimizer([{"params": [parameter], **FILTERS}])
    for _ in range(4):
        gradient = torch.randn(shape, dtype=torch.float64, generator=generator)
        parameter.grad = gradient.to(memory_format=layout)
        optimizer.step()
        reference.step(gradient.numpy())
    np.testing.assert_allclose(parameter.detach().numpy(), reference.weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(7,), (10, 4)], ids=str)
def test_other_parameters_move_as_in_the_transcription_and_in_torch(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(shape, dtype=torch.float64, generator=generator)
    parameter, other = nn.Parameter(drawn.clone()), nn.Parameter(drawn.clone())
    reference, optimizer = Reference(drawn.numpy(), **OTHERS), MuonOptimizer([{"params": [parameter], **OTHERS}])
    torchs = torch.optim.SGD([other], lr=0.05, momentum=0.85, nesterov=True, weight_decay=DECAY)
    for _ in range(4):
        gradient = torch.randn(shape, dtype=torch.float64, generator=generator)
        parameter.grad, other.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        torchs.step()
        reference.step(gradient.numpy())
    np.testing.assert_allclose(parameter.detach().numpy(), reference.weight, rtol=1e-9)
    torch.testing.assert_close(parameter, other)


def test_filters_have_the_norm_of_their_outputs_root_when_the_step_is_taken() -> None:
    """At rate 0 only the norm is left of a step, whatever it was before."""
    parameter = nn.Parameter(5 * torch.randn(16, 4, 3, 3))
    direction = parameter.detach() / parameter.detach().norm()
    parameter.grad = torch.randn_like(parameter)
    MuonOptimizer([{"params": [parameter], **FILTERS, "lr": 0.0}]).step()
    torch.testing.assert_close(parameter.detach(), 4 * direction)


def test_a_step_is_as_long_for_a_faint_gradient_as_for_a_strong_one() -> None:
    gradient, moved = torch.randn(6, 2, 3, 3), []
    for scale in (1e-3, 1.0, 1e3):
        parameter = nn.Parameter(torch.ones(6, 2, 3, 3))
        parameter.grad = scale * gradient
        MuonOptimizer([{"params": [parameter], **FILTERS}]).step()
        moved.append(parameter.detach())
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(moved[2], moved[1], rtol=1e-3, atol=1e-4)


def test_what_has_no_gradient_stays_as_it_is() -> None:
    parameters = [nn.Parameter(torch.randn(6, 2, 3, 3)), nn.Parameter(torch.randn(6, 2, 3, 3))]
    before = [parameter.detach().clone() for parameter in parameters]
    parameters[1].grad = torch.randn_like(parameters[1])
    optimizer = MuonOptimizer([{"params": parameters, **FILTERS}])
    optimizer.step()
    assert torch.equal(parameters[0], before[0])
    assert not torch.equal(parameters[1], before[1])
    assert list(optimizer.state) == [parameters[1]]


# ---- the iteration


def make_matrix(rows: int, columns: int, values: Sequence[float] | None = None) -> Array:
    generator = np.random.default_rng(0)
    matrix = generator.standard_normal((rows, columns))
    if values is None:
        return matrix
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return (left * np.asarray(values)) @ right


SHAPES = [(8, 40), (40, 8), (24, 24), (64, 216), (256, 64), (1, 9), (9, 1)]


@pytest.mark.parametrize("iterations", [3, 5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_directions_stay_and_singular_values_go_through_the_polynomial(shape: tuple[int, int], iterations: int) -> None:
    matrix = make_matrix(*shape)
    found = orthogonalize(torch.tensor(matrix), iterations=iterations).numpy()
    np.testing.assert_allclose(found, naive_orthogonalize(matrix, iterations), rtol=1e-5, atol=1e-6)


# What the polynomial does not reach in its few steps stays below: 3 steps lift a value at most by 3.4445 ** 3 = 41.
@pytest.mark.parametrize(("iterations", "smallest"), [(3, 0.03), (5, 0.003)])
@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (64, 216), (216, 64)], ids=str)
def test_singular_values_come_near_1(shape: tuple[int, int], iterations: int, smallest: float) -> None:
    num = min(shape)
    values = np.geomspace(smallest, 1, num) / np.sqrt((np.geomspace(smallest, 1, num) ** 2).sum())
    assert values.max() / values.min() > 30
    matrix = torch.tensor(make_matrix(*shape, values))
    found = torch.linalg.svdvals(orthogonalize(matrix, iterations=iterations))
    reached = values > 1.2 * 0.7 / 3.4445**iterations
    assert reached.mean() > 0.7
    ordered = polynomial_of(values, iterations)
    assert ((ordered[reached] > 0.65) & (ordered[reached] < 1.25)).all()
    np.testing.assert_allclose(np.sort(found.numpy()), np.sort(ordered), rtol=1e-6)


def polynomial_of(values: Array, iterations: int) -> Array:
    for _ in range(iterations):
        values = polynomial(values)
    return values


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (64, 576)], ids=str)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_random_matrices_become_nearly_orthogonal_at_any_scale(shape: tuple[int, int], scale: float) -> None:
    matrix = torch.tensor(scale * make_matrix(*shape)).float()
    values = torch.linalg.svdvals(orthogonalize(matrix, iterations=3))
    assert values.min() > 0.6
    assert values.max() < 1.25


def test_nothing_stays_nothing() -> None:
    assert torch.equal(orthogonalize(torch.zeros(4, 6), iterations=3), torch.zeros(4, 6))


def test_filters_that_begin_at_zero_begin_to_learn() -> None:
    weight = nn.Parameter(torch.zeros(4, 2, 3, 3))
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    MuonOptimizer([{"params": [weight], **FILTERS}]).step()
    assert weight.isfinite().all()
    assert weight.norm() > 0

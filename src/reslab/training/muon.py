"""Muon: momentum whose matrix is made orthogonal before it is taken as a step; SGD for what is no matrix.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", as KellerJordan/cifar10-airbench
has it for convolutions: filters keep the norm sqrt(outputs), and the step is not scaled.
Differs from it: float32, since bf16 is the slower one on most processors.
"""

from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic; steep at 0, its values stay within about 0.7 to 1.2


class MuonOptimizer(torch.optim.Optimizer):
    """Groups have `orthogonal` (with `iterations`) or not, and `lr`, `momentum` and `weight_decay`."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"weight_decay": 0.0})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Take one step of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step(parameter, parameter.grad, group)

    def _step(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        gradient = gradient.add(parameter, alpha=group["weight_decay"])
        velocity = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        direction = gradient.add(velocity, alpha=group["momentum"])  # Nesterov's
        if group["orthogonal"]:
            parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
            flat = orthogonalize(direction.flatten(1), iterations=group["iterations"])
            direction = flat.view(direction.shape)
        parameter.sub_(direction.mul_(group["lr"]))  # a tensor where a graph is recorded


def orthogonalize(matrix: Tensor, *, iterations: int) -> Tensor:
    """Bring all singular values of a matrix (R, C) near 1 by a Newton-Schulz iteration; its directions stay."""
    a, b, c = COEFFICIENTS
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        square: Tensor = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    result: Tensor = x.T if matrix.shape[0] > matrix.shape[1] else x
    return result

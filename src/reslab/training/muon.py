"""Muon: orthogonalised momentum for matrices; SGD for other parameters.

Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", in the form for convolutions of
KellerJordan/cifar10-airbench: filters keep the norm sqrt(outputs), and the step is not scaled.
Differs from it: float32, since bf16 is slower on most processors.
"""

from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic: steep at 0, with values within about 0.7 to 1.2


class MuonOptimizer(torch.optim.Optimizer):
    """The Muon optimizer; groups have `orthogonal` (with `iterations`), `lr`, `momentum` and `weight_decay`."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"weight_decay": 0.0})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Take one step for every parameter that has a gradient."""
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
            norm = parameter.norm()
            # Filters that begin at zero have no norm to keep yet.
            parameter.mul_(torch.where(norm > 0, len(parameter) ** 0.5 / norm, 1.0))
            flat = orthogonalize(direction.flatten(1), iterations=group["iterations"])
            direction = flat.view(direction.shape)
        parameter.sub_(direction.mul_(group["lr"]))  # a tensor while a graph is recorded


def orthogonalize(matrix: Tensor, *, iterations: int) -> Tensor:
    """Bring all singular values of a matrix (R, C) near 1 by Newton-Schulz iteration, keeping its singular vectors."""
    a, b, c = COEFFICIENTS
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        square: Tensor = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    result: Tensor = x.T if matrix.shape[0] > matrix.shape[1] else x
    return result

"""Parameter groups, the optimizer, and learning rates as a function of the update."""

import math
from typing import assert_never

import torch
from torch import nn

from reslab.recipe import Cosine, Linear, Schedule, Sgd, Steps


def make_optimizer(model: nn.Module, *, settings: Sgd) -> torch.optim.Optimizer:
    """Build the optimizer; decay acts on convolution and dense kernels, or on everything where the recipe says so."""
    kernels = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    rest = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    decay = settings.weight_decay
    groups = [
        {"params": kernels, "weight_decay": decay},
        {"params": rest, "weight_decay": decay if settings.decay_on == "all" else 0.0},
    ]
    return torch.optim.SGD(
        groups, lr=settings.peak_lr, momentum=settings.momentum, nesterov=settings.nesterov, fused=True
    )


def rate_at(schedule: Schedule, *, update: int, updates_per_epoch: int, total_updates: int) -> float:
    """Compute the share of the peak rate, in [0, 1], for an update counted from 0."""
    match schedule:
        case Steps(at=at, unit=unit, factor=factor):
            position = update // updates_per_epoch if unit == "epochs" else update
            return factor ** sum(position >= place for place in at)
        case Linear(warmup=warmup, final=final):
            risen, fallen = _progress(update, total_updates, warmup)
            return risen * (1 - (1 - final) * fallen)
        case Cosine(warmup=warmup, final=final):
            risen, fallen = _progress(update, total_updates, warmup)
            return risen * (final + (1 - final) * (1 + math.cos(math.pi * fallen)) / 2)
        case _ as unreachable:
            assert_never(unreachable)


def _progress(update: int, total: int, warmup: float) -> tuple[float, float]:
    """Say how far the rise and the fall have come, each in [0, 1]; the fall would be over one update after the last."""
    rise = warmup * total
    risen = min(1.0, (update + 1) / rise) if rise else 1.0
    fallen = max(0.0, (update - rise) / (total - rise)) if total > rise else 0.0
    return risen, fallen

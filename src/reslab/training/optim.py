"""Parameter groups, the optimizer, and learning rates as a function of the update."""

import math
import re
from collections.abc import Iterable
from typing import Any, Final, assert_never

import torch
from torch import nn

from reslab.models.foreign import ForeignClassifier
from reslab.models.layers import ImageClassifier
from reslab.recipe.recipe import AdamW, Cosine, Linear, LinearHead, Muon, Optimizer, Schedule, Sgd, Steps
from reslab.training.muon import MuonOptimizer

Group = dict[str, Any]
# How the name of a block begins: a child module, its index, and those of sequences in a sequence of stages.
BLOCK: Final = re.compile(r"[^.]+(?:(?:\.blocks)?\.\d+)*")


def make_optimizer(model: ImageClassifier, *, settings: Optimizer, backbone: float = 1.0) -> torch.optim.Optimizer:
    """Build the optimizer; each group has its own `peak_lr`, multiplied by `backbone` for all but the head.

    Parameters that need no gradient are left out.
    """
    match settings:
        case Sgd():
            groups = _sgd_groups(model, settings)
        case Muon():
            groups = _muon_groups(model, settings)
        case AdamW():
            groups = _adamw_groups(model, settings)
        case LinearHead():
            raise AssertionError("refused before anything is built")
        case _ as unreachable:
            assert_never(unreachable)
    head = {id(parameter) for parameter in model.head.parameters()}
    for group in groups:
        is_head = all(id(parameter) in head for parameter in group["params"])
        group["lr"] = group["peak_lr"] = group["peak_lr"] * (1.0 if is_head else backbone)
    if isinstance(settings, Muon):
        return MuonOptimizer(groups)
    if isinstance(settings, AdamW):
        return torch.optim.AdamW(groups, fused=True)
    return torch.optim.SGD(groups, momentum=settings.momentum, nesterov=settings.nesterov, fused=True)


def _sgd_groups(model: ImageClassifier, settings: Sgd) -> list[Group]:
    """Group parameters by head and backbone, kernels and rest; decay acts on kernels, or on all by the recipe."""
    decay = settings.weight_decay
    return [
        {
            "params": [parameter for parameter in part if (parameter.ndim > 1) == is_kernel],
            "peak_lr": settings.peak_lr,
            "weight_decay": decay if is_kernel or settings.decay_on == "all" else 0.0,
        }
        for part in (_backbone(model), _head(model))
        for is_kernel in (True, False)
    ]


def _muon_groups(model: ImageClassifier, settings: Muon) -> list[Group]:
    filters = [parameter for parameter in _backbone(model) if parameter.ndim > 1]
    biases = [parameter for parameter in _backbone(model) if parameter.ndim <= 1]
    return [
        {
            "params": filters,
            "peak_lr": settings.peak_lr,
            "momentum": settings.momentum,
            "orthogonal": True,
            "iterations": settings.iterations,
        },
        *(
            {
                "params": part,
                "peak_lr": peak_lr,
                "momentum": settings.other_momentum,
                "orthogonal": False,
                "weight_decay": settings.decay / peak_lr,
            }
            for part, peak_lr in ((biases, settings.bias_lr), (_head(model), settings.head_lr))
        ),
    ]


def _adamw_groups(model: ImageClassifier, settings: AdamW) -> list[Group]:
    """Make a group for the kernels and one for the rest at each distance from the head, with layer-wise rates."""
    distances = _distances(model)
    groups: dict[tuple[int, bool], Group] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        below, is_kernel = distances.get(name, 0), parameter.ndim > 1
        group = {
            "params": [],
            "peak_lr": settings.peak_lr * settings.layer_decay**below,
            "weight_decay": settings.weight_decay if is_kernel else 0.0,
        }
        groups.setdefault((below, is_kernel), group)["params"].append(parameter)
    return list(groups.values())


def _distances(model: ImageClassifier) -> dict[str, int]:
    """Count how many layers or blocks each parameter outside the head is below it.

    Networks side by side under one head are counted separately.
    """
    inner = [f"{name}.{_inside(child)}" for name, child in model.named_children() if isinstance(child, ImageClassifier)]
    found: dict[str, int] = {}
    for prefix in inner or [_inside(model)]:
        layers = _name_layers(
            (name.removeprefix(prefix), parameter)
            for name, parameter in model.named_parameters()
            if name.startswith(prefix) and not name.startswith("head.")
        )
        order = list(dict.fromkeys(layers.values()))
        found |= {prefix + name: len(order) - order.index(layer) for name, layer in layers.items()}
    return found


def _inside(model: ImageClassifier) -> str:
    """Return what the names of all layers of a network begin with."""
    return "body." if isinstance(model, ForeignClassifier) else ""


def _name_layers(parameters: Iterable[tuple[str, nn.Parameter]]) -> dict[str, str]:
    """Name each parameter's layer: its child module or, in a sequence, its block: `stem`, `blocks.3`, `blocks.3.0`.

    In a sequence without blocks each kernel begins a layer, which includes the norms that follow it.
    """
    found: dict[str, str] = {}
    begun: dict[str, str] = {}  # the layer that each sequence has come to
    for name, parameter in parameters:
        layer = BLOCK.match(name)[0]  # type: ignore[index]
        sequence, _, index = layer.rpartition(".")
        if index.isdigit():
            if parameter.ndim > 1 or name.count(".") > layer.count(".") + 1:
                begun[sequence] = layer
            layer = begun.get(sequence, sequence)
        found[name] = layer
    return found


def describe_layers(model: ImageClassifier, settings: Optimizer) -> str | None:
    """Describe that `layer_decay` tells no layers of the network apart; None if it does."""
    if not isinstance(settings, AdamW) or settings.layer_decay == 1 or len(set(_distances(model).values())) > 1:
        return None
    return (
        f"layer_decay={settings.layer_decay:g} gives all layers below the head one rate, since their names do not tell "
        "them apart"
    )


def _backbone(model: ImageClassifier) -> list[nn.Parameter]:
    return [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not name.startswith("head.")
    ]


def _head(model: ImageClassifier) -> list[nn.Parameter]:
    return [parameter for parameter in model.head.parameters() if parameter.requires_grad]


def rate_at(schedule: Schedule, *, update: int, updates_per_epoch: int, total_updates: int) -> float:
    """Compute the share of the peak rate, in [0, 1], for an update counted from 0."""
    match schedule:
        case Steps(at=at, unit=unit):
            position = update // updates_per_epoch if unit == "epochs" else update
            return schedule.share_after(sum(position >= place for place in at))
        case Linear(warmup=warmup, final=final):
            risen, fallen = _progress(update, total_updates, warmup)
            return risen * (1 - (1 - final) * fallen)
        case Cosine(warmup=warmup, final=final):
            risen, fallen = _progress(update, total_updates, warmup)
            return risen * (final + (1 - final) * (1 + math.cos(math.pi * fallen)) / 2)
        case _ as unreachable:
            assert_never(unreachable)


def _progress(update: int, total: int, warmup: float) -> tuple[float, float]:
    """Return the progress of rise and fall, each in [0, 1]; the fall would end one update after the last."""
    rise = warmup * total
    risen = min(1.0, (update + 1) / rise) if rise else 1.0
    fallen = max(0.0, (update - rise) / (total - rise)) if total > rise else 0.0
    return risen, fallen

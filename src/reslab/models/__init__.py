"""The networks: `MODELS` names them, `build` makes one from its description, `restore` fills one with weights.

A description is plain data, `{"kind": family, option: value, …}`, the JSON of a recipe's `model`.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from reslab.models.elu_resnet import EluResNet
from reslab.models.fast_conv import FastConv
from reslab.models.layers import Classifier
from reslab.models.plain import Plain
from reslab.models.preact_resnet import PreActResNet
from reslab.models.resnet import ResNet

__all__ = ["FAMILIES", "MODELS", "Classifier", "build", "count_multiply_adds", "count_parameters", "restore"]

FAMILIES: dict[str, Callable[..., Classifier]] = {
    "preact_resnet": PreActResNet,
    "resnet": ResNet,
    "plain": Plain,
    "elu_resnet": EluResNet,
    "fast_conv": FastConv,
}

MODELS: dict[str, dict[str, Any]] = {
    "preact_resnet20": {"kind": "preact_resnet", "depth": 20},
    "preact_resnet32": {"kind": "preact_resnet", "depth": 32},
    "preact_resnet44": {"kind": "preact_resnet", "depth": 44},
    "preact_resnet56": {"kind": "preact_resnet", "depth": 56},
    "preact_resnet110": {"kind": "preact_resnet", "depth": 110},
    "resnet20": {"kind": "resnet", "depth": 20},
    "resnet32": {"kind": "resnet", "depth": 32},
    "resnet44": {"kind": "resnet", "depth": 44},
    "resnet56": {"kind": "resnet", "depth": 56},
    "resnet110": {"kind": "resnet", "depth": 110},
    "plain20": {"kind": "plain", "depth": 20},
    "plain32": {"kind": "plain", "depth": 32},
    "plain44": {"kind": "plain", "depth": 44},
    "plain56": {"kind": "plain", "depth": 56},
    "elu_resnet20": {"kind": "elu_resnet", "depth": 20},
    "elu_resnet32": {"kind": "elu_resnet", "depth": 32},
    "elu_resnet44": {"kind": "elu_resnet", "depth": 44},
    "elu_resnet56": {"kind": "elu_resnet", "depth": 56},
    "elu_resnet110": {"kind": "elu_resnet", "depth": 110},
    "fast_conv": {"kind": "fast_conv"},
}


def build(description: Mapping[str, Any], *, num_classes: int, channels: int = 3) -> Classifier:
    """Build a network with fresh weights from `description`, drawn from torch's global generator."""
    options = {name: value for name, value in description.items() if name != "kind"}
    return FAMILIES[description["kind"]](num_classes=num_classes, channels=channels, **options)


def restore(
    description: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], *, num_classes: int, channels: int
) -> Classifier:
    """Build the described network with the given weights, in evaluation mode.

    Raises: RuntimeError where names or shapes do not fit.
    """
    model = build(description, num_classes=num_classes, channels=channels)
    model.load_state_dict({name: torch.as_tensor(value) for name, value in tensors.items()})
    return model.eval()


def count_parameters(model: Classifier, *, trained_only: bool = True) -> int:
    """Count the trained numbers, or with `trained_only=False` also the running means and variances."""
    if trained_only:
        return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return parameters + sum(buffer.numel() for buffer in model.buffers() if buffer.is_floating_point())


def count_multiply_adds(model: Classifier, *, image: Tensor) -> int:
    """Count the multiply-adds of convolutions, done directly, and the head for one `image` (C, H, W)."""
    shapes = copy.deepcopy(model).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        shapes(image[None].to("meta"))
    return int(counter.get_total_flops()) // 2

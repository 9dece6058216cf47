"""The networks: `MODELS` names them, `build` makes one from its description, `restore` fills one with weights.

A description is plain data, `{"kind": family, option: value, …}`, the JSON of a recipe's `model`.
"""

from collections.abc import Callable, Mapping
from textwrap import shorten
from typing import Any

import torch
from numpy.typing import NDArray

from reslab.errors import UserError
from reslab.models.costs import count_multiply_adds, count_parameters
from reslab.models.densenet import DenseNet
from reslab.models.efficientnet_lite import EfficientNetLite
from reslab.models.elu_resnet import EluResNet
from reslab.models.fast_conv import FastConv
from reslab.models.foreign import build_module, build_timm
from reslab.models.imagenet_resnet import ImageNetResNet
from reslab.models.layers import Classifier
from reslab.models.lenet import LeNet
from reslab.models.nin import NiN
from reslab.models.plain import Plain
from reslab.models.preact_resnet import PreActResNet
from reslab.models.resnet import ResNet
from reslab.models.resnext import ResNeXt
from reslab.models.vgg19 import Vgg19
from reslab.models.wide_resnet import WideResNet

__all__ = ["FAMILIES", "MODELS", "Classifier", "build", "count_multiply_adds", "count_parameters", "restore"]

FAMILIES: dict[str, Callable[..., Classifier]] = {
    "preact_resnet": PreActResNet,
    "resnet": ResNet,
    "plain": Plain,
    "elu_resnet": EluResNet,
    "fast_conv": FastConv,
    "lenet": LeNet,
    "nin": NiN,
    "vgg19": Vgg19,
    "wide_resnet": WideResNet,
    "densenet": DenseNet,
    "resnext": ResNeXt,
    "imagenet_resnet": ImageNetResNet,
    "efficientnet_lite": EfficientNetLite,
    "module": build_module,
    "timm": build_timm,
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
    "lenet": {"kind": "lenet"},
    "nin": {"kind": "nin"},
    "vgg19": {"kind": "vgg19"},
    "wrn16_8": {"kind": "wide_resnet", "depth": 16, "widening": 8},
    "wrn28_10": {"kind": "wide_resnet", "depth": 28, "widening": 10},
    "densenet_bc_100_12": {"kind": "densenet", "depth": 100, "growth": 12},
    "densenet_bc_100_24": {"kind": "densenet", "depth": 100, "growth": 24},
    "densenet_bc_160_24": {"kind": "densenet", "depth": 160, "growth": 24},
    "resnext29_4x64d": {"kind": "resnext", "depth": 29, "cardinality": 4, "width": 64},
    "se_resnext29_4x64d": {"kind": "resnext", "depth": 29, "cardinality": 4, "width": 64, "reduction": 16},
    "resnet18": {"kind": "imagenet_resnet", "depth": 18},
    "resnet34": {"kind": "imagenet_resnet", "depth": 34},
    "resnet50": {"kind": "imagenet_resnet", "depth": 50},
    "resnet101": {"kind": "imagenet_resnet", "depth": 101},
    "resnet152": {"kind": "imagenet_resnet", "depth": 152},
    "efficientnet_lite0": {"kind": "efficientnet_lite", "size": 0},
    "efficientnet_lite1": {"kind": "efficientnet_lite", "size": 1},
    "efficientnet_lite2": {"kind": "efficientnet_lite", "size": 2, "dropout": 0.3},
}


def build(description: Mapping[str, Any], *, num_classes: int, channels: int = 3) -> Classifier:
    """Build a network with fresh weights from `description`, drawn from torch's global generator.

    Raises: UserError where it is a network from outside that is not allowed or not there.
    """
    options = {name: value for name, value in description.items() if name != "kind"}
    return FAMILIES[description["kind"]](num_classes=num_classes, channels=channels, **options)


def restore(
    description: Mapping[str, Any],
    tensors: Mapping[str, NDArray[Any]],
    *,
    num_classes: int,
    channels: int,
    where: str = "the weights",
) -> Classifier:
    """Build the described network with the given weights, in evaluation mode.

    What is described takes no memory and no time until it is known to fit the weights.
    Raises: UserError that says `where` they stand, where names or shapes do not fit.
    """
    try:
        if (depth := description.get("depth", 0)) > len(tensors):
            raise ValueError(f"{len(tensors)} tensors are too few for {depth} layers")
        with torch.device("meta"):
            shapes = {name: torch.empty(value.shape) for name, value in tensors.items()}
            build(description, num_classes=num_classes, channels=channels).load_state_dict(shapes)
    except UserError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:  # the latter two: sizes that PyTorch cannot count
        raise UserError(f"{where} do not fit the network that they name: {shorten(str(error), 300)}") from None
    with torch.random.fork_rng(devices=[]):  # its first weights are nobody's, and cost the caller no random numbers
        model = build(description, num_classes=num_classes, channels=channels)
    model.load_state_dict({name: torch.as_tensor(value) for name, value in tensors.items()})
    return model.eval()

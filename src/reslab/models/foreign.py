"""Networks that are not reslab's: a class of one's own, or one of timm's by name.

A class of one's own follows the contract of a classifier: it takes `num_classes` and `channels`, has `features` and a
linear `head`. To import it is to run its code, and a weights file names the network that it belongs to; so only
packages that the environment variable RESLAB_CODE names are imported, whoever asks.
Axes: N images, C channels, H rows, W columns, D features, K classes.
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from torch import Tensor, nn

from reslab.errors import UserError
from reslab.models.layers import ImageClassifier
from reslab.recipe.networks import Module, Timm
from reslab.recipe.recipe import Standardize

ALLOWED = "RESLAB_CODE"  # packages, with commas
# Options of timm's that load files, some of them pickles, or ask its hub.
READS_FILES: Final = frozenset(
    {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
)


class ForeignClassifier(ImageClassifier):
    """A body that gives features, and a head that was its own or is new."""

    def __init__(self, body: nn.Module, *, features: Callable[[Tensor], Tensor], head: nn.Linear) -> None:
        super().__init__()
        self.body, self.head = body, head
        self._features = features.__call__ if isinstance(features, nn.Module) else features  # weights are held once

    def features(self, images: Tensor) -> Tensor:
        return self._features(images)


def build_module(network: Module, *, num_classes: int, channels: int) -> ImageClassifier:
    """Build the network of a class, named as package.module:Class.

    Raises: UserError where its package is not allowed, it is not there, or it does not keep the contract.
    """
    name = network.name
    where, _, kind = name.partition(":")
    package = where.partition(".")[0]
    if package not in os.environ.get(ALLOWED, "").split(","):
        raise UserError(
            f"the network {name} is code outside of reslab, which runs where it is imported: if you trust it, "
            f"set {ALLOWED}={package} in the environment"
        )
    try:
        with _importing_from_here():
            found = getattr(importlib.import_module(where), kind)
        if not (isinstance(found, type) and issubclass(found, nn.Module)):  # a file may name any function of it
            raise UserError(f"the network {name} is no class of networks: name a torch.nn.Module")
        made = found(num_classes=num_classes, channels=channels, **network.options)
    except (ImportError, AttributeError, TypeError) as error:
        raise UserError(f"the network {name} cannot be made: {error}") from None
    head, features = getattr(made, "head", None), getattr(made, "features", None)
    if not (isinstance(made, nn.Module) and callable(features) and isinstance(head, nn.Linear)):
        raise UserError(f"the network {name} has to be a torch.nn.Module with features(images) and a linear head")
    if head.out_features != num_classes:
        raise UserError(f"the head of the network {name} has {head.out_features} outputs for {num_classes} classes")
    if isinstance(made, ImageClassifier):
        return made
    made.head = nn.Identity()  # it moves; the weights are not kept twice
    return ForeignClassifier(made, features=features, head=head)


@contextmanager
def _importing_from_here() -> Iterator[None]:
    """Look for packages in the working directory too, after all other places, while the block runs."""
    sys.path.append(os.getcwd())
    try:
        yield
    finally:
        sys.path.remove(os.getcwd())


def build_timm(network: Timm, *, num_classes: int, channels: int) -> ImageClassifier:
    """Build a network of timm by its name there, with fresh weights and a new head.

    Raises: UserError where timm is not installed, or does not know it.
    """
    if reads_files := sorted(READS_FILES & network.options.keys()):
        raise UserError(f"the network {network.name} is created with fresh weights: omit the option {reads_files[0]!r}")
    body = _create_by_timm(network.name, pretrained=False, in_chans=channels, **network.options)
    return ForeignClassifier(body, features=body, head=nn.Linear(body.num_features, num_classes))


class TimmWeights(NamedTuple):
    """Tensors of a network of timm by their names in the one that `build_timm` makes, and what it expects of pixels."""

    tensors: dict[str, Tensor]
    standardize: Standardize


def load_timm(name: str) -> TimmWeights:
    """Let timm load the weights that it has for a network, out of its cache or from its hub.

    Raises: UserError where timm is not installed, does not know the network, or neither has the weights.
    """
    asked = _create_by_timm(name, pretrained=False).pretrained_cfg
    try:
        body = _create_by_timm(name, pretrained=True)
    except OSError as error:
        file = asked.get("hf_hub_id") or asked.get("url") or name
        raise UserError(
            f"the weights of timm's {name} are neither in its cache nor to be had from its hub: {file} is missing "
            f"({type(error).__name__})"
        ) from None
    tensors = {f"body.{key}": value for key, value in body.state_dict().items()}
    mean, std = (tuple(255 * value for value in asked[part]) for part in ("mean", "std"))
    return TimmWeights(tensors, Standardize(mean=mean, std=std))


def _create_by_timm(name: str, **options: Any) -> Any:
    """Make a network of timm without its classes."""
    try:
        timm = importlib.import_module("timm")
        return timm.create_model(name, num_classes=0, **options)
    except ImportError as error:
        raise UserError(f"the network {name} is timm's, which cannot be imported ({error}): pip install timm") from None
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"timm cannot make the network {name}: {error}") from None

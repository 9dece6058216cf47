"""External networks: a user's own class, or one of timm by name.

A user's class follows the contract of a classifier: it takes `num_classes` and `channels`, and has `features` and a
linear `head`. Importing it runs its code, and weights files can name any class; so only packages listed in the
environment variable RESLAB_CODE are ever imported.
Axes: N images, C channels, H rows, W columns, D features, K classes.
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from textwrap import shorten
from typing import Any, Final, NamedTuple

from torch import Tensor, fx, nn

from reslab.errors import UserError
from reslab.models.layers import ImageClassifier
from reslab.recipe.networks import Module, Timm
from reslab.recipe.recipe import Standardize

ALLOWED = "RESLAB_CODE"  # comma-separated packages
# Options of timm that load files, some of them pickles, or contact its hub.
READS_FILES: Final = frozenset(
    {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
)
# Options that `build_timm` passes itself.
SET_HERE: Final = frozenset({"in_chans", "model_name", "name", "num_classes"})


class ForeignClassifier(ImageClassifier):
    """A body that computes features, and its original or a new head."""

    def __init__(self, body: nn.Module, *, features: Callable[[Tensor], Tensor], head: nn.Linear) -> None:
        super().__init__()
        self.body, self.head = body, head
        self._features = features.__call__ if isinstance(features, nn.Module) else features  # register weights once

    def features(self, images: Tensor) -> Tensor:
        found = self._features(images)
        _check_features(found, num=self.head.in_features)
        return found


@fx.wrap  # folding traces the network, and no shape is known then
def _check_features(features: Tensor, *, num: int) -> None:
    if features.shape[1:] != (num,):
        raise UserError(
            f"the features have the shape {tuple(features.shape)}, the head takes (N, {num}): pool them, and omit "
            "options that change their number"
        )


def build_module(network: Module, *, num_classes: int, channels: int) -> ImageClassifier:
    """Build a network from its class, named as package.module:Class.

    Raises: UserError if its package is not allowed, it is not found, or it does not follow the contract.
    """
    name = network.name
    where, _, kind = name.partition(":")
    package = where.partition(".")[0]
    if package not in os.environ.get(ALLOWED, "").split(","):
        raise UserError(
            f"the network {name} is code outside of reslab, which runs when it is imported: if you trust it, "
            f"set {ALLOWED}={package} in the environment"
        )
    try:
        with _importing_from_here():
            found = getattr(importlib.import_module(where), kind)
        if not (isinstance(found, type) and issubclass(found, nn.Module)):  # a file may name any of its functions
            raise UserError(f"the network {name} is not a network class: name a torch.nn.Module")
        made = found(num_classes=num_classes, channels=channels, **network.options)
    except UserError:
        raise
    except Exception as error:  # a user's code may raise anything
        reason = shorten(f"{type(error).__name__}: {error}", 300)
        raise UserError(f"the network {name} cannot be made: {reason}") from None
    head, features = getattr(made, "head", None), getattr(made, "features", None)
    if not (isinstance(made, nn.Module) and callable(features) and isinstance(head, nn.Linear)):
        raise UserError(f"the network {name} must be a torch.nn.Module with features(images) and a linear head")
    if head.out_features != num_classes:
        raise UserError(f"the head of the network {name} has {head.out_features} outputs for {num_classes} classes")
    if isinstance(made, ImageClassifier):
        return made
    made.head = nn.Identity()  # the head moves, so its weights are not registered twice
    return ForeignClassifier(made, features=features, head=head)


@contextmanager
def _importing_from_here() -> Iterator[None]:
    """Within the block, also look for packages in the working directory, after all other places."""
    sys.path.append(os.getcwd())
    try:
        yield
    finally:
        sys.path.remove(os.getcwd())


def build_timm(network: Timm, *, num_classes: int, channels: int) -> ImageClassifier:
    """Build a network of timm by name, with fresh weights and a new head.

    Raises: UserError if timm is not installed, does not know it, or cannot make it with these options.
    """
    if reads_files := sorted(READS_FILES & network.options.keys()):
        raise UserError(f"the network {network.name} is created with fresh weights: omit the option {reads_files[0]!r}")
    if set_here := sorted(SET_HERE & network.options.keys()):
        raise UserError(f"the option {set_here[0]!r} of the network {network.name} is set by reslab: omit it")
    body = _create_by_timm(network.name, pretrained=False, in_chans=channels, **network.options)
    # The pooled features can be wider than the last feature map, as in MobileNetV3.
    width = getattr(body, "head_hidden_size", None) or getattr(body, "num_features", None)
    if width is None:  # timm's networks with `features_only`
        raise UserError(f"the network {network.name} computes no pooled features: omit the option 'features_only'")
    return ForeignClassifier(body, features=body, head=nn.Linear(width, num_classes))


class TimmWeights(NamedTuple):
    """Tensors of a timm network by their names in the network of `build_timm`, and its input normalisation."""

    tensors: dict[str, Tensor]
    standardize: Standardize


def load_timm(name: str) -> TimmWeights:
    """Load timm's weights for a network, from its cache or its hub.

    Raises: UserError if timm is not installed, does not know the network, or the weights are not available.
    """
    asked = _create_by_timm(name, pretrained=False).pretrained_cfg
    try:
        body = _create_by_timm(name, pretrained=True)
    except OSError as error:
        file = asked.get("hf_hub_id") or asked.get("url") or name
        raise UserError(
            f"the weights of timm's {name} are neither in its cache nor available from its hub: {file} is missing "
            f"({type(error).__name__})"
        ) from None
    tensors = {f"body.{key}": value for key, value in body.state_dict().items()}
    mean, std = (tuple(255 * value for value in asked[part]) for part in ("mean", "std"))
    return TimmWeights(tensors, Standardize(mean=mean, std=std))


def _create_by_timm(name: str, **options: Any) -> Any:
    """Create a network of timm without its classifier."""
    try:
        timm = importlib.import_module("timm")
        return timm.create_model(name, num_classes=0, **options)
    except ImportError as error:
        raise UserError(f"the network {name} is timm's, which cannot be imported ({error}): pip install timm") from None
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"timm cannot make the network {name}: {str(error) or type(error).__name__}") from None

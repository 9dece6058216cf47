"""Translation of other families' residual network weights to reslab's names.

Three public families differ only in a few words of their names. Akamaster's option A puts the zeros of a wider stage on
both sides of the old channels, reslab's puts them after: every tensor that reads or writes the sum of a stage is
permuted, so that the same channels are added. Shapes would fit even without it.

Source: github.com/akamaster/pytorch_resnet_cifar10; github.com/chenyaofo/pytorch-cifar-models; torchvision.
Axes: C channels of a stage.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import torch
from torch import Tensor

from reslab.errors import UserError, did_you_mean
from reslab.recipe.networks import Model, ResNet
from reslab.recipe.recipe import Standardize
from reslab.words import listing


class Family(NamedTuple):
    """A family's image normalisation, and its choices for options of our networks."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    options: Mapping[str, str] = MappingProxyType({})
    zeros_on_both_sides: bool = False

    @property
    def standardize(self) -> Standardize:
        """Return mean and standard deviation for pixels from 0 to 255."""
        return Standardize(mean=tuple(255 * each for each in self.mean), std=tuple(255 * each for each in self.std))


FAMILIES: Final = {
    "akamaster": Family(
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), options={"shortcut": "A"}, zeros_on_both_sides=True
    ),
    "chenyaofo": Family((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), options={"shortcut": "B"}),
    "torchvision": Family((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), options={"stride_in": "3x3"}),
}
ORDER: Final = "order"  # match tensors by their order in the forward pass
MAPS: Final = (*FAMILIES, ORDER)
_OUTSIDE = {"conv1": "stem", "bn1": "norm", "linear": "head", "fc": "head"}
_INSIDE = {"bn1": "norm1", "bn2": "norm2", "bn3": "norm3", "downsample": "shortcut"}
_BLOCK = re.compile(r"layer(\d{1,3})\.(\d{1,3})\.(\w+)\.(.+)")


def adapt(model: Model, name: str) -> Model:
    """Set the family's options in a network. Raises: UserError if the map is unknown, or not for such networks."""
    if name not in MAPS:
        raise UserError(f"--map {name}: {did_you_mean(name, MAPS, otherwise=f'choose from {listing(list(MAPS))}')}")
    if name in FAMILIES and FAMILIES[name].zeros_on_both_sides and not isinstance(model, ResNet):
        raise UserError(f"--map {name} is not for {model.label}: name --model resnet20 to resnet110, or another --map")
    options = FAMILIES[name].options if name in FAMILIES else {}
    return model.model_copy(update={key: value for key, value in options.items() if key in type(model).model_fields})


def translate(tensors: Mapping[str, Tensor], *, name: str, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate a family's tensors to the names and channel order of a network `like` this.

    Batch counts missing in older files become 0. Raises: UserError if names or shapes do not fit.
    """
    if name == ORDER:
        found = _by_order(tensors, like)
    else:
        found = {_rename(each, tensors): value for each, value in tensors.items()}
    found |= {key: value for key, value in like.items() if key.endswith("num_batches_tracked") and key not in found}
    _check(found, like, name=name)
    return move_zeros_behind(found) if name in FAMILIES and FAMILIES[name].zeros_on_both_sides else found


def _rename(name: str, names: Mapping[str, Tensor]) -> str:
    if block := _BLOCK.fullmatch(name):
        stage, place, child, rest = block.groups()
        before = {found.groups()[:2] for found in map(_BLOCK.fullmatch, names) if found and int(found[1]) < int(stage)}
        return f"blocks.{len(before) + int(place)}.{_INSIDE.get(child, child)}.{rest}"
    child, _, rest = name.partition(".")
    return f"{_OUTSIDE.get(child, child)}.{rest}"


def _by_order(tensors: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    theirs, ours = (
        {name: value for name, value in each.items() if not name.endswith("num_batches_tracked")}
        for each in (tensors, like)
    )
    if len(theirs) != len(ours):
        raise UserError(f"the file has {len(theirs)} tensors, the network {len(ours)}: name another --model or --map")
    return dict(zip(ours, theirs.values(), strict=True))


def _check(found: Mapping[str, Tensor], like: Mapping[str, Tensor], *, name: str) -> None:
    missing, unknown = [key for key in like if key not in found], [key for key in found if key not in like]
    if missing or unknown:
        lacks, has = (f"{len(keys)} ({', '.join(keys[:3])}…)" if keys else "none" for keys in (missing, unknown))
        raise UserError(
            f"the tensors do not fit the network by --map {name}: missing {lacks}, unknown {has}: name another --model "
            "or --map"
        )
    for key, value in like.items():
        if found[key].shape != value.shape:
            raise UserError(
                f"{key} has the shape {tuple(found[key].shape)}, the network needs {tuple(value.shape)}: name another "
                "--model, or --data with as many classes"
            )


def move_zeros_behind(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Permute the channels of every stage as if the zeros of its first shortcut came after the old channels."""
    moved, order = dict(tensors), torch.arange(len(tensors["stem.weight"]))
    for place in range(sum(key.endswith("conv1.weight") for key in tensors)):
        block = f"blocks.{place}"
        moved[f"{block}.conv1.weight"] = tensors[f"{block}.conv1.weight"][:, order]
        order = _order_after(order, wide=len(tensors[f"{block}.conv2.weight"]))
        moved[f"{block}.conv2.weight"] = tensors[f"{block}.conv2.weight"][order]
        moved |= {
            key: value[order] for key, value in tensors.items() if key.startswith(f"{block}.norm2.") and value.ndim
        }
    moved["head.weight"] = tensors["head.weight"][:, order]
    return moved


def _order_after(order: Tensor, *, wide: int) -> Tensor:
    """Return which of their channels each of ours is (C,), after a shortcut to a stage of `wide` channels."""
    zeros = (wide - len(order)) // 2
    return torch.cat([order + zeros, torch.arange(zeros), torch.arange(wide - zeros, wide)]) if zeros else order

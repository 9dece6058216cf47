"""Freezing of parameters from some epoch on, and of batch norm's statistics."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from reslab.errors import UserError
from reslab.recipe.recipe import Freeze


def freeze(model: nn.Module, parts: tuple[Freeze, ...], *, epoch: int) -> None:
    """Freeze the parameters that are due in `epoch` (from 0)."""
    for name, parameter in model.named_parameters():
        if _is_frozen(name, parts, epoch):
            parameter.requires_grad_(False)


def freeze_norms(model: nn.Module) -> None:
    """Put batch norm into evaluation mode, until the model is next put into training mode."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def check_freezing(model: nn.Module, parts: tuple[Freeze, ...], *, epochs: int) -> None:
    """Check that all names exist in the network, and that every epoch has something to train.

    Raises: UserError listing the existing names.
    """
    names = [name for name, _ in model.named_parameters()]
    for part in parts:
        if not any(name.startswith(part.parameters) for name in names):
            known = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise UserError(f"freeze: no parameter's name begins with {part.parameters!r}; they begin with {known}")
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if all(_is_frozen(name, parts, epochs - 1) for name in trained):
        raise UserError(
            f"freeze leaves nothing to train in the last of {epochs} epochs: remove an entry, or end the run earlier"
        )


def _is_frozen(name: str, parts: tuple[Freeze, ...], epoch: int) -> bool:
    return any(epoch >= part.epoch and name.startswith(part.parameters) for part in parts)

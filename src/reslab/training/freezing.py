"""Parameters that are no longer trained from some epoch on, and batch norm that keeps its statistics."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from reslab.errors import UserError
from reslab.recipe.recipe import Freeze


def freeze(model: nn.Module, parts: tuple[Freeze, ...], *, epoch: int) -> None:
    """Take the parameters whose time has come in `epoch` (from 0) out of the training."""
    for name, parameter in model.named_parameters():
        if _is_frozen(name, parts, epoch):
            parameter.requires_grad_(False)


def freeze_norms(model: nn.Module) -> None:
    """Let batch norm compute as in evaluation, until the model is told to train."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def check_freezing(model: nn.Module, parts: tuple[Freeze, ...], *, epochs: int) -> None:
    """Look for names that the network does not have, and for an epoch with nothing left to train.

    Raises: UserError naming what there is.
    """
    names = [name for name, _ in model.named_parameters()]
    for part in parts:
        if not any(name.startswith(part.parameters) for name in names):
            known = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise UserError(f"freeze: no parameter's name begins with {part.parameters!r}; they begin with {known}")
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if all(_is_frozen(name, parts, epochs - 1) for name in trained):
        raise UserError(
            f"freeze leaves nothing to train in the last of {epochs} epochs: take a part away, or end the run earlier"
        )


def _is_frozen(name: str, parts: tuple[Freeze, ...], epoch: int) -> bool:
    return any(epoch >= part.epoch and name.startswith(part.parameters) for part in parts)

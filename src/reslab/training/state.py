"""The complete state of a training run, converted to arrays and back."""

from dataclasses import dataclass, field
from textwrap import shorten
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from reslab.errors import UserError
from reslab.models.layers import ImageClassifier
from reslab.recipe.value import Fraction, Part
from reslab.runs import Checkpoint
from reslab.runs.files import Arrays


@dataclass
class State:
    """State of a run: the network, the optimizer, and the losses and hits of the current epoch."""

    model: ImageClassifier
    optimizer: torch.optim.Optimizer
    losses: Tensor  # (batches per epoch,) float32
    hits: Tensor  # (batches per epoch,) int64
    updates: int = 0
    epochs: int = 0  # completed and logged
    is_warm: bool = False  # whether warm-up has ended
    seconds: float = 0.0  # spent on the current epoch
    lowered_from: int | None = None  # the update from which the rate is lower, after a loss that was not finite
    best_epoch: int | None = None  # of early stopping: the number of the epoch whose weights are `best`
    best: dict[str, Tensor] = field(default_factory=dict)
    best_accuracy: float = 0.0  # on the validation images, as the loss is
    best_loss: float = 0.0

    def compare(self, *, epoch: int, accuracy: float, loss: float) -> None:
        """Keep the current weights if they are the best so far."""
        if self.best_epoch is None or (accuracy, -loss) > (self.best_accuracy, -self.best_loss):
            self.best_epoch, self.best_accuracy, self.best_loss = epoch, accuracy, loss
            self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}


class CheckpointState(Part):
    """The values of a checkpoint other than tensors; see `State`."""

    schema_version: Literal[1] = 1
    updates: NonNegativeInt
    epochs: NonNegativeInt
    is_warm: bool
    seconds: NonNegativeFloat
    lowered_from: NonNegativeInt | None = None  # older versions did not lower the rate
    best_epoch: PositiveInt | None = None
    best_accuracy: Fraction = 0.0
    best_loss: NonNegativeFloat = 0.0


FIELDS = tuple(name for name in CheckpointState.model_fields if name != "schema_version")


def capture(state: State) -> Checkpoint:
    """Return a copy of the state that shares no memory with the run."""
    tensors = {f"model.{name}": _array(value) for name, value in state.model.state_dict().items()}
    for index, parameter in enumerate(_parameters(state.optimizer)):
        for name, value in state.optimizer.state[parameter].items():
            tensors[f"optimizer.{index}.{name}"] = _array(value)
    tensors |= {f"best.{name}": _array(value) for name, value in state.best.items()}
    tensors |= {"epoch.losses": _array(state.losses), "epoch.hits": _array(state.hits)}
    tensors |= {name: _array(value) for name, value in read_generators(state.losses.device).items()}
    return Checkpoint(tensors, {name: getattr(state, name) for name in FIELDS})


def restore(state: State, checkpoint: Checkpoint) -> None:
    """Restore a captured state into a run of the same recipe.

    Raises: UserError if the checkpoint belongs to another network.
    """
    tensors, position = checkpoint.tensors, read_state(checkpoint)
    try:
        state.model.load_state_dict(_under("model.", tensors))
        state.best = {name: value.clone() for name, value in _under("best.", tensors).items()}
        state.losses.copy_(torch.as_tensor(tensors["epoch.losses"]))
        state.hits.copy_(torch.as_tensor(tensors["epoch.hits"]))
        set_generators(tensors, state.losses.device)
        for index, parameter in enumerate(_parameters(state.optimizer)):
            state.optimizer.state[parameter] = _restore_slots(tensors, f"optimizer.{index}.", like=parameter)
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise _not_fitting(error) from None
    for name in FIELDS:
        setattr(state, name, getattr(position, name))


def read_generators(device: torch.device) -> dict[str, Tensor]:
    """Read the states of the generators that dropout draws from: that of the CPU and, on a GPU, its own."""
    found = {"generator": torch.get_rng_state()}
    return found | {"generator.cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else found


def set_generators(tensors: Arrays, device: torch.device) -> None:
    """Set the states among the tensors of a checkpoint; older versions did not save that of a GPU."""
    torch.set_rng_state(torch.as_tensor(tensors["generator"]))
    if device.type == "cuda" and "generator.cuda" in tensors:
        torch.cuda.set_rng_state(torch.as_tensor(tensors["generator.cuda"]), device)


def _under(prefix: str, tensors: Arrays) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): torch.as_tensor(value) for name, value in tensors.items() if name.startswith(prefix)
    }


def read_state(checkpoint: Checkpoint) -> CheckpointState:
    """Read the state values of a checkpoint. Raises: UserError if they are invalid."""
    try:
        return CheckpointState.model_validate(checkpoint.state)
    except ValueError as error:
        raise _not_fitting(error) from None


def _not_fitting(error: Exception) -> UserError:
    return UserError(f"the checkpoint does not fit the run's recipe: {shorten(str(error), 300)}")


def _restore_slots(tensors: dict[str, NDArray[Any]], prefix: str, *, like: nn.Parameter) -> dict[str, Tensor]:
    # The same memory layout as the weights, or the fused update would not be bitwise reproducible.
    return {
        name.removeprefix(prefix): torch.tensor(value, device=like.device)  # the number of steps, of a fused update
        if value.ndim == 0
        else torch.empty_like(like).copy_(torch.as_tensor(value))
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _array(value: Tensor) -> NDArray[Any]:
    return np.array(value.detach().cpu().numpy(), order="C")

"""Runs that start from existing weights, of another run or from elsewhere, in all layers that fit.

The head is left out unless the recipe says that the classes are the same.

The run folder keeps the weights as `base.safetensors`, so resuming does not need the original file.
"""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from reslab.errors import UserError
from reslab.models.foreign import load_timm
from reslab.models.layers import ImageClassifier
from reslab.network.state_dict import StateDict, read_state_dict
from reslab.recipe.recipe import Recipe, StartingWeights, derive, parse_recipe
from reslab.records import FAMILIARITY
from reslab.runs import Run
from reslab.runs.files import to_safetensors
from reslab.runs.folder import START_DIGEST, find_demo
from reslab.training.seen import are_redrawn
from reslab.words import counted

TIMM = "timm:"  # prefix of timm's names


class Given(NamedTuple):
    """Starting weights, and the recipe that records them."""

    recipe: Recipe
    found: StateDict
    source: Run | None  # None: a file

    def bring(self, run: Run) -> None:
        """Store the weights in a run folder, with the digests of the images they were trained on."""
        tensors = {name: value.contiguous().numpy() for name, value in self.found.tensors.items()}
        run.write_base(to_safetensors(tensors, {START_DIGEST: self.found.sha256}))
        if self.source:
            run.write_base_digests(self.source)


def start_at(path: Path | str, recipe: Recipe) -> Given:
    """Read weights from a run folder, a file, or timm, whose network then becomes the recipe's.

    Raises: UserError if they cannot be read.
    """
    if recipe.pretrained is not None:
        raise UserError(f"--from: {recipe.name} starts from {recipe.pretrained} already: add --set pretrained=null")
    if str(path).startswith(TIMM):
        return _start_at_timm(str(path).removeprefix(TIMM), recipe)
    path = find_demo(Path(path))
    found = read_state_dict(path)
    head = recipe.start is not None and recipe.start.head
    source = _find_run(Path(path))
    if head and recipe.start is not None:  # more pictures of the same classes
        redrawn = recipe.start.redrawn
    else:
        redrawn = source is not None and are_redrawn(source, recipe)
    name = os.path.basename(os.path.realpath(path))  # also of "."
    start = StartingWeights(file=name, sha256=found.sha256, head=head, redrawn=redrawn)
    return Given(derive(recipe, name=recipe.name, published=None, start=start), found, source)


def _find_run(path: Path) -> Run | None:
    """Find the run whose folder or weights are given; None if it is another file."""
    folder = path if path.is_dir() else path.parent
    is_run = Run.is_at(folder) and (path == folder or path.name == Run(folder).weights_path.name)
    return Run(folder) if is_run else None


def _start_at_timm(name: str, recipe: Recipe) -> Given:
    """Use a network of timm with its weights, for RGB pictures standardised as it expects."""
    model = {"kind": "timm", "name": name}
    wanted = parse_recipe(recipe.model_dump() | {"model": model, "channels": 3}, where=f"--from {TIMM}{name}")
    weights = load_timm(name)
    content = to_safetensors({key: value.contiguous().numpy() for key, value in weights.tensors.items()}, {})
    sha256 = hashlib.sha256(content).hexdigest()
    changed = derive(
        wanted,
        name=recipe.name,
        published=None,
        standardize=weights.standardize,
        start=StartingWeights(file=f"{TIMM}{name}", sha256=sha256),
    )
    return Given(changed, StateDict(weights.tensors, sha256), None)


def take_start(model: ImageClassifier, run: Run, start: StartingWeights) -> str:
    """Load a run's stored starting weights into the layers, and describe which were used.

    Raises: UserError if the file is not the one that the run started with, or nothing fits.
    """
    tensors, own = run.read_start(start), model.state_dict()
    given = {name: torch.as_tensor(value) for name, value in tensors.items() if not name.startswith(FAMILIARITY)}
    fitting = {name: value for name, value in given.items() if _fits(name, value, own, head=start.head)}
    if not fitting:
        raise UserError(
            f"--from {start.file}: none of its {counted(len(given), 'tensor')} fits the network by name and shape; "
            "reslab import reads the names of other families"
        )
    model.load_state_dict(own | fitting)
    wanted = [name for name in own if start.head or not name.startswith("head.")]
    below = "" if start.head else " below the head"
    return (
        f"start from {start.file}: {len(fitting)} of {counted(len(wanted), 'tensor')}{below} taken"
        + _named("; not in the file, or of another shape", [name for name in wanted if name not in fitting])
        + _named("; not used", [name for name in given if name not in fitting])
    )


def _fits(name: str, value: Tensor, own: dict[str, Tensor], *, head: bool) -> bool:
    return (head or not name.startswith("head.")) and name in own and own[name].shape == value.shape


def _named(words: str, names: list[str]) -> str:
    return f"{words}: {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}" if names else ""

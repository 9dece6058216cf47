"""Train by a recipe, or go on with a run that was stopped."""

from pathlib import Path

from reslab.machine.device import pick_device
from reslab.recipe.recipe import Recipe
from reslab.runs import Run
from reslab.training.begin import Begun, Computing, begin, go_on, read_recorded, read_splits
from reslab.training.distributed import joined
from reslab.training.findings import tell_findings
from reslab.training.loop import EVERY_EPOCH, Trainer
from reslab.training.safety import Safety


def train(
    recipe: Recipe,
    *,
    out: Path | str,
    seed: int = 0,
    device: str = "auto",
    data_dir: Path | None = None,
    allow_remote: bool = False,
    silent: bool = True,
    safety: Safety = EVERY_EPOCH,
    compile: str = "auto",
    precision: str = "auto",
    deterministic: bool = False,
) -> Run:
    """Train a network from scratch into the new run folder `out`.

    `deterministic` allows only algorithms that repeat to the bit, also on a GPU, and no compiled network. `precision`,
    "auto", "float32" or "bfloat16", says which numbers are multiplied. Processes that torchrun has started train one
    run together, each on its part of every batch; the first one writes it. Another machine that the recipe names is
    contacted with `allow_remote` alone.
    Raises: UserError where the recipe, the data or the folder do not allow it; Failure where the loss is not finite,
    the disk refuses, somebody interrupts, or another process of the run has ended.
    """
    computing = Computing(compile, precision, deterministic)
    with (
        joined(pick_device(device)) as team,
        begin(
            recipe,
            out=out,
            seed=seed,
            team=team,
            read=lambda: read_splits(recipe, data_dir=data_dir, allow_remote=allow_remote, team=team),
            computing=computing,
        ) as begun,
    ):
        tell_findings(begun, data_dir=data_dir, silent=silent)
        return _make_trainer(begun, silent=silent, safety=safety).train()


def resume(
    path: Path | str,
    *,
    device: str = "auto",
    data_dir: Path | None = None,
    allow_remote: bool = False,
    silent: bool = True,
    safety: Safety = EVERY_EPOCH,
    threads: int | None = None,
) -> Run:
    """Go on with the run in `path` from its newest checkpoint, or from the start where there is none yet.

    It computes with as many threads as it was begun with, unless `threads` says otherwise.
    Raises: UserError where the folder holds no run, another process works on it, its data has changed or its
    checkpoints are corrupt; as `train`.
    """
    with joined(pick_device(device)) as team:
        record = read_recorded(path, command="train", team=team)
        if record.is_finished:
            return Run(path)
        with go_on(
            record, team=team, data_dir=data_dir, allow_remote=allow_remote, threads=threads, silent=silent
        ) as begun:
            return _make_trainer(begun, silent=silent, safety=safety).catch_up().train()


def _make_trainer(begun: Begun, *, silent: bool, safety: Safety) -> Trainer:
    return Trainer(begun, silent=silent or not begun.team.is_first, safety=safety)

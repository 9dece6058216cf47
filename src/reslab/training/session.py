"""Train by a recipe, or go on with a run that was stopped."""

import time
from dataclasses import replace
from pathlib import Path

from reslab.data.recipe_data import find_base
from reslab.machine.device import pick_device
from reslab.recipe.recipe import Recipe
from reslab.runs import Run
from reslab.training.begin import Begun, Computing, begin, go_on, read_recorded, read_splits
from reslab.training.budget import within
from reslab.training.distributed import Team, joined
from reslab.training.findings import tell_few_updates, tell_findings
from reslab.training.loop import EVERY_EPOCH, Trainer
from reslab.training.progress import say
from reslab.training.safety import Safety
from reslab.training.starting import start_at

END = 0.95  # of the time, when updates end that take longer than was measured: writing the weights takes the rest


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
    minutes: float | None = None,
    start: Path | str | None = None,
) -> Run:
    """Train a network from scratch, or from the weights of another one.

    Processes that torchrun has started train one run together, each on its part of every batch; the first one writes
    it.

    Parameters
    ----------
    recipe : Recipe
        What to train, on what and how.
    out : Path or str
        The run folder to make.
    seed : int, default 0
        Decides the first weights, and the order and augmentation of the images.
    device : str, default "auto"
        `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU where there is one.
    data_dir : Path, optional
        Where downloaded data lies, instead of `$RESLAB_DATA` or the cache directory.
    allow_remote : bool, default False
        Whether another machine that the run's recipe names may be contacted.
    silent : bool, default True
        Whether to hide the progress bar and the line of each epoch.
    safety : Safety, optional
        How often to save, and what to do about a loss that is not finite; by default each epoch, and one retry.
    compile : {"auto", "on", "off"}, default "auto"
        Whether the network is compiled; `auto` does so where that saves more time than it takes.
    precision : {"auto", "float32", "bfloat16"}, default "auto"
        Type of the numbers that are multiplied; `auto` is bfloat16 where the processor or GPU has units for it.
    deterministic : bool, default False
        Whether to allow only algorithms that repeat to the bit, also on a GPU. No network is compiled then.
    minutes : float, optional
        Shorten the recipe to what is done in this time, by the measured time of an update; the rate still falls.
    start : Path or str, optional
        A run folder, a `.safetensors` or a state dict of `torch.save`: layers below the head start from its weights,
        where names and shapes fit. Or `timm:NAME`: a network of timm, with the weights that timm has for it.

    Returns
    -------
    Run
        The finished run.

    Raises
    ------
    UserError
        Where the recipe, the data or the folder do not allow it.
    Failure
        Where the loss is not finite, the disk refuses, somebody interrupts, or another process of the run has ended.
        What was saved until then can be resumed.

    Examples
    --------
    >>> import reslab
    >>> digits = reslab.find_recipe("digits-quick")
    >>> recipe = reslab.derive(digits, name="short", data="digits:1,4,7", validation=0, epochs=1)
    >>> run = reslab.train(recipe, out="runs/short")
    >>> run.is_finished, len(run.log)
    (True, 1)
    """
    computing = Computing(compile, precision, deterministic)
    with joined(pick_device(device)) as team:
        if minutes is not None:
            safety = replace(safety, until=time.monotonic() + END * 60 * minutes)
            recipe = _shorten(recipe, minutes, data_dir=data_dir, allow_remote=allow_remote, team=team, silent=silent)
        given = None if start is None else start_at(start, recipe)
        recipe = recipe if given is None else given.recipe
        with begin(
            recipe,
            out=out,
            seed=seed,
            team=team,
            read=lambda: read_splits(recipe, data_dir=data_dir, allow_remote=allow_remote, team=team),
            computing=computing,
            bring=None if given is None else given.bring,
            data_from=find_base(recipe.data, data_dir),
        ) as begun:
            tell_findings(begun, data_dir=data_dir, silent=silent)
            tell_few_updates(begun, recipe, silent=silent)
            return _make_trainer(begun, silent=silent, safety=safety).train()


def _shorten(
    recipe: Recipe, minutes: float, *, data_dir: Path | None, allow_remote: bool, team: Team, silent: bool
) -> Recipe:
    """Shorten a recipe to so many minutes, as the first process measures it."""
    images = team.in_turn(lambda: read_splits(recipe, data_dir=data_dir, allow_remote=allow_remote, team=team))[0]
    shorter = team.from_first(lambda: within(recipe, minutes=minutes, images=images, device=team.device))
    if shorter != recipe:
        say(
            f"{minutes:g} minutes are enough for {shorter.updates:,} updates, "
            f"{shorter.epochs} of {recipe.epochs} epochs",
            silent=silent or not team.is_first,
        )
    return shorter


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
    """Resume an interrupted run from its newest checkpoint, or from the start where there is none yet.

    The weights at the end are byte-identical to those of a run that was never interrupted. A finished run stays as it
    is.

    Parameters
    ----------
    path : Path or str
        The run folder.
    device : str, default "auto"
        `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU where there is one.
    data_dir : Path, optional
        Where downloaded data lies, instead of `$RESLAB_DATA` or the cache directory.
    allow_remote : bool, default False
        Whether another machine that the run's recipe names may be contacted.
    silent : bool, default True
        Whether to hide the progress bar and the line of each epoch.
    safety : Safety, optional
        How often to save, and what to do about a loss that is not finite; by default each epoch, and one retry.
    threads : int, optional
        Threads to compute with, instead of as many as before.

    Returns
    -------
    Run
        The finished run.

    Raises
    ------
    UserError
        Where the folder holds no run, another process works on it, its data has changed or its checkpoints are corrupt;
        and as `train`.
    Failure
        As `train`.

    Examples
    --------
    >>> import reslab
    >>> reslab.resume("runs/digits").is_finished
    True
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

"""Train a recipe, or resume a run."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from reslab.data.images import ImageSet
from reslab.data.load import check_outside
from reslab.data.recipe_data import find_base
from reslab.errors import UserError
from reslab.machine.device import pick_device
from reslab.recipe.recipe import Recipe, derive
from reslab.runs import Run
from reslab.training.begin import Begun, Computing, begin, go_on, read_recorded, read_splits
from reslab.training.budget import END, within
from reslab.training.distributed import Team, joined
from reslab.training.findings import tell_few_updates, tell_findings, tell_missed
from reslab.training.loop import Trainer
from reslab.training.progress import say
from reslab.training.safety import EVERY_EPOCH, Safety
from reslab.training.starting import start_at


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

    Processes started by torchrun train one run together, each on its part of every batch; the first one writes the run
    folder.

    Parameters
    ----------
    recipe : Recipe
        What to train, on which data and how.
    out : Path or str
        The run folder to make.
    seed : int, default 0
        Random seed of the initial weights, and of the order and augmentation of the images.
    device : str, default "auto"
        `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU if there is one.
    data_dir : Path, optional
        Folder of downloaded data, instead of `$RESLAB_DATA` or the cache directory.
    allow_remote : bool, default False
        Whether to allow contacting other machines named in the run's recipe.
    silent : bool, default True
        Whether to hide the progress bar and the line of each epoch.
    safety : Safety, optional
        How often to save, and what to do about a loss that is not finite; by default each epoch, and one retry.
    compile : {"auto", "on", "off"}, default "auto"
        Whether to compile the network; `auto` does so if that saves more time than it takes.
    precision : {"auto", "float32", "bfloat16"}, default "auto"
        Number type of multiplications; `auto` is bfloat16 if the processor or GPU has hardware support.
    deterministic : bool, default False
        Whether to allow only bitwise reproducible algorithms, also on a GPU. The network is then not compiled.
    minutes : float, optional
        Shorten the recipe to fit this time, by the measured time of an update; the rate still falls.
    start : Path or str, optional
        A run folder, a `.safetensors` or a state dict of `torch.save`: layers below the head start from its weights
        if names and shapes fit. Or `timm:NAME`: a network of timm, with timm's weights.

    Returns
    -------
    Run
        The finished run.

    Raises
    ------
    UserError
        If the recipe, the data or the folder are unsuitable.
    Failure
        If the loss is not finite, a file cannot be written, training is interrupted, or another process of the run has
        ended. The run can then be resumed from its last checkpoint.

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
        recipe = _trained_here(recipe, is_started=start is not None)
        check_outside(out, recipe.data, data_dir=data_dir)
        given = None if start is None else start_at(start, recipe)
        recipe = recipe if given is None else given.recipe
        if minutes is not None:
            safety = replace(safety, until=time.monotonic() + END * 60 * minutes)
            read = partial(read_splits, recipe, data_dir=data_dir, allow_remote=allow_remote, team=team)
            recipe = _shorten(recipe, minutes, read=read, precision=precision, team=team, silent=silent)
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
            tell_missed(begun, recipe, silent=silent)
            return _make_trainer(begun, silent=silent, safety=safety).train()


def _trained_here(recipe: Recipe, *, is_started: bool) -> Recipe:
    """Return a recipe, which may be that of another run, as one for training.

    Raises: UserError if it takes more than training, or weights that are not given.
    """
    if recipe.extension is not None:
        raise UserError(
            f"recipe {recipe.name} extends another network by {recipe.extension.method}, which train cannot do: use "
            f"reslab extend BASE --with DATA --method {recipe.extension.method}, or add --set extension=null to train "
            "all classes"
        )
    if recipe.start is not None and not is_started:
        raise UserError(
            f"recipe {recipe.name} starts from the weights of {recipe.start.file}: give them with --from, or add "
            "--set start=null to train without them"
        )
    if recipe.imported is None:
        return recipe
    return derive(recipe, name=recipe.name, source="reslab train", imported=None)


def _shorten(
    recipe: Recipe,
    minutes: float,
    *,
    read: Callable[[], tuple[ImageSet, ...]],
    precision: str,
    team: Team,
    silent: bool,
) -> Recipe:
    """Shorten a recipe to the given minutes, as measured by the first process."""
    images = team.in_turn(read)[0]
    shorter = team.from_first(
        lambda: within(
            recipe, minutes=minutes, images=images, device=team.device, precision=precision, num_ranks=team.size
        )
    )
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
    """Resume an interrupted run from its newest checkpoint, or from the start if there is none yet.

    The final weights are byte-identical to those of an uninterrupted run. A finished run is left unchanged.

    Parameters
    ----------
    path : Path or str
        The run folder.
    device : str, default "auto"
        `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU if there is one.
    data_dir : Path, optional
        Folder of downloaded data, instead of `$RESLAB_DATA` or the cache directory.
    allow_remote : bool, default False
        Whether to allow contacting other machines named in the run's recipe.
    silent : bool, default True
        Whether to hide the progress bar and the line of each epoch.
    safety : Safety, optional
        How often to save, and what to do about a loss that is not finite; by default each epoch, and one retry.
    threads : int, optional
        Number of threads, by default as many as before.

    Returns
    -------
    Run
        The finished run.

    Raises
    ------
    UserError
        If the folder holds no run, another process uses it, its data has changed or its checkpoints are corrupt;
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

"""A run begun, and one gone on with: what is checked and recorded before the first update."""

from pathlib import Path
from typing import NamedTuple

from reslab.data import ImageSet
from reslab.data.recipe_data import describe_data, read_split
from reslab.errors import UserError
from reslab.models.device import pick_device
from reslab.models.precision import pick_precision
from reslab.recipe import Recipe
from reslab.records import DataSet, Environment, SplitName
from reslab.runs import Follower, Run
from reslab.training.compiling import read_compile
from reslab.training.determinism import check_same_machine, strictly
from reslab.training.distributed import Team, joined
from reslab.training.environment import describe_environment
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
    if deterministic and compile == "on":
        raise UserError("--deterministic trains without compiled code, whose order of sums may be chosen by time")
    with joined(pick_device(device)) as team:
        compiled = read_compile(compile, device=team.device)
        multiplied = pick_precision(precision, device=team.device)
        splits = team.in_turn(lambda: _read_splits(recipe, data_dir, team, allow_remote))
        environment = describe_environment(
            device=team.device,
            seed=seed,
            data=_describe_alike(splits, team=team),
            compiled="no" if deterministic else compiled,
            precision=multiplied,
            deterministic=deterministic,
            ranks=team.size,
        )
        run = Run.create(out) if team.is_first else Follower(out, recipe)
        with run.locked(), strictly(deterministic):
            run.write_environment(environment)
            run.write_recipe(recipe)
            silent = silent or not team.is_first
            trainer = Trainer(run, splits, seed=seed, device=team.device, silent=silent, safety=safety, team=team)
            return trainer.train()


def resume(
    path: Path | str,
    *,
    device: str = "auto",
    data_dir: Path | None = None,
    allow_remote: bool = False,
    silent: bool = True,
    safety: Safety = EVERY_EPOCH,
) -> Run:
    """Go on with the run in `path` from its newest checkpoint, or from the start where there is none yet.

    Raises: UserError where the folder holds no run, another process works on it, its data has changed or its
    checkpoints are corrupt; as `train`.
    """
    with joined(pick_device(device)) as team:
        begun = team.from_first(lambda: _read_begun(path))
        run = Run(path) if team.is_first else Follower(path, begun.recipe)
        return (
            run
            if begun.is_finished
            else _go_on(run, begun, team, data_dir=data_dir, allow_remote=allow_remote, silent=silent, safety=safety)
        )


class _Begun(NamedTuple):
    """What the folder of a run says of it."""

    recipe: Recipe
    environment: Environment
    is_finished: bool


def _read_begun(path: Path | str) -> _Begun:
    run = Run.open(path)
    if run.recipe.extension is not None:
        raise UserError(f"{path} is an extension: go on with reslab extend --resume {path}")
    return _Begun(run.recipe, run.environment, run.is_finished)


def _go_on(
    run: Run,
    begun: _Begun,
    team: Team,
    *,
    data_dir: Path | None,
    allow_remote: bool,
    silent: bool,
    safety: Safety,
) -> Run:
    recorded = begun.environment
    if recorded.deterministic:
        check_same_machine(recorded, describe_environment(device=team.device, seed=0, data=(), ranks=team.size))
    with run.locked(), strictly(recorded.deterministic):
        run.drop_parts()
        splits = team.in_turn(lambda: _read_splits(run.recipe, data_dir, team, allow_remote))
        # What an evaluation has added to the record is none of training's business.
        trained = tuple(data for data in recorded.data if data.split != "test")
        if tuple(map(describe_data, splits)) != trained[: len(splits)]:
            raise UserError(
                f"the data of {run.path} has changed since it was begun: its fingerprint differs, so train anew"
            )
        silent = silent or not team.is_first
        trainer = Trainer(run, splits, seed=recorded.seed, device=team.device, silent=silent, safety=safety, team=team)
        return trainer.catch_up().train()


def _describe_alike(splits: tuple[ImageSet, ...], *, team: Team) -> tuple[DataSet, ...]:
    """Describe the data. Raises: UserError where the first process has other data than this one."""
    own = tuple(map(describe_data, splits))
    first = team.from_first(lambda: own)
    if own != first[: len(own)]:
        raise UserError("the hosts of this run have different data: its fingerprint differs, so copy it anew")
    return first


def _read_splits(recipe: Recipe, data_dir: Path | None, team: Team, allow_remote: bool) -> tuple[ImageSet, ...]:
    """Read the training images, and in the process that validates those that are held out."""
    is_validating = recipe.validation and team.is_first
    names: tuple[SplitName, ...] = ("train", "validation") if is_validating else ("train",)
    splits = tuple(read_split(recipe, name, data_dir=data_dir, allow_remote=allow_remote) for name in names)
    channels = splits[0].images.shape[1]
    if recipe.standardize is not None and len(recipe.standardize.mean) != channels:
        raise UserError(
            f"recipe {recipe.name} standardises {len(recipe.standardize.mean)} channels but {recipe.data} has "
            f"{channels}: add --set standardize=null, which takes mean and deviation from the training images"
        )
    return splits

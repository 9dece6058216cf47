"""Start or resume a run: everything that is checked, locked and recorded before the first update.

Training, extensions and the scikit-learn classifier all use this module, and studies through the first two.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from reslab.data.images import ImageSet
from reslab.data.recipe_data import describe_change, describe_data, read_split, write_here
from reslab.errors import UserError, in_shell
from reslab.machine import kernels
from reslab.machine.precision import pick_precision
from reslab.recipe.recipe import Recipe
from reslab.records import DataSet, Environment, SplitName
from reslab.runs import Follower, Run
from reslab.runs.files import relative_to
from reslab.training.compiling import check_compiler, read_compile
from reslab.training.determinism import check_same_machine, own_generator, strictly
from reslab.training.distributed import Team
from reslab.training.environment import (
    continue_environment,
    describe_environment,
    keep_precision,
    tell_differences,
)
from reslab.training.progress import say
from reslab.training.state import read_state

Command = Literal["train", "extend"]
Splits = tuple[ImageSet, ...]


@dataclass(frozen=True)
class Computing:
    """How a new run computes, as requested by the user: see `train`."""

    compile: str = "auto"
    precision: str = "auto"
    deterministic: bool = False


class Begun(NamedTuple):
    """A run that this process may write, with its data: recorded and ready for the next update."""

    run: Run
    splits: Splits  # training images, and held-out images in the process that validates
    seed: int
    team: Team


# ---- a new run


def check_seed(seed: int) -> None:
    """Raises: UserError if PyTorch does not take it."""
    if not 0 <= seed < 2**64:
        raise UserError(f"seed {seed}: choose a whole number from 0 to {2**64 - 1}")


@contextmanager
def begin(
    recipe: Recipe,
    *,
    out: Path | str,
    seed: int,
    team: Team,
    read: Callable[[], Splits],
    computing: Computing,
    bring: Callable[[Run], None] | None = None,
    data_from: Path | None = None,
) -> Iterator[Begun]:
    """Make the run folder `out`, lock it for the block, and record the run; `bring` adds further files.

    Relative paths of the recipe's data are relative to `data_from`.

    Raises: UserError if seed, options, data or folder are unsuitable.
    """
    check_seed(seed)
    if computing.deterministic and computing.compile == "on":
        raise UserError("--deterministic excludes --compile on, since the order of sums in compiled code may vary")
    kernels.enable(team.device)
    compiled = read_compile(computing.compile, device=team.device)
    precision = pick_precision(computing.precision, device=team.device)
    splits = team.in_turn(read)
    # Recorded, so that later pictures, which may be brighter or darker, are read as these were.
    recipe = recipe.model_copy(update={"white": splits[0].white})
    environment = describe_environment(
        device=team.device,
        seed=seed,
        data=_describe_alike(splits, team=team),
        compiled="no" if computing.deterministic else compiled,
        precision=precision,
        deterministic=computing.deterministic,
        ranks=team.size,
        data_from=None if data_from is None else relative_to(data_from, out),
    )
    run = Run.create(out) if team.is_first else Follower(out, recipe)
    with run.beginning(), strictly(computing.deterministic), own_generator(team.device):
        run.write_environment(environment)
        for images in splits:
            run.write_digests(images.split, images.digests)
        if bring is not None:
            bring(run)
        run.write_recipe(recipe)  # last, because it makes the folder a run
        yield Begun(run, splits, seed, team)


def _describe_alike(splits: Splits, *, team: Team) -> tuple[DataSet, ...]:
    """Describe the data. Raises: UserError if it differs from that of the first process."""
    own = tuple(map(describe_data, splits))
    first = team.from_first(lambda: own)
    if own != first[: len(own)]:
        raise UserError("the hosts of this run have different data (the fingerprints differ): copy it again")
    return first


def read_splits(recipe: Recipe, *, data_dir: Path | None, allow_remote: bool, team: Team) -> Splits:
    """Read the training images, and the held-out images in the process that validates."""
    is_validating = recipe.validation and team.is_first
    names: tuple[SplitName, ...] = ("train", "validation") if is_validating else ("train",)
    splits = tuple(read_split(recipe, name, data_dir=data_dir, allow_remote=allow_remote) for name in names)
    channels = splits[0].images.shape[1]
    if recipe.standardize is not None and len(recipe.standardize.mean) != channels:
        mend = "add --set standardize=null, which takes mean and deviation from the training images"
        if recipe.imported is not None:
            mend = "name the data that the weights were trained on"
        raise UserError(
            f"recipe {recipe.name} standardises {len(recipe.standardize.mean)} channels but {recipe.data} has "
            f"{channels}: {mend}"
        )
    return splits


# ---- an existing run


class Recorded(NamedTuple):
    """A run as recorded in its folder."""

    path: Path
    recipe: Recipe
    environment: Environment
    data_from: Path | None
    is_finished: bool


def read_recorded(path: Path | str, *, command: Command, team: Team) -> Recorded:
    """Read the record of a run. Raises: UserError if it is not a run, or is one of the other command."""
    return team.from_first(lambda: _read_recorded(Path(path), command))


def _read_recorded(path: Path, command: Command) -> Recorded:
    run = Run.open(path)
    recipe = run.recipe
    if command == "train" and recipe.extension is not None:
        raise UserError(f"{path} is an extension: resume with reslab extend --resume {in_shell(path)}")
    if command == "extend" and recipe.extension is None:
        raise UserError(f"{path} is not an extension: resume with reslab train --resume {in_shell(path)}")
    return Recorded(path, recipe, run.environment, run.data_from, run.is_finished)


@contextmanager
def go_on(
    record: Recorded, *, team: Team, data_dir: Path | None, allow_remote: bool, threads: int | None, silent: bool
) -> Iterator[Begun]:
    """Lock a run for the block, check that its data is unchanged, and record what computes it from here on.

    It uses as many threads as before unless `threads` is given, and the same precision unless this processor lacks
    hardware support for it. Differences are printed and recorded.

    Raises: UserError if another process uses it, its data has changed, or it cannot continue here.
    """
    kernels.enable(team.device)
    run = Run(record.path) if team.is_first else Follower(record.path, record.recipe)
    with run.locked(), own_generator(team.device):
        updates = team.from_first(lambda: _count_updates(run))
        recorded = record.environment.until(updates)
        before, usual = recorded.newest, torch.get_num_threads()
        with _computing_with(threads or before.threads), strictly(recorded.deterministic):
            check_compiler(recorded.compiled, device=team.device)
            now = describe_environment(
                device=team.device,
                seed=recorded.seed,
                data=(),
                precision=keep_precision(recorded, device=team.device),
                ranks=team.size,
            )
            if recorded.deterministic:
                team.from_first(lambda: check_same_machine(before, now))
            splits = team.in_turn(
                lambda: read_splits(
                    write_here(record.recipe, data_from=record.data_from, data_dir=data_dir),
                    data_dir=data_dir,
                    allow_remote=allow_remote,
                    team=team,
                )
            )
            _check_data(record, splits)
            continued = continue_environment(recorded, now, updates=updates)
            if continued != record.environment:
                run.write_environment(continued)
            for line in tell_differences(before, now, updates=updates, usual_threads=usual):
                say(line, silent=silent or not team.is_first)
            try:
                yield Begun(run, splits, recorded.seed, team)
            except UserError:  # it cannot be resumed after all
                if team.is_first and _count_updates(run) == updates:
                    run.write_environment(record.environment)
                raise


def _count_updates(run: Run) -> int:
    return read_state(run.read_checkpoint()).updates if run.has_checkpoint else 0


@contextmanager
def _computing_with(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_data(record: Recorded, splits: Splits) -> None:
    for images in splits:
        if change := describe_change(images, recorded=record.environment.data):
            verb = "train" if record.recipe.extension is None else "extend"
            raise UserError(f"{change} since {record.path} was started: {verb} again")

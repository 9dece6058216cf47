"""The three splits of a recipe's data; `validation` is held out of the training split, always the same way."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import assert_never

import numpy as np

from reslab.data.addresses import is_remote
from reslab.data.check.problems import SplitReading, naming_all_problems
from reslab.data.expression import LocatedTerm, find_relative, find_remote, move_relative, parse
from reslab.data.framing import Form
from reslab.data.images import ImageSet
from reslab.data.load import check_classes, find_place, join_sets, load, load_validation
from reslab.data.split import hold_out
from reslab.errors import UserError
from reslab.recipe.recipe import Recipe
from reslab.records import DataSet, SplitName
from reslab.runs import Run
from reslab.runs.files import relative_to

HOLD_OUT_SEED = 0  # not the run's seed: runs with different seeds share their validation images


def read_split(
    recipe: Recipe, split: SplitName, *, data_dir: Path | None = None, allow_remote: bool = False
) -> ImageSet:
    """Read one split of `recipe.data`; only `evaluate` may ask for `test`, and never for a trial.

    The recipe may come from a file, so machines that it names are only contacted with `allow_remote`.
    Raises: UserError if the test split of a trial is requested, there is only one class, or the expression or the
    number of validation images is invalid.
    """
    check_remote(recipe.data, of=f"the recipe {recipe.name}", allow_remote=allow_remote)
    if split == "test" and recipe.trial:
        raise UserError(
            f"this run of {recipe.name} is a trial, made to choose between settings, so its test split stays closed: "
            "measure it with --splits train,validation, and train what you choose without --trial"
        )
    own: tuple[SplitName, ...] = ("train", "validation") if recipe.validation else ("train",)
    splits = ("test",) if split == "test" else own
    form = Form(recipe.image_size, recipe.resize, recipe.channels, recipe.white)
    with naming_all_problems(recipe.data, SplitReading(splits, form, recipe.skip_damaged, data_dir)):
        return _read_split(recipe, split, data_dir)


def _read_split(recipe: Recipe, split: SplitName, data_dir: Path | None) -> ImageSet:
    match split:
        case "test":
            return _load(recipe, "test", data_dir)
        case "train" | "validation":
            images = _load(recipe, "train", data_dir)
            if not recipe.validation:
                if split == "validation":
                    raise UserError(f"recipe {recipe.name} holds out no validation images: set validation above 0")
                return images
            held = _divide(recipe, images, data_dir)[split == "validation"]
            # Few images spread over all shards, and needed after every epoch: keep them in memory.
            is_scattered = held.is_streamed and split == "validation"
            return replace(held, images=held.images[:]) if is_scattered else held
        case _ as unreachable:
            assert_never(unreachable)


def _divide(recipe: Recipe, images: ImageSet, data_dir: Path | None) -> tuple[ImageSet, ImageSet]:
    """Return (training, validation); classes with validation images of their own keep all others for training."""
    own = None
    if recipe.stream is None:
        own = load_validation(
            recipe.data,
            classes=images.classes,
            data_dir=data_dir,
            form=Form(recipe.image_size, recipe.resize, recipe.channels, images.white),
            skip_damaged=recipe.skip_damaged,
        )
    if own is None:
        return hold_out(images, recipe.validation, seed=HOLD_OUT_SEED)
    brought = np.array(own.counts()) > 0
    is_whole = brought[images.labels.numpy()]
    if is_whole.all():
        return images, own
    rest = images.subset(np.flatnonzero(~is_whole))
    num_classes = sum(count > 0 for count in rest.counts())  # each of which needs a held-out image
    num = max(num_classes, round(recipe.validation * len(rest.labels) / len(images.labels)))
    training, held = hold_out(rest, num, seed=HOLD_OUT_SEED)
    return join_sets(images.subset(np.flatnonzero(is_whole)), training), join_sets(own, held)


def find_base(expression: str, data_dir: Path | None) -> Path | None:
    """Find the current base of an expression's relative paths; None if it has none."""
    paths = find_relative(expression)
    if data_dir is not None and any((data_dir / path).exists() for path in paths):
        return data_dir
    return Path() if paths else None


def recipe_here(run: Run, *, data_dir: Path | None = None) -> Recipe:
    """Return a run's recipe with relative paths rewritten for the current directory; see `write_here`."""
    return write_here(run.recipe, data_from=run.data_from, data_dir=data_dir)


def write_here(recipe: Recipe, *, data_from: Path | None, data_dir: Path | None) -> Recipe:
    """Rewrite paths relative to `data_from` for the current directory, except those that exist in `data_dir`."""
    if data_from is None:
        return recipe

    def move(path: Path) -> Path:
        recorded = data_from / path
        is_here = (data_dir is not None and (data_dir / path).exists()) or (path.exists() and not recorded.exists())
        return path if is_here or recorded.absolute() == path.absolute() else Path(relative_to(recorded, Path.cwd()))

    return recipe.model_copy(update={"data": move_relative(recipe.data, move)})


def read_split_of(run: Run, split: SplitName, *, data_dir: Path | None = None, allow_remote: bool = False) -> ImageSet:
    """Read one split of a run's data. Raises: UserError as `read_split` does, or if the pictures are gone."""
    with naming_lost_data(run, data_dir=data_dir):
        return read_split(recipe_here(run, data_dir=data_dir), split, data_dir=data_dir, allow_remote=allow_remote)


@contextmanager
def naming_lost_data(run: Run, *, data_dir: Path | None) -> Iterator[None]:
    """If reading a run's data fails in the block, say whether its pictures are gone."""
    try:
        yield
    except UserError:
        data = recipe_here(run, data_dir=data_dir).data
        places = [find_place(term.path, data_dir) for term in parse(data) if isinstance(term, LocatedTerm)]
        gone = next((place for place in places if not is_remote(str(place)) and not place.exists()), None)
        if gone is not None:
            elsewhere = ""
            if relative := find_relative(run.recipe.data):
                elsewhere = f", or pass by --data-dir the folder that contains {relative[0]}"
            raise UserError(
                f"the data that {run.path} was trained and tested on is gone from {os.path.abspath(gone)}: "
                f"put it back{elsewhere}; predict, export and report work without it"
            ) from None
        raise


def check_remote(expression: str, *, of: str, allow_remote: bool) -> None:
    """Raises: UserError if reading the data `of` a file would contact another machine and that is not allowed."""
    remote = find_remote(expression)
    if remote and not allow_remote:
        raise UserError(
            f"{of} takes images from {' and '.join(remote)}, which was named by a file and not by you: "
            "nothing was contacted; if you trust it, add --allow-remote (in Python, allow_remote=True)"
        )


def _load(recipe: Recipe, split: SplitName, data_dir: Path | None) -> ImageSet:
    merge = recipe.merge or (recipe.extension is not None and recipe.extension.merge)
    images = load(
        recipe.data,
        split,
        data_dir=data_dir,
        image_size=recipe.image_size,
        resize=recipe.resize,
        channels=recipe.channels,
        white=recipe.white,
        merge=merge,
        stream=recipe.stream,
        skip_damaged=recipe.skip_damaged,
    )
    check_classes(images)
    return images


def describe_change(images: ImageSet, *, recorded: Iterable[DataSet]) -> str | None:
    """Describe how a split differs from what a run recorded; None if it does not differ or was not recorded."""
    now = describe_data(images)
    before = next((data for data in recorded if data.split == now.split), None)
    if before is None or before.fingerprint == now.fingerprint:
        return None
    return (
        f"the {now.split} split of {before.expression} has changed: its fingerprint was {before.fingerprint[:12]}… and "
        f"is {now.fingerprint[:12]}…"
    )


def describe_data(images: ImageSet) -> DataSet:
    """Describe the images that a run has used, for its `environment.json`."""
    return DataSet(
        expression=images.expression,
        split=images.split,
        num_images=len(images.labels),
        fingerprint=images.fingerprint,
        num_damaged=images.num_damaged,
    )

"""Plan an extension as a recipe, from a finished run, its data and the user's wishes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from reslab.data.expression import find_taken_again, join_expressions, name_classes, parse
from reslab.data.images import ImageSet
from reslab.data.load import find_place
from reslab.data.recipe_data import naming_lost_data, read_split, recipe_here
from reslab.errors import UserError
from reslab.extension.learned import read_learned
from reslab.extension.memory import Memory
from reslab.extension.methods import (
    METHODS,
    backbone_rate,
    check_method,
    complete,
    derive_recipe,
    num_held_out,
)
from reslab.recipe.networks import Fusion
from reslab.recipe.recipe import NAMES, Extension, Flip, LinearHead, Method, Recipe, derive
from reslab.recipe.settings import with_settings
from reslab.records import Weights
from reslab.runs import Run
from reslab.training.budget import within
from reslab.training.seen import are_redrawn, has_seen_held_out
from reslab.words import listing, named

PRIORS = ("base", "used")
FORWARD_SHARE = 3 / 4  # of an update's time with a teacher, which adds one forward pass to three
FIXED = (
    "data",
    "model",
    "image_size",
    "channels",
    "white",
    "standardize",
    "resize",
    "validation",
    "trial",
    "extension",
)


@dataclass(frozen=True)
class Wish:
    """Options of an extension, as requested by the user."""

    data: str
    method: str
    old_data: str | int
    merge: bool
    prior: str
    keep_old: str | None
    settings: tuple[str, ...]
    minutes: float | None
    skip_damaged: bool


def plan_extension(
    run: Run,
    weights: Weights,
    wish: Wish,
    *,
    memory: Memory | None,
    data_dir: Path | None,
    device: torch.device,
    precision: str,
) -> Recipe:
    """Derive the recipe that extends a run as wished.

    Raises: UserError if its base, its data or the wishes do not allow it.
    """
    method = check_method(wish.method, old_data=wish.old_data, base=run.path, remembers=memory is not None)
    if not METHODS[method].remembers:
        memory = None
    _check_wish(run, weights, wish, method=method, remembers=memory is not None)
    base = run.recipe
    extension = Extension(
        method=method,
        base=run.weights_digest,
        base_test=_find_base_test(run),
        num_old=len(weights.classes),
        old_data=wish.old_data,  # type: ignore[arg-type]
        merge=wish.merge or bool(base.extension and base.extension.merge),
        keep_old=wish.keep_old,  # type: ignore[arg-type]
        backbone_lr=backbone_rate(method, old_data=wish.old_data),
        distill=1.0 if METHODS[method].distills else 0.0,
    )
    old = recipe_here(run, data_dir=data_dir).data
    if memory:  # the base's images may be gone
        old = name_classes(old, weights.classes)
    # What remembers its images may be given new ones in their folder.
    check_new(run, old, wish.data, known=() if memory else weights.classes, data_dir=data_dir)
    data = join_expressions(old, wish.data, old_limit=extension.old_limit)
    trained = run.base_recipe.epochs if base.extension else len(run.log)  # the first base's own log is not here
    draft = derive_recipe(run.base_recipe, trained=trained, weights=weights, extension=extension, data=data)
    redrawn = has_seen_held_out(run) if memory else are_redrawn(run, draft, keeps_share=True)
    draft = derive(draft, name=draft.name, skip_damaged=base.skip_damaged or wish.skip_damaged)
    with naming_lost_data(run, data_dir=data_dir):
        images = read_split(draft, "train", data_dir=data_dir, allow_remote=True)
    _check_fit(run, weights, images, wish)
    old_counts = memory.counts.tolist() if memory else _count_old(run, data_dir=data_dir)
    coming = _expect(wish, images, old_counts=old_counts, remembers=memory is not None)
    found = {"coming": coming, "redrawn": redrawn, "num_old_sources": len(parse(old))}
    draft = derive(draft, name=draft.name, extension=extension.model_copy(update=found))
    held_out = 0 if extension.old_data == "none" and not memory else num_held_out(run, images)
    recipe = complete(draft, num_images=len(images.labels), validation=held_out, trial=base.trial)
    if method == "joint":
        recipe = derive(recipe, name=recipe.name, early_stopping=run.base_recipe.early_stopping)
    recipe = with_own_settings(recipe, wish.settings)
    if wish.minutes is None:
        return recipe
    share = 1.0 if extension.distill == 0 else FORWARD_SHARE  # the rest is for the teacher
    tuned = recipe
    if isinstance(recipe.model, Fusion) and method == "finetune-fusion":  # the pretrained network is not trained
        tuned = derive(recipe, name=recipe.name, model=recipe.model.base)
    shortened = within(tuned, minutes=wish.minutes, share=share, images=images, device=device, precision=precision)
    return derive(shortened, name=recipe.name, model=recipe.model)


def _find_base_test(run: Run) -> str | None:
    """Return the fingerprint of the test split that the base was evaluated on, if the extension's can be compared."""
    if run.recipe.stream is not None:  # it covers the shards, and an extension does not stream
        return None
    return run.environment.fingerprint("test")


def check_new(run: Run, old: str, data: str, *, known: Sequence[str], data_dir: Path | None) -> None:
    """Refuse classes that a run with the `known` ones takes from the same source already."""
    if again := find_taken_again(old, data, known=known, locate=partial(find_place, data_dir=data_dir)):
        raise UserError(
            f"{run.path} has learned {named(again)} already, from the same images: leave that out of {data}"
        )


def _check_wish(run: Run, weights: Weights, wish: Wish, *, method: Method, remembers: bool) -> None:
    if wish.prior not in PRIORS and not (wish.prior.isdecimal() and int(wish.prior)):
        raise UserError(
            f"--prior {wish.prior}: choose from {', '.join(PRIORS)}, or write a whole number above 0, such as 10"
        )
    if wish.prior == "used" and wish.old_data == "none":
        raise UserError("--prior used goes by the old images used, and --old-data none uses none: omit --prior")
    if wish.prior != "base" and wish.old_data == "none" and not remembers:
        raise UserError(
            f"--prior {wish.prior} is chosen on old images, and {method} has none with --old-data none: omit --prior"
        )
    if wish.keep_old not in (None, "exact"):
        raise UserError(f"--keep-old {wish.keep_old}: write exact, or omit it")
    if wish.keep_old and method != "fusion":
        raise UserError(f"{method} changes the old classes' logits: choose --method fusion, or omit --keep-old")
    if wish.minutes is not None and METHODS[method].on_features:
        raise UserError(
            f"{method} has no training that could be shortened: omit --minutes, or choose a --method that fine-tunes"
        )
    if method == "finetune-fusion" and isinstance(weights.model, Fusion):
        raise UserError(f"{run.path} is joined with a pretrained network already: choose finetune-distill or fusion")
    if method == "joint" and isinstance(run.base_recipe.model, Fusion) and run.base_recipe.pretrained:
        raise UserError(
            f"{run.path} blends a trained network with a pretrained one, and no recipe trains both from scratch: "
            "choose another --method, or put all pictures into one folder and run reslab fit again"
        )
    if run.recipe.trial and wish.old_data == "none":
        raise UserError(
            f"{run.path} is a trial, which is measured on validation images, and --old-data none holds none out: "
            "extend a run that is not a trial"
        )


def with_own_settings(recipe: Recipe, settings: tuple[str, ...]) -> Recipe:
    """Apply settings of the training. Raises: UserError if the method does not train, or they would change the task."""
    if settings and isinstance(recipe.optimizer, LinearHead):
        raise UserError("fusion solves its head and trains nothing: omit --set and --epochs")
    changed = with_settings(recipe, settings)
    changed = with_settings(recipe.lasting(changed.epochs), settings)  # what is counted in epochs goes by their number
    for field in FIXED:
        if getattr(changed, field) != getattr(recipe, field):
            raise UserError(f"--set {field}: an extension takes it from its base and its data, so omit it")
    if recipe.extension is not None:
        _check_taken(changed, like=recipe, method=recipe.extension.method)
    return changed


def _check_taken(changed: Recipe, *, like: Recipe, method: Method) -> None:
    """Raises: UserError if a setting changes what a method that trains the head alone does not take."""
    taken = METHODS[method].settings
    if taken is None:
        return
    for field in Recipe.model_fields:
        if field not in (*taken, *NAMES) and getattr(changed, field) != getattr(like, field):
            raise UserError(f"--set {field}: {method} takes only {listing(taken)}: omit it")
    rate = changed.optimizer.peak_lr
    if changed.optimizer != like.optimizer.model_copy(update={"peak_lr": rate}):
        raise UserError(f"--set optimizer: {method} uses only optimizer.peak_lr: omit the rest")
    if any(part != Flip() for part in changed.augment):
        raise UserError(f"--set augment: {method} can only mirror, once and for all: give a plain flip, or []")


def _count_old(run: Run, *, data_dir: Path | None) -> list[int]:
    """Count the images of each class that the base was trained on or held out, which must be unchanged."""
    parts = [part.counts() for part in read_learned(run, data_dir=data_dir) if part is not None]
    return [sum(counts) for counts in zip(*parts, strict=True)]


def _expect(wish: Wish, images: ImageSet, *, old_counts: list[int], remembers: bool) -> tuple[int, ...] | None:
    """Return the expected frequencies of the classes (K,), or None if they are as in training."""
    counts, num_old = images.counts(), len(old_counts)
    if wish.prior.isdecimal():
        return (int(wish.prior),) * num_old + (1,) * (len(counts) - num_old)
    if remembers:
        return (*old_counts, *counts[num_old:])
    if wish.prior == "used" or not isinstance(wish.old_data, int):
        return None
    for label, count in enumerate(old_counts):  # as if all of the base's images were used
        counts[label] += count - min(count, wish.old_data)
    return tuple(counts)


def _check_fit(run: Run, weights: Weights, images: ImageSet, wish: Wish) -> None:
    num_old = len(weights.classes)
    if images.classes[:num_old] != weights.classes:
        raise UserError(f"{run.path} was trained on other classes than {run.recipe.data} has now: train it again")
    new = images.classes[num_old:]
    if not new:
        raise UserError(
            f"{wish.data!r} has no new class: {run.path} knows {', '.join(weights.classes)}; to train on with more "
            "pictures of these, add --merge"
        )
    if wish.old_data != "none" and 0 in images.counts()[:num_old]:
        raise UserError(
            f"{run.path} has learned some of its classes without images, which {run.recipe.data!r} therefore leaves "
            "out: extend it by --method fusion --old-data none too"
        )
    if empty := [name for name, num in zip(images.classes, images.counts(), strict=True) if not num and name in new]:
        raise UserError(f"{wish.data!r} has no training images of {named(empty)}: raise its limit of 0")
    if images.images.shape[1] != weights.channels:
        raise UserError(
            f"{run.path} takes images of {weights.channels} channels, but those of {wish.data!r} have "
            f"{images.images.shape[1]}: convert them"
        )

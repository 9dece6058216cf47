"""Held-out images that earlier weights were trained on, which say nothing about new images.

A run that starts from other weights holds out images anew. Pictures are compared by their digests. Where there are
none, as for official images, which of them are held out depends on their source, their share and their limit, so that
these are compared.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reslab.data.expression import LocatedTerm, NamedTerm, Term, parse
from reslab.data.images import ImageSet
from reslab.errors import UserError
from reslab.network.familiarity import Neighbours
from reslab.network.network import Network
from reslab.recipe.recipe import Recipe
from reslab.runs import Run


def are_redrawn(source: Run, recipe: Recipe, *, keeps_share: bool = False) -> bool:
    """Return whether images without digests that `source` was trained on may be held out by `recipe`.

    With `keeps_share` the share held out of each class is that of `source`.
    """
    is_hashed = "train" in source.digests
    theirs = [each for data in (source.recipe.data, source.base_recipe.data) for each in _list(data, is_hashed)]
    ours = [each for each in _list(recipe.data, is_hashed) if each.limit != 0]
    shared = [(own, other) for own in ours for other in theirs if own.overlaps(other)]
    takes_more = not keeps_share and recipe.validation > source.recipe.validation
    return bool(shared) and (_has_seen_its_own(source) or takes_more or any(own != other for own, other in shared))


class _Taken(NamedTuple):
    """Classes of an archive, at most `limit` training images of each; what is packed may be of any archive."""

    archive: str
    classes: tuple[str, ...]  # none: all
    limit: int | None

    def overlaps(self, other: "_Taken") -> bool:
        archives = {self.archive, other.archive}
        is_whole = not self.classes or not other.classes
        return "shards" in archives or (
            len(archives) == 1 and (is_whole or bool(set(self.classes) & set(other.classes)))
        )


def _list(expression: str, is_hashed: bool) -> list[_Taken]:
    """List the sources whose images have no digests, or all if none were recorded."""
    try:
        terms = parse(expression)
    except UserError:  # of arrays that only a program had
        return []
    return [_take(term) for term in terms if not (is_hashed and isinstance(term, LocatedTerm))]


def _take(term: Term) -> _Taken:
    if isinstance(term, NamedTerm) and not term.source.startswith("cifar100"):
        return _Taken(term.source, term.classes, term.limit)
    if isinstance(term, NamedTerm):  # whose classes have two names
        return _Taken("cifar100", () if term.source == "cifar100-coarse" else term.classes, term.limit)
    return _Taken("own" if isinstance(term, LocatedTerm) else "shards", (), term.limit)


def has_seen_held_out(source: Run) -> bool:
    """Return whether `source` holds no images out, or it or a run before it was trained on some of them."""
    held_out, trained = (source.digests.get(name) for name in ("validation", "base"))
    is_known = held_out is not None and trained is not None and bool(np.isin(held_out[held_out > 0], trained).any())
    return is_known or _has_seen_its_own(source)


def _has_seen_its_own(source: Run) -> bool:
    """Return whether that is so, or cannot be excluded, as far as images without digests are concerned."""
    recipe = source.recipe
    before = recipe.extension or recipe.start
    is_streamed = recipe.stream is not None  # in an order of its own
    has_unknown = recipe.start is not None and not recipe.start.head  # on other data
    return (
        not (recipe.validation and source.base_recipe.validation)
        or is_streamed
        or has_unknown
        or bool(before and before.redrawn)
    )


def find_unseen(
    held_out: ImageSet, *, trained: NDArray[np.uint64] | None, redrawn: bool, num_old: int
) -> ImageSet | None:
    """Return the held-out images that nothing was trained on; None if one of the first `num_old` classes has none left.

    `trained` are the digests of what was trained on, if they were recorded. With `redrawn` no image of those classes
    counts that has none.
    """
    labels = held_out.labels.numpy()
    digests = np.zeros(len(labels), dtype=np.uint64)
    if trained is not None and held_out.digests is not None:
        digests = held_out.digests
    known = np.empty(0, dtype=np.uint64) if trained is None else trained[trained > 0]
    is_old = labels < num_old
    is_seen = np.isin(digests, known) | (redrawn & is_old & (digests == 0))
    if set(labels[is_old]) > set(labels[is_old & ~is_seen]):
        return None
    return held_out.subset(np.flatnonzero(~is_seen)) if is_seen.any() else held_out


def leave_out_seen(held_out: ImageSet, run: Run) -> ImageSet | None:
    """Return the held-out images that the weights `run` started from, or its base, have not learned from.

    None if one of their classes has none left. Raises: UserError if an epoch, or a trial, would be judged by them.
    """
    recipe = run.recipe
    if (extension := recipe.extension) is not None:
        answers_anew = extension.method == "joint" or (has_frozen_base(run) and not extension.keep_old)
        if answers_anew or extension.old_data == "none":
            return held_out
        redrawn, num_old = extension.redrawn, extension.num_old
    elif recipe.start is not None:
        redrawn, num_old = recipe.start.redrawn, len(held_out.classes)
    else:
        return held_out
    unseen = find_unseen(held_out, trained=run.digests.get("base"), redrawn=redrawn, num_old=num_old)
    if unseen is None and (recipe.trial or recipe.early_stopping):
        what, how = ("a trial", "trial=false") if recipe.trial else ("early stopping", "early_stopping=null")
        remedy = f"train again, from weights that were trained with the same images held out, or with --set {how}"
        if extension is not None and recipe.trial:  # as its base is
            remedy = "extend with --old-data all, or extend a run that is not a trial"
        raise UserError(
            f"{describe_earlier(run)} has learned from the held-out images, by which {what} judges: {remedy}"
        )
    return unseen


def has_frozen_base(run: Run) -> bool:
    """Return whether an extension uses layers that no image has trained, as `reslab fit` leaves them."""
    if run.recipe.extension is None or run.recipe.extension.method != "fusion" or not run.base_path.exists():
        return False
    familiarity = Network.load(run.base_path, device="cpu").familiarity
    return familiarity is not None and isinstance(familiarity.measure, Neighbours)


def describe_earlier(run: Run) -> str:
    """Name the weights that a run started from."""
    return "the base" if run.recipe.start is None else run.recipe.start.file

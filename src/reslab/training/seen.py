"""Held-out images that earlier weights were trained on, which say nothing about new images.

A run that starts from other weights holds out images anew. Pictures are compared by their digests. Official images have
none: which of them are held out depends on their expression and number alone, so that both are compared.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reslab.data.expression import LocatedTerm, parse
from reslab.data.images import ImageSet
from reslab.recipe.recipe import Recipe
from reslab.runs import Run


def are_redrawn(source: Run, recipe: Recipe) -> bool:
    """Return whether images without digests that `source` was trained on may be held out by `recipe`."""
    theirs, ours = (_list_undigested(each.data) for each in (source.recipe, recipe))
    shared = [(own, other) for own in ours for other in theirs if own.overlaps(other)]
    more = recipe.data == source.recipe.data and recipe.validation > source.recipe.validation
    return bool(shared) and (_has_seen_its_own(source) or more or any(own != other for own, other in shared))


class _Undigested(NamedTuple):
    """Classes of an official set, or of shards, which may hold one, at most `limit` training images of each."""

    source: str
    classes: tuple[str, ...]  # none: all
    limit: int | None

    def overlaps(self, other: "_Undigested") -> bool:
        is_whole = not self.classes or not other.classes
        return self.source == other.source and (is_whole or bool(set(self.classes) & set(other.classes)))


def _list_undigested(expression: str) -> list[_Undigested]:
    return [
        _Undigested(term.source, getattr(term, "classes", ()), term.limit)
        for term in parse(expression)
        if not isinstance(term, LocatedTerm) and term.limit != 0
    ]


def has_seen_held_out(source: Run) -> bool:
    """Return whether `source` holds no images out, or it or a run before it was trained on some of them."""
    held_out, trained = (source.digests.get(name) for name in ("validation", "base"))
    is_known = held_out is not None and trained is not None and bool(np.isin(held_out[held_out > 0], trained).any())
    return is_known or _has_seen_its_own(source)


def _has_seen_its_own(source: Run) -> bool:
    """Return whether that is so as far as images without digests are concerned."""
    recipe = source.recipe
    before = recipe.extension or recipe.start
    is_streamed = recipe.stream is not None  # in an order of its own
    return not (recipe.validation and source.base_recipe.validation) or is_streamed or bool(before and before.redrawn)


def find_unseen(
    held_out: ImageSet, *, trained: NDArray[np.uint64] | None, redrawn: bool, num_old: int
) -> ImageSet | None:
    """Return the held-out images that nothing was trained on; None if one of the first `num_old` classes has none left.

    `trained` are the digests of what was trained on. With `redrawn` no image of those classes without digest counts.
    """
    labels = held_out.labels.numpy()
    digests = np.zeros(len(labels), dtype=np.uint64) if held_out.digests is None else held_out.digests
    known = np.empty(0, dtype=np.uint64) if trained is None else trained[trained > 0]
    is_old = labels < num_old
    is_seen = np.isin(digests, known) | (redrawn & is_old & (digests == 0))
    if set(labels[is_old]) > set(labels[is_old & ~is_seen]):
        return None
    return held_out.subset(np.flatnonzero(~is_seen)) if is_seen.any() else held_out

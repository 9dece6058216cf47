"""The published row that a run is compared with: the same architecture on the same data, the nearest in size.

Sources: the recipes that are shipped with a published figure; KellerJordan/cifar10-airbench, its README at commit
00e4a0a, for the fast network, whose figure is a mean with test-time augmentation.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from reslab.language import say
from reslab.recipe.networks import FastConv, Model
from reslab.recipe.published import CIFAR10_NETWORKS, CIFAR10_SOURCE
from reslab.recipe.recipe import Published, Recipe
from reslab.recipe.shipped import resnet_papers, zoo
from reslab.records import Estimate, SplitFigures
from reslab.words import between, counted


@dataclass(frozen=True)
class PublishedRow:
    """A published result; `kin` is what its network shares with the run: all, the architecture, or only the size."""

    network: str
    published: Published
    epochs: int | None
    kin: Literal["same", "architecture", "size"]
    augmented: bool = False  # whether its accuracy is one with test-time augmentation

    @property
    def accuracy(self) -> str:
        """The published accuracy, and after how many epochs."""
        figure = between(self.published.low, self.published.high)
        if self.augmented:
            return say("{figure} with test-time augmentation", figure=figure)
        return (
            say("{figure} after {epochs}", figure=figure, epochs=counted(self.epochs, "epoch"))
            if self.epochs
            else figure
        )

    def judged(self, figures: SplitFigures) -> Estimate | None:
        """Return the run's accuracy measured in the same way as the published one; None if there is none."""
        if not self.augmented:
            return figures.accuracy
        augmented = figures.test_time_augmentation
        return augmented.figures.accuracy if augmented else None


def nearest_row(recipe: Recipe, *, num_parameters: int) -> PublishedRow | None:
    """Find the published row that is nearest to a recipe; None if nothing is published for its data."""
    rows = sorted(_relatives(recipe), key=lambda pair: pair[0])
    own = recipe.published
    if own is not None:
        same = (row for _, row in rows if row.kin == "same" and row.published.low == own.low)
        found = next(same, PublishedRow(_name(recipe.model), own, None, "same"))
        return replace(found, published=own)
    if rows:
        return rows[0][1]
    return _nearest_in_size(num_parameters) if recipe.data == "cifar10" else None


def difference(row: PublishedRow, accuracy: Estimate) -> Estimate:
    """Subtract the published accuracy, or the nearer end of its range, from a measured one."""
    published = min(max(accuracy.value, row.published.low), row.published.high)
    value, low, high = (each - published for each in (accuracy.value, accuracy.low, accuracy.high))
    return Estimate(value=value, low=low, high=high)


def _relatives(recipe: Recipe) -> Iterator[tuple[float, PublishedRow]]:
    """Yield the rows of the same architecture and data, each with its distance in size."""
    for known in (*zoo.RECIPES, *resnet_papers.RECIPES):
        if known.published and known.data == recipe.data and known.model.kind == recipe.model.kind:
            named = zoo.PUBLISHED[known.name].network if known.name in zoo.PUBLISHED else _name(known.model)
            row = PublishedRow(named, known.published, known.epochs, _kin(recipe.model, known.model))
            yield _distance(recipe.model, known.model), row
    if recipe.data == "cifar10" and isinstance(recipe.model, FastConv):
        published = Published(low=0.9405, high=0.9405, source="KellerJordan/cifar10-airbench, README")
        row = PublishedRow("airbench94", published, 8, _kin(recipe.model, FastConv()), augmented=True)
        yield _distance(recipe.model, FastConv()), row


def _kin(one: Model, other: Model) -> Literal["same", "architecture"]:
    """Say what two networks of one kind share: every option but Keras' padding, or only the architecture."""
    first, second = (model.model_dump(exclude={"keras_padding"}) for model in (one, other))
    return "same" if first == second else "architecture"


def _distance(one: Model, other: Model) -> float:
    return sum(abs(math.log(a / b)) for a, b in zip(_sizes(one), _sizes(other), strict=True))


def _sizes(model: Model) -> list[int]:
    """List the depths and widths of a network; None counts as 1."""
    values: list[int] = []
    for value in model.model_dump().values():
        parts = value if isinstance(value, tuple) else (value,)
        values += [part for part in parts if isinstance(part, int) and not isinstance(part, bool)]
        values += [1 for part in parts if part is None]
    return values


def _nearest_in_size(num_parameters: int) -> PublishedRow:
    known = min(CIFAR10_NETWORKS, key=lambda each: abs(math.log(each.parameters / num_parameters)))
    accuracy = known.test_accuracy
    published = Published(low=accuracy, high=accuracy, source=f"{CIFAR10_SOURCE}, README")
    return PublishedRow(known.network, published, known.epochs, "size")


def _name(model: Model) -> str:
    """Name a network with its size, as in ResNet-20."""
    _, kind, size = model.label.rpartition(model.kind)
    return f"{model.title}-{size}" if kind and size else model.title

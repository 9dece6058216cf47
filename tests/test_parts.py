"""Every part of a recipe has its page, whose example is a recipe that uses it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from reslab.recipe.networks import FastConv
from reslab.recipe.recipe import AdamW, Flip, Muon, Optimizer, Recipe, TrivialAugment, parse_recipe
from reslab.recipe.shipped import RECIPES
from reslab.recipe.value import Part

ROOT = Path(__file__).parents[1]
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs/parts").glob("*.md"))}
# Optional fields that hold a part and are told of elsewhere.
ELSEWHERE = {"published", "standardize", "augment", "warm_until", "extension", "imported", "start"}

USED = {
    "adamw": lambda recipe: isinstance(recipe.optimizer, AdamW) and recipe.optimizer.layer_decay < 1,
    "augmenting": lambda recipe: any(isinstance(part, TrivialAugment) for part in recipe.augment),
    "mixing": lambda recipe: recipe.mixing,
    "stopping": lambda recipe: recipe.early_stopping,
    "weights": lambda recipe: recipe.class_weights,
    "chunks": lambda recipe: recipe.micro_batch_size,
    "flip": lambda recipe: any(isinstance(part, Flip) and part.alternate for part in recipe.augment),
    "freezing": lambda recipe: recipe.freeze,
    "growth": lambda recipe: recipe.progressive_resizing,
    "muon": lambda recipe: isinstance(recipe.optimizer, Muon),
    "sampling": lambda recipe: recipe.sampling,
    "whitening": lambda recipe: isinstance(recipe.model, FastConv),
}


def example(page: str) -> dict[str, Any]:
    (block,) = re.findall(r"```json\n(.*?)```", PAGES[page], re.DOTALL)
    return json.loads(block)


def members(annotation: Any) -> Iterator[Any]:
    """Go through the types that an annotation is made of."""
    yield annotation
    for inside in get_args(annotation):
        yield from members(inside)


def is_part(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Part)


def test_every_part_has_its_page_and_every_page_its_part() -> None:
    assert PAGES.keys() == USED.keys()
    optional = {
        name
        for name, field in Recipe.model_fields.items()
        if not field.is_required() and any(map(is_part, members(field.annotation)))
    }
    assert optional >= ELSEWHERE
    explained = {field for page in PAGES for field in example(page)}
    assert optional - ELSEWHERE <= explained, "write a page in docs/parts"
    optimizers = {part.model_fields["kind"].default for part in members(Optimizer) if is_part(part)}
    explained = {example(page)["optimizer"]["kind"] for page in ("muon", "adamw")}
    assert optimizers - explained == {"sgd", "linear_head"}  # the latter is told of by the page of fit


@pytest.mark.parametrize("page", PAGES)
def test_the_example_of_a_page_makes_a_recipe_use_the_part(page: str) -> None:
    base = RECIPES["lab-resnet32"]
    recipe = parse_recipe(base.model_dump(mode="json") | example(page), where=page)
    assert USED[page](recipe)
    assert not USED[page](base)
    epochs = [*(part.epoch for part in recipe.freeze), *(part.epoch for part in recipe.progressive_resizing)]
    assert all(epoch < recipe.epochs for epoch in epochs)

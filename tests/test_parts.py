"""Every part of a recipe has its page, whose example is a recipe that uses it, and whose figures are committed ones."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

import pytest

from reslab.recipe.networks import FastConv
from reslab.recipe.recipe import Flip, Muon, Optimizer, Recipe, Sgd, parse_recipe, read_recipe
from reslab.recipe.shipped import RECIPES
from reslab.recipe.value import Part

ROOT = Path(__file__).parents[1]
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs/parts").glob("*.md"))}
SPEED = (ROOT / "docs/speed.md").read_text(encoding="utf-8")
HEADINGS = ["What it gains"]
# Optional fields that hold a part and are told of elsewhere.
ELSEWHERE = {"published", "standardize", "augment", "warm_until", "extension"}

USED = {
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
    assert optimizers - {Sgd.model_fields["kind"].default} == {example("muon")["optimizer"]["kind"]}


@pytest.mark.parametrize("page", PAGES)
def test_the_example_of_a_page_makes_a_recipe_use_the_part(page: str) -> None:
    base = RECIPES["lab-resnet32"]
    recipe = parse_recipe(base.model_dump(mode="json") | example(page), where=page)
    assert USED[page](recipe)
    assert not USED[page](base)
    for part in (*recipe.freeze, *recipe.progressive_resizing):
        assert part.epoch < recipe.epochs


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_where_the_part_comes_from_and_on_what_evidence(page: str) -> None:
    text = PAGES[page]
    assert "**Source**: " in text
    assert "**Differs from it**: " in text
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    evidence = " ".join(text.partition("## What it gains")[2].split())
    measured = re.search(r"\]\(\.\./\.\./(?:benchmarks/\w+\.json|results/[\w/-]+)\)", evidence)
    assert measured or "not measured alone" in evidence.lower()
    assert measured or not re.search(r"\d", re.sub(r"\]\([^)]*\)|`[^`]*`", "", evidence)), "a figure without a file"
    (field,) = [name for name in example(page) if name in re.findall(r"`(\w+)`", row(page))]
    assert field in Recipe.model_fields


def row(page: str) -> str:
    (found,) = [line for line in SPEED.splitlines() if f"](parts/{page}.md) |" in line]
    return found


def test_what_growing_images_save_is_what_the_trial_took() -> None:
    trial = ROOT / "results/chosen-by-test/fast94-8-epochs"
    sizes = [each.image_size for each in read_recipe(trial / "recipe.json").progressive_resizing]
    seconds = [json.loads(line)["seconds"] for line in (trial / "log.jsonl").read_text().splitlines()]
    whole = fmean(taken for taken, size in zip(seconds, sizes, strict=True) if size == 32)
    words = " ".join(PAGES["growth"].split())
    assert f"at 16 pixels took {seconds[0]:.0f} s, the two at 32 pixels {whole:.0f} s on average" in words
    assert f"all eight {sum(seconds):.0f} s: a quarter less" in words
    assert 1 - sum(seconds) / (len(seconds) * whole) == pytest.approx(0.25, abs=0.01)


def test_what_muon_gains_is_what_its_trial_gained() -> None:
    rates, shares = [], []
    for name in ("muon", "sgd"):
        folder = f"results/trials/resnet20-{name}-12-epochs"
        log = [json.loads(line) for line in (ROOT / folder / "log.jsonl").read_text().splitlines()]
        (found,) = [line for line in PAGES["muon"].splitlines() if f"]({'../' * 2}{folder})" in line]
        assert found.endswith(f"| {100 * log[-1]['validation_accuracy']:.2f} % | {log[-1]['train_loss']:.3f} |")
        assert len(log) == 12
        recipe = json.loads((ROOT / folder / "recipe.json").read_text())
        assert (recipe["validation"], recipe["model"]["depth"]) == (5000, 20)
        rates.append(max(epoch["images_per_second"] for epoch in log))
        shares.append(f"{100 * log[-1]['validation_accuracy']:.2f} %")
    assert " against ".join(shares) in (ROOT / "benchmarks/log.md").read_text(encoding="utf-8")
    assert rates[0] == pytest.approx(rates[1], rel=0.05)

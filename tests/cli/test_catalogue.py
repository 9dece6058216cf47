"""The lists of what is shipped: what networks cost, and what was published beside the recipes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reslab.cli import catalogue
from reslab.data.expression import CLASSES
from reslab.data.sources.catalog import CIFAR100_SUPERCLASSES
from reslab.recipe.networks import ImageNetResNet, Plain
from reslab.recipe.recipe import Recipe
from reslab.recipe.shipped.measured import MEASURED

Command = Callable[..., Any]
NAMES = ("plain8", "tiny18")


@pytest.fixture(autouse=True)
def _few_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = ImageNetResNet(depth=18, width=8)
    monkeypatch.setattr("reslab.recipe.networks.MODELS", {"plain8": Plain(depth=8), "tiny18": tiny})


def test_networks_are_counted_at_the_size_of_image_that_they_are_for(reslab: Command) -> None:
    found = json.loads(reslab("models", "--json").out)
    assert list(found) == list(NAMES)
    assert [row["image_size"] for row in found.values()] == [32, 224]
    # 3x3 in the stem and twice in each of three stages, the later ones on every second and fourth pixel.
    assert found["plain8"]["receptive_field"] == 3 + 4 + (2 + 4) + (4 + 8)
    assert "seconds_per_epoch" not in found["plain8"]


def test_one_network_is_timed(reslab: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("reslab.machine.timing.time_update", lambda model, batch: asked.append(batch) or 0.064)
    outcome = reslab("models", "plain8", "--measure", "--device", "cpu", "--channels", "1")
    assert "tiny18" not in outcome.out
    assert "seconds for 50,000 images" in outcome.out
    assert outcome.out.split()[-1] == "100"  # 50,000 images of 2 ms
    assert asked == [(catalogue.BATCH, 1, 32, 32)]


def test_an_unknown_network_is_told_the_nearest(refuse: Command) -> None:
    assert refuse("models", "plain9") == "unknown network 'plain9': did you mean 'plain8'? see reslab models"


@pytest.mark.parametrize("option", ["--num-classes", "--channels"])
def test_a_number_beyond_all_data_is_refused(refuse: Command, option: str) -> None:
    assert f"Invalid value for '{option}'" in refuse("models", "plain8", option, 10**20)


def test_recipes_stand_beside_what_was_published_and_measured(reslab: Command) -> None:
    shown = reslab("recipes").out.replace("\u00a0", " ")
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line}
    assert rows["zoo-wrn16-8"] == ["cifar10", "200", "95.13", "%", "-", "-"]
    reached = MEASURED["fast94"]
    assert rows["fast94"] == ["cifar10", "10", "-", f"{100 * reached.accuracy:.2f}", "%", f"{reached.minutes:.0f}"]
    assert reached.processor in shown


def test_minutes_on_this_machine_come_from_the_time_of_an_update(
    reslab: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reslab.machine.timing.time_update", lambda model, batch: 0.032)
    shown = reslab("recipes", "resnet-20", "--measure").out
    assert shown.splitlines()[1].split()[-1] == "here"
    assert shown.splitlines()[3].split()[-1] == "137"  # minutes: 164 epochs of 50,000 images at a millisecond
    assert json.loads(reslab("recipes", "resnet-20", "--measure", "--json").out) == {
        "resnet-20": pytest.approx(136.7, 1e-3)
    }


def test_only_minutes_are_printed_where_they_were_asked_for(reslab: Command, small_recipe: Recipe) -> None:
    Path("my.json").write_text(small_recipe.model_dump_json())
    assert json.loads(reslab("recipes", "my.json", "--measure", "--json").out) == {}
    told = reslab("recipes", "my.json", "--measure").out.splitlines()[-1]
    assert told == f"Not estimated: {small_recipe.name}, since its number of images is not known."


def test_data_list_names_every_source_and_superclass(reslab: Command, refuse: Command) -> None:
    shown = reslab("data", "list").out
    for name in (*CLASSES, "folder:", "csv:", "npz:", "shards:", *CIFAR100_SUPERCLASSES):
        assert f"\n{name}" in shown
    assert "reptiles                        crocodile, dinosaur, lizard, snake, turtle" in shown
    assert reslab("data", "list", "digits").out == "digits: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9\n"
    assert json.loads(reslab("data", "list", "--json").out)["superclasses"]["fish"][0] == "aquarium_fish"
    assert "has no list of classes: choose cifar10, cifar100" in refuse("data", "list", "folder:x")

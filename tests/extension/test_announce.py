"""What an extension says before it begins: its classes, and how long it will take by the clock and by its work."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reslab.data.images import ImageSet
from reslab.data.load import load
from reslab.data.recipe_data import read_split
from reslab.extension import announce, extend
from reslab.network.network import Network
from reslab.recipe.networks import EfficientNetLite, Fusion, PreActResNet
from reslab.recipe.recipe import Flip, Freeze, LinearHead, Recipe, Resize, Sampling, derive
from reslab.runs import Run

ALL = (Freeze(parameters="", epoch=0),)
HALF = (Resize(epoch=0, image_size=4), Resize(epoch=2, image_size=8))  # (1/4 + 1/4 + 1) / 3 of the pixels


@pytest.mark.parametrize(
    ("changes", "images"),
    [
        ({"freeze": ALL, "augment": ()}, 111),
        ({"freeze": ALL, "augment": (Flip(),)}, 2 * 111),
        ({}, 3 * 3 * 111),  # three epochs, each as much as three passes forward
        ({"epochs": 5, "sampling": Sampling(images_per_epoch=50)}, 3 * 5 * 50),
        ({"progressive_resizing": HALF}, 3 * 111 * 1.5),
        ({"freeze": (Freeze(parameters="stem", epoch=1),)}, 3 * 3 * 111),
    ],
)
def test_the_time_is_that_of_the_images_of_all_epochs(
    base: Run, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], images: float
) -> None:
    """On a clock that a pass forward alone moves: the first is slower and not counted."""
    network, clock, passes = Network.load(base.path, device="cpu"), [0.0], [1.0, 0.01]

    def features(batch: Tensor) -> Tensor:
        clock[0] += passes.pop(0) * len(batch)
        return batch

    monkeypatch.setattr(network.module, "features", features)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    recipe = derive(small_recipe, name="changed", **changes)
    seconds = announce.estimate_seconds(network, recipe, images=read_split(recipe, "train"))
    assert seconds == pytest.approx(0.01 * images)


@pytest.mark.parametrize("num_images", [1, 2, 3])
def test_the_time_of_a_fusion_of_a_few_new_images_is_estimated(base: Run, num_images: int) -> None:
    model = Fusion(base=PreActResNet(depth=8), pretrained=EfficientNetLite(resize=32))
    recipe = derive(base.recipe, name="changed", model=model, optimizer=LinearHead(shrinkage="chosen"))
    images = read_split(base.recipe, "train").subset(torch.arange(num_images))
    assert announce.estimate_seconds(Network.load(base.path, device="cpu"), recipe, images=images) > 0


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "1.0 s"), (150.0, "2 min 30 s")])
def test_an_extension_says_it_before_it_trains(
    base: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seconds: float,
    said: str,
) -> None:
    monkeypatch.setattr(announce, "estimate_seconds", lambda *arguments, **options: seconds)
    extend(base.path, data="digits:0@20", method="nearest-mean", out=tmp_path / "more", silent=False)
    told = capsys.readouterr().err
    assert f"nearest-mean will take about {said} here" in told
    assert told.index("will take about") < told.index("epoch   1/1")


def test_classes_of_equal_size_are_not_compared() -> None:
    images = ImageSet(torch.zeros(9, 3, 4, 4).byte(), torch.arange(9) % 3, ("a", "b", "c"), "x", "train")
    _, old = announce.describe_classes(images, num_old=2)
    assert old == "old classes: 2, with 3 training images each"
    _, old = announce.describe_classes(images.subset(torch.arange(8)), num_old=2)
    assert old.endswith("with 3 training images each; the largest class has 1.5 times as many as the smallest new one")


def test_copies_among_old_and_new_classes_are_described_unless_too_many_are_to_be_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digits = load("digits:1,4", "train", image_size=8)
    again = digits.subset(np.arange(3))
    labels = torch.cat([digits.labels, torch.full((3,), 2)])
    images = torch.cat([digits.images[:], again.images[:]])
    both = replace(digits, images=images, labels=labels, classes=("1", "4", "new"), keys=None, digests=None)
    found = announce.describe_overlaps(both, num_old=2)
    assert found is not None
    assert "3" in found
    monkeypatch.setattr(announce, "MOST_PAIRS", 100)
    assert "were not searched" in str(announce.describe_overlaps(both, num_old=2))

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslab.data.load import load
from reslab.recipe.recipe import Linear, Recipe, derive
from reslab.recipe.shipped import RECIPES
from reslab.recipe.shipped.lab import RESNET32, RESNET32_SHORT
from reslab.runs import Run
from reslab.training.begin import Begun
from reslab.training.distributed import Team
from reslab.training.findings import (
    describe_few_updates,
    describe_last_size,
    describe_limit,
    describe_missed,
    tell_findings,
)


@pytest.mark.parametrize("silent", [False, True])
def test_a_training_says_what_is_wrong_with_its_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], silent: bool
) -> None:
    for name in ("cat", "dog"):
        for number in range(12):
            path = tmp_path / f"{'test' if number > 9 else 'train'}/{name}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number % 10).integers(256, size=(8, 8, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    (tmp_path / "train/cat/notes.doc").touch()
    train = load(f"folder:{tmp_path}", "train")
    for test in (tmp_path / "test").rglob("*.png"):
        test.write_bytes(b"nobody opens it")
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run")
    run.write_recipe(RESNET32)
    begun = Begun(run, (train,), 0, Team(torch.device("cpu")))
    shutil.copytree(tmp_path / "train", tmp_path / "val", ignore=shutil.ignore_patterns("*.doc"))
    tell_findings(begun, data_dir=None, silent=silent)
    said = capsys.readouterr().err
    assert ("10 pairs of copies with different labels" in said) is not silent
    assert (f"validation images of folder:{tmp_path} are not used: set validation" in said) is not silent
    assert ("1 not used, .doc files: train/cat/notes.doc" in said) is not silent


@pytest.mark.parametrize(
    ("num", "epochs", "said"),
    [
        (48, 10, "48 training images make 10 updates, .*; batch_size=6 and epochs=13 make more, and reslab"),
        (48, 100, None),
        (3000, 2, "3000 training images make 48 updates"),
        (50_000, 1, None),
    ],
)
def test_few_updates_are_told_with_what_to_set(num: int, epochs: int, said: str | None) -> None:
    line = describe_few_updates(derive(RESNET32, name="x", epochs=epochs, schedule=Linear()), num_images=num)
    assert (line is None) if said is None else re.match(said.replace("3000", "3,000"), line or "")


def test_what_a_run_ends_before_is_told() -> None:
    small = derive(RESNET32_SHORT, name="small", epochs=5)
    assert re.match(r"this run of 5 epochs ends before 32 pixels a side \(epoch 7\): --epochs 5", missed(small))
    assert "the steps of the learning rate after 122 epochs" in missed(derive(RESNET32, name="x", epochs=99))
    assert missed(derive(RESNET32, name="x", epochs=1)).endswith(": train for more epochs, or set them anew")
    assert not missed(RESNET32) + missed(RESNET32_SHORT.lasting(5))


def test_updates_that_the_epochs_end_before_are_told() -> None:
    twice = derive(RECIPES["resnet-20"], name="twice", updates=128_000)
    line = "this run of 164 epochs ends after 64,124 updates, before updates=128000: set epochs to 328 or more"
    assert describe_limit(twice, num_images=50_000) == line
    assert describe_limit(derive(twice, name="x", epochs=328), num_images=50_000) is None
    assert not any(describe_limit(recipe, num_images=50_000) for recipe in RECIPES.values())


def test_a_last_size_other_than_that_of_the_network_is_told() -> None:
    line = describe_last_size(derive(RESNET32_SHORT, name="large", image_size=64)) or ""
    assert line.startswith("training ends at 32 pixels a side, but the network takes images of 64")
    assert describe_last_size(RESNET32_SHORT) is None
    assert describe_last_size(RESNET32) is None


def missed(recipe: Recipe) -> str:
    return describe_missed(recipe, num_images=50_000) or ""

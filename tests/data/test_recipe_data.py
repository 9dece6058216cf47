from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reslab.data.load import load
from reslab.data.recipe_data import describe_data, read_split, read_split_of
from reslab.data.split import hold_out
from reslab.errors import UserError
from reslab.exporting import export
from reslab.recipe.recipe import Extension, Recipe, derive
from reslab.training import train
from reslab.training.calibrating import calibrate


def extend(recipe: Recipe, data: str, *, merge: bool) -> Recipe:
    extension = Extension(method="finetune", base="0" * 64, num_old=2, merge=merge)
    return derive(recipe, name="extended", data=data, extension=extension.model_dump(), validation=0)


def test_training_and_validation_make_up_the_stored_training_split(small_recipe: Recipe) -> None:
    stored = load(small_recipe.data, "train", image_size=8)
    parts = [read_split(small_recipe, split) for split in ("train", "validation")]
    expected = hold_out(stored, 9, seed=0)
    assert [part.fingerprint for part in parts] == [part.fingerprint for part in expected]
    assert [part.split for part in parts] == ["train", "validation"]
    assert read_split(small_recipe, "test").fingerprint == load("digits:1,4,7", "test", image_size=8).fingerprint


def test_without_validation_training_is_the_stored_split(small_recipe: Recipe) -> None:
    recipe = derive(small_recipe, name="all", validation=0)
    assert read_split(recipe, "train").counts() == [40, 40, 40]
    with pytest.raises(UserError, match="recipe all holds out no validation images: set validation above 0"):
        read_split(recipe, "validation")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_recipe_needs_two_classes(small_recipe: Recipe, split: str) -> None:
    recipe = derive(small_recipe, name="one", data="digits:3")
    with pytest.raises(UserError, match="'digits:3' has one class, '3': a classifier needs at least two"):
        read_split(recipe, split)  # type: ignore[arg-type]
    assert read_split(derive(recipe, name="two", data="digits:3+digits:5"), "train").classes == ("3", "5")


def test_an_extension_merges_only_where_its_recipe_says_so(small_recipe: Recipe, tmp_path: Path) -> None:
    for folder, name in (("first", "ant"), ("first", "bee"), ("second", "bee"), ("second", "cow")):
        (tmp_path / folder / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / folder / name / f"{number}.png")
    data = f"folder:{tmp_path}/first+folder:{tmp_path}/second"
    merged = [read_split(extend(small_recipe, data, merge=True), split) for split in ("train", "test")]
    assert [images.classes for images in merged] == [("ant", "bee", "cow")] * 2
    assert [images.counts() for images in merged] == [[4, 8, 4], [1, 2, 1]]
    for recipe in (extend(small_recipe, data, merge=False), derive(small_recipe, name="plain", data=data)):
        for split in ("train", "test"):
            with pytest.raises(UserError, match=r"the class 'bee' is in .* twice"):
                read_split(recipe, split)


def test_old_classes_without_images_have_none_in_training_and_validation(small_recipe: Recipe) -> None:
    recipe = derive(small_recipe, name="none", data="digits:0-6@0+digits:7-9@20", validation=6)
    assert read_split(recipe, "train").counts() == [0] * 7 + [18] * 3
    assert read_split(recipe, "validation").counts() == [0] * 7 + [2] * 3
    assert min(read_split(recipe, "test").counts()) > 30


def test_what_is_read_is_described(small_recipe: Recipe) -> None:
    images = read_split(small_recipe, "validation")
    described = describe_data(images)
    assert (described.expression, described.split, described.num_images) == ("digits:1,4,7@40", "validation", 9)
    assert described.fingerprint == images.fingerprint
    assert np.array(images.counts()).tolist() == [3, 3, 3]


def test_a_run_whose_pictures_are_gone_says_so(small_recipe: Recipe, tmp_path: Path) -> None:
    for name, level in (("cat", 60), ("dog", 190)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (8, 8), (level + number, 0, 0)).save(tmp_path / "pictures" / name / f"{number}.png")
    recipe = derive(small_recipe, name="lost", data=f"folder:{tmp_path}/pictures", standardize=None, validation=0)
    run = train(recipe, out=tmp_path / "run")
    (tmp_path / "pictures").rename(tmp_path / "elsewhere")
    sentence = r"run was trained and tested on is gone from .*/pictures: put it back; predict, export and report work"
    for lost in (
        lambda: read_split_of(run, "test"),
        lambda: calibrate(run),
        lambda: export(run, to=tmp_path / "it.onnx", int8=True),
    ):
        with pytest.raises(UserError, match=sentence):
            lost()
    (tmp_path / "pictures").mkdir()
    with pytest.raises(UserError, match="no pictures in class folders"):
        read_split_of(run, "test")

"""Whatever keeps a source from being read is named at once."""

from pathlib import Path
from typing import Any

import pytest

from reslab.data import pictures
from reslab.data.check.examine import check
from reslab.data.recipe_data import read_split
from reslab.errors import UserError
from reslab.fitting import fit
from reslab.fitting.planning import plan
from reslab.recipe.recipe import Recipe


@pytest.fixture
def pets(tmp_path: Path, draw: Any) -> Path:
    """Two classes of twelve sound pictures, with three splits of their own."""
    for number in range(24):
        split = ("train", "test", "val")[number // 2 % 3]
        draw(f"pets/{split}/{'cat' if number % 2 else 'dog'}/{number}.png", number)
    return tmp_path / "pets"


def damage(*files: Path) -> None:
    for file in files:
        file.write_bytes(b"broken")


def test_fit_names_an_empty_class_and_the_damaged_pictures_of_every_split(
    pets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pets / "train/owl").mkdir()
    damage(pets / "train/dog/0.png", pets / "test/cat/3.png", pets / "val/cat/5.png")
    with pytest.raises(UserError, match=r"holds no picture of owl: .*\. Also, 3 pictures of folder:") as error:
        fit(f"folder:{pets}", out=pets.parent / "run")
    for name in ("train/dog/0.png", "test/cat/3.png", "val/cat/5.png"):
        assert str(error.value).count(name) == 1
    assert "left out" not in capsys.readouterr().err  # since nothing is
    (pets / "train/owl").rmdir()
    with pytest.raises(UserError, match=r"^3 pictures of folder:[^ ]* cannot be used: train/dog/0.png"):
        fit(f"folder:{pets}", out=pets.parent / "run")
    (pets / "train/owl").mkdir()
    with pytest.raises(UserError, match="holds no picture of owl") as error:
        fit(f"folder:{pets}", out=pets.parent / "run", skip_damaged=True)
    assert "Also" not in str(error.value)


def test_classes_of_which_none_has_pictures_are_not_to_be_left_out(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        (tmp_path / "pets" / name / "0.npy").touch()
    with pytest.raises(UserError, match=r"holds no picture of cat and dog: add some; 2 not used, .npy files:") as error:
        fit(f"folder:{tmp_path}/pets", out=tmp_path / "run")
    assert "leave" not in str(error.value)
    with pytest.raises(UserError, match="holds no picture of cat and dog: add some; "):
        check(f"folder:{tmp_path}/pets")


def test_each_source_names_its_own(tmp_path: Path, draw: Any) -> None:
    for number in range(24):
        draw(f"{'one' if number < 12 else 'two'}/{'abcd'[number % 2 + 2 * (number > 11)]}/{number}.png", number)
    for name in ("one", "two"):
        (tmp_path / name / f"empty-{name}").mkdir()
    damage(tmp_path / "two/c/12.png")
    with pytest.raises(UserError) as error:
        fit(f"folder:{tmp_path}/one+folder:{tmp_path}/two", out=tmp_path / "run")
    assert [word in str(error.value) for word in ("empty-one", "empty-two", "two: c/12.png cannot be read")] == [
        True
    ] * 3


def test_a_class_of_one_picture_is_named_with_the_damaged_ones(tmp_path: Path, draw: Any) -> None:
    for number in range(24):
        draw(f"pets/{'cat' if number % 2 else 'dog'}/{number}.png", number)
    draw("pets/owl/1.png", 99)
    (tmp_path / "pets/bee").mkdir()
    with pytest.raises(UserError, match=r"no picture of bee: .*\. Also, class 'owl' has 1 image"):
        fit(f"folder:{tmp_path}/pets", out=tmp_path / "run")


def test_training_names_all_but_leaves_the_test_split_closed(
    pets: Path, small_recipe: Recipe, opened: list[str]
) -> None:
    (pets / "train/owl").mkdir()
    damage(pets / "train/dog/0.png", pets / "test/cat/3.png", pets / "val/cat/5.png")
    recipe = small_recipe.model_copy(update={"data": f"folder:{pets}"})
    opened.clear()
    with pytest.raises(UserError, match=r"holds no picture of owl: .*\. Also, 2 pictures of ") as error:
        read_split(recipe, "train")
    assert "val/cat/5.png" in str(error.value)
    with pytest.raises(UserError, match="is a trial"):
        read_split(recipe.model_copy(update={"trial": True}), "test")
    assert not [path for path in opened if "pets/test" in path]
    with pytest.raises(UserError, match=r"test/cat/3.png") as error:
        read_split(recipe, "test")
    assert "train/dog" not in str(error.value)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Collect the name and the size in pixels of each picture that is decoded."""
    found: list[tuple[str, int]] = []
    real = pictures.shrink

    def shrink(image: Any, **options: Any) -> Any:
        found.append((image.filename, options["image_size"]))
        return real(image, **options)

    monkeypatch.setattr("reslab.data.sources.decoded.shrink", shrink)
    return found


@pytest.mark.parametrize("work", [fit, plan])
def test_a_mistake_in_the_expression_is_named_before_any_picture_is_decoded(
    pets: Path, decoded: list[tuple[str, int]], work: Any
) -> None:
    options = {"out": pets.parent / "run"} if work is fit else {}
    for empty in ((), ("owl",)):
        for name in empty:
            (pets / "train" / name).mkdir()
        with pytest.raises(UserError, match="typo is not a folder") as error:
            work(f"folder:{pets}+folder:{pets.parent}/typo", **options)
        assert ("no picture of owl" in str(error.value)) == bool(empty)
    assert not decoded


def test_a_class_too_small_to_choose_by_is_named_before_the_test_split_is_read(
    pets: Path, decoded: list[tuple[str, int]], draw: Any
) -> None:
    draw("pets/train/owl/1.png", 98)
    draw("pets/test/owl/2.png", 99)
    with pytest.raises(UserError, match="class 'owl' has 1 training image"):
        fit(f"folder:{pets}", out=pets.parent / "run")
    assert not [name for name, _ in decoded if "/test/" in name]


@pytest.mark.parametrize("work", [fit, plan])
def test_pictures_are_decoded_at_their_size_only(pets: Path, decoded: list[tuple[str, int]], work: Any) -> None:
    (pets / "train/owl").mkdir()
    damage(pets / "train/dog/0.png")
    options = {"out": pets.parent / "run"} if work is fit else {}
    with pytest.raises(UserError, match=r"no picture of owl: .*\. Also, .* train/dog/0.png"):
        work(f"folder:{pets}", **options)
    assert {size for _, size in decoded} == {40}


def test_damaged_pictures_are_named_with_a_class_of_one(tmp_path: Path, draw: Any) -> None:
    for number in range(24):
        draw(f"pets/{'cat' if number % 2 else 'dog'}/{number}.png", number)
    draw("pets/owl/1.png", 99)
    damage(tmp_path / "pets/cat/1.png")
    with pytest.raises(UserError, match=r"class 'owl' has 1 image: .*\. Also, .* cat/1.png") as error:
        fit(f"folder:{tmp_path}/pets", out=tmp_path / "run")
    assert type(error.value) is UserError

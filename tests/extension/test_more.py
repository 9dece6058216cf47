"""More pictures of the classes that a network knows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslab import Network
from reslab.data.packing import pack
from reslab.errors import UserError
from reslab.evaluation import evaluate
from reslab.extension import extend
from reslab.recipe.recipe import EarlyStopping, Imported, Recipe, derive
from reslab.runs import Run
from reslab.training import train


def draw(folder: Path, *, num: int, seed: int) -> Path:
    """Draw pictures of two classes, dark ones and bright ones."""
    random = np.random.default_rng(seed)
    for split, share in (("train", 3), ("test", 1)):
        for name, level in (("cat", 60), ("dog", 190)):
            (folder / split / name).mkdir(parents=True)
            for number in range(num * share):
                pixels = random.integers(level - 50, level + 50, (8, 8, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


@pytest.fixture
def pets(small_recipe: Recipe, tmp_path: Path) -> Run:
    data = f"folder:{draw(tmp_path / 'pets', num=4, seed=0)}"
    return train(derive(small_recipe, name="pets", data=data, validation=4, standardize=None), out=tmp_path / "base")


def test_a_network_is_trained_on_with_more_pictures_of_its_classes_from_where_it_was(pets: Run, tmp_path: Path) -> None:
    more = f"folder:{draw(tmp_path / 'more', num=6, seed=1)}"
    made = extend(
        pets.path, data=more, out=tmp_path / "on", merge=True, settings=["epochs=1", "optimizer.peak_lr=1e-9"]
    )
    before, after = Network.load(pets.path), Network.load(made.path)
    assert after.classes == before.classes == ("cat", "dog")
    sizes = {each.split: each.num_images for each in made.environment.data}
    assert sizes["train"] + sizes["validation"] == 2 * 3 * (4 + 6)
    assert sizes["validation"] == pytest.approx(4 / 24 * 60, abs=2)  # the base's share
    # At this rate all stays as it was, also the head.
    pixels = torch.from_numpy(np.full((1, 3, 8, 8), 60, dtype=np.uint8))
    torch.testing.assert_close(after.module.head.weight, before.module.head.weight)
    assert after.logits(pixels).argmax() == before.logits(pixels).argmax()
    assert evaluate(made, splits=("test",)).splits["test"].num_images == 2 * (4 + 6)
    assert made.recipe.extension is None
    assert sorted(made.digests["base"]) == sorted(pets.digests["train"])
    assert sorted(made.digests["base_held_out"]) == sorted(pets.digests["validation"])
    assert pets.learned_digests is not None
    assert made.learned_digests is not None
    assert np.isin(pets.learned_digests, made.learned_digests).all()


@pytest.mark.parametrize("num_held_out", [0, 4])
def test_pictures_that_the_base_has_learned_calibrate_nothing(
    pets: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], num_held_out: int
) -> None:
    base = train(derive(pets.recipe, name="pets", validation=num_held_out), out=tmp_path / "other")
    extend(base.path, data=f"folder:{draw(tmp_path / 'more', num=1, seed=1)}", out=tmp_path / "on", merge=True)
    made = extend(base.path, data=f"folder:{tmp_path / 'more'}", out=tmp_path / "again", merge=True, silent=False)
    told = "not calibrated: other has learned from the held-out images" in capsys.readouterr().err
    assert told == (num_held_out == 0)
    assert Network.load(made.path).metadata.calibration is None


def test_a_trial_stays_one(pets: Run, tmp_path: Path) -> None:
    pets.write_recipe(derive(pets.recipe, name="pets", trial=True))
    more = f"folder:{draw(tmp_path / 'more', num=2, seed=1)}"
    assert extend(pets.path, data=more, out=tmp_path / "on", merge=True).recipe.trial


def test_an_extension_is_trained_on_as_its_base_was(pets: Run, tmp_path: Path) -> None:
    new = draw(tmp_path / "new", num=2, seed=1)
    for split in ("train", "test"):
        for old, name in (("cat", "elk"), ("dog", "fox")):
            (new / split / old).rename(new / split / name)
    extended = extend(pets.path, data=f"folder:{new}", out=tmp_path / "extended", method="frozen")
    more = f"folder:{draw(tmp_path / 'more', num=2, seed=2)}"
    made = extend(extended.path, data=more, out=tmp_path / "on", merge=True)
    assert Network.load(made.path).classes == ("cat", "dog", "elk", "fox")
    assert (made.recipe.freeze, made.recipe.sampling) == ((), None)
    assert made.recipe.optimizer.peak_lr == pets.recipe.optimizer.peak_lr / 2


def test_a_grey_base_takes_colour_pictures_as_grey(small_recipe: Recipe, tmp_path: Path) -> None:
    base = train(derive(small_recipe, name="grey", data="digits:1,4", epochs=1), out=tmp_path / "base")
    more = draw(tmp_path / "more", num=2, seed=1)
    for split in ("train", "test"):
        for old, name in (("cat", "1"), ("dog", "4")):
            (more / split / old).rename(more / split / name)
    made = extend(base.path, data=f"folder:{more}", out=tmp_path / "on", merge=True)
    assert Network.load(made.path).channels == 1


def test_it_learns_slower_and_shorter_than_the_base_did(pets: Run, tmp_path: Path) -> None:
    more = f"folder:{draw(tmp_path / 'more', num=6, seed=1)}"
    made = extend(pets.path, data=more, out=tmp_path / "on", merge=True)
    assert made.recipe.optimizer.peak_lr == pets.recipe.optimizer.peak_lr / 2
    assert made.recipe.epochs == max(2, round(0.75 * pets.recipe.epochs))
    assert evaluate(made, splits=("test",)).splits["test"].accuracy.value > 0.9


def test_an_imported_or_streamed_base_that_may_stop_early_is_trained_on(pets: Run, tmp_path: Path) -> None:
    more = f"folder:{draw(tmp_path / 'more', num=2, seed=1)}"
    pack(pets.recipe.data, str(tmp_path / "packed"), image_size=8)
    changes = {"data": f"shards:{tmp_path / 'packed'}", "stream": 8, "early_stopping": EarlyStopping(patience=1)}
    base = train(derive(pets.recipe, name="pets", **changes), out=tmp_path / "streamed")
    base.write_recipe(derive(base.recipe, name="pets", imported=Imported(file="a.pth", sha256="", map="order")))
    made = extend(base.path, data=more, out=tmp_path / "on", merge=True)
    assert made.is_finished
    assert (made.recipe.stream, made.recipe.imported) == (None, None)
    assert made.recipe.early_stopping == EarlyStopping(patience=1)


def test_what_does_not_go_with_more_pictures_is_refused(pets: Run, tmp_path: Path) -> None:
    more = f"folder:{draw(tmp_path / 'more', num=2, seed=1)}"
    with pytest.raises(UserError, match=r"'cat'.*merge"):
        extend(pets.path, data=more, out=tmp_path / "no")
    for again in (pets.recipe.data, f"{pets.recipe.data}:cat", f"folder:{tmp_path}/more/../pets:-dog"):
        with pytest.raises(UserError, match=r"base has learned cat.* already, from the same images: leave that out of"):
            extend(pets.path, data=again, out=tmp_path / "no", merge=True)
    with pytest.raises(UserError, match="has no new class, only more pictures: omit --method"):
        extend(pets.path, data=more, out=tmp_path / "no", merge=True, method="frozen")
    with pytest.raises(UserError, match="--old-data none would have it forget"):
        extend(pets.path, data=more, out=tmp_path / "no", merge=True, old_data="none")
    with pytest.raises(UserError, match="--set data: an extension takes it from its base"):
        extend(pets.path, data=more, out=tmp_path / "no", merge=True, settings=["data=digits"])
    assert not (tmp_path / "no").exists()


def test_pictures_that_became_test_pictures_are_noticed(pets: Run, tmp_path: Path) -> None:
    more = f"folder:{draw(tmp_path / 'more', num=2, seed=1)}"
    (tmp_path / "pets/train/dog/0.png").rename(tmp_path / "pets/test/dog/moved.png")
    with pytest.raises(UserError, match=r"has changed: .* has learned from 1 of the 9 pictures that are test images"):
        extend(pets.path, data=more, out=tmp_path / "no", merge=True)


def test_no_address_of_the_bases_recipe_is_contacted_unless_that_is_allowed(pets: Run, tmp_path: Path) -> None:
    more = f"folder:{draw(tmp_path / 'more', num=2, seed=1)}"
    pets.write_recipe(derive(pets.recipe, name="pets", data="shards:https://example.org/pets"))
    with pytest.raises(UserError, match=r"takes images from https://example.org/pets, .*nothing was contacted"):
        extend(pets.path, data=more, out=tmp_path / "no", merge=True)


@pytest.mark.parametrize("method", [None, "frozen"])  # more of the same classes, and new ones
def test_a_base_whose_pictures_are_gone_says_so(pets: Run, tmp_path: Path, method: str | None) -> None:
    more = draw(tmp_path / "more", num=2, seed=1)
    if method:
        for split in ("train", "test"):
            for old, new in (("cat", "elk"), ("dog", "fox")):
                (more / split / old).rename(more / split / new)
    (tmp_path / "pets").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"base was trained and tested on is gone from .*pets: put it back"):
        extend(pets.path, data=f"folder:{more}", out=tmp_path / "no", merge=not method)

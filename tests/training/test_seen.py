"""What earlier weights have learned from is not held out as if it were new."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reslab.data.images import ImageSet
from reslab.recipe.recipe import Extension, Recipe, StartingWeights, derive
from reslab.runs import Run
from reslab.training.seen import are_redrawn, find_unseen, has_seen_held_out

REDRAWN = StartingWeights(file="a", sha256="", head=True, redrawn=True)
OTHER = StartingWeights(file="a", sha256="")


def hold(labels: list[int], digests: list[int] | None) -> ImageSet:
    return ImageSet(
        torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8),
        torch.tensor(labels),
        ("cat", "dog", "elk"),
        "folder:a",
        "validation",
        digests=None if digests is None else np.array(digests, dtype=np.uint64),
    )


def test_a_picture_that_was_trained_on_is_left_out_unless_it_is_all_that_a_class_has() -> None:
    held_out = hold([0, 0, 1, 1, 2], [11, 12, 13, 14, 15])
    trained = np.array([0, 12, 13, 99], dtype=np.uint64)
    unseen = find_unseen(held_out, trained=trained, redrawn=False, num_old=2)
    assert unseen is not None
    assert unseen.labels.tolist() == [0, 1, 2]
    assert find_unseen(held_out, trained=np.array([13, 14], dtype=np.uint64), redrawn=False, num_old=2) is None
    assert find_unseen(held_out, trained=trained[:1], redrawn=True, num_old=2) is held_out
    assert find_unseen(held_out, trained=None, redrawn=True, num_old=2) is None  # none were recorded


def test_images_without_digests_count_unless_they_were_drawn_anew() -> None:
    held_out = hold([0, 1, 2], None)
    assert find_unseen(held_out, trained=None, redrawn=False, num_old=2) is held_out
    assert find_unseen(held_out, trained=None, redrawn=True, num_old=2) is None
    mixed = hold([0, 0, 1, 2], [0, 21, 22, 0])
    unseen = find_unseen(mixed, trained=np.array([0], dtype=np.uint64), redrawn=True, num_old=2)
    assert unseen is not None
    assert unseen.labels.tolist() == [0, 1, 2]


def made(recipe: Recipe, path: Path, **changes: Any) -> Run:
    path.mkdir()
    run = Run(path)
    run.write_recipe(derive(recipe, name="base", **changes))
    return run


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        ({"data": "digits:1,4", "validation": 20}, {"data": "digits:1,4", "validation": 20}, False),
        ({"data": "digits:1,4", "validation": 20}, {"data": "digits:1,4", "validation": 30}, True),
        ({"data": "digits:1,4", "validation": 20}, {"data": "digits:1,4+folder:x", "validation": 30}, True),
        ({"data": "digits:1,4", "validation": 0}, {"data": "digits:1,4", "validation": 20}, True),
        ({"data": "digits:1,4", "validation": 0}, {"data": "digits:5,7", "validation": 20}, False),
        ({"data": "digits:1,4", "validation": 20}, {"data": "digits:1,4@50+digits:7", "validation": 20}, True),
        ({"data": "digits:1,4", "validation": 20, "start": REDRAWN}, {"data": "digits:1,4", "validation": 20}, True),
        ({"data": "digits:1,4", "validation": 20, "start": OTHER}, {"data": "digits:1,4", "validation": 20}, True),
        ({"data": "shards:a", "validation": 20, "stream": 8}, {"data": "shards:b", "validation": 20}, True),
        ({"data": "digits", "validation": 20}, {"data": "shards:b", "validation": 20}, True),
        ({"data": "cifar100", "validation": 20}, {"data": "cifar100-coarse", "validation": 20}, True),
        ({"data": "folder:a", "validation": 0}, {"data": "folder:a", "validation": 20}, True),
        ({"data": "folder:a", "validation": 20}, {"data": "folder:moved", "validation": 20}, False),
        ({"data": "arrays", "validation": 0}, {"data": "digits", "validation": 20}, False),  # of a program
    ],
)
def test_images_without_digests_are_compared_by_how_they_are_held_out(
    small_recipe: Recipe, tmp_path: Path, theirs: dict[str, Any], ours: dict[str, Any], expected: bool
) -> None:
    source = made(small_recipe, tmp_path / "base", **theirs)
    assert are_redrawn(source, derive(small_recipe, name="on", **ours)) == expected


def test_an_extension_holds_out_the_same_share_of_more_images(small_recipe: Recipe, tmp_path: Path) -> None:
    source = made(small_recipe, tmp_path / "base", data="digits:1,4", validation=20)
    recipe = derive(small_recipe, name="on", data="digits:1,4+digits:7+folder:x", validation=40)
    assert not are_redrawn(source, recipe, keeps_share=True)


def test_pictures_whose_digests_are_recorded_need_no_comparison(small_recipe: Recipe, tmp_path: Path) -> None:
    source = made(small_recipe, tmp_path / "base", data="folder:a+digits", validation=0)
    source.write_digests("train", np.array([1, 2], dtype=np.uint64))
    assert not are_redrawn(source, derive(small_recipe, name="on", data="folder:a", validation=20))
    assert are_redrawn(source, derive(small_recipe, name="on", data="folder:a+digits", validation=20))


def test_what_the_first_base_has_learned_is_not_forgotten(small_recipe: Recipe, tmp_path: Path) -> None:
    extension = Extension(method="finetune-distill", base="", num_old=2, old_data="none")
    source = made(small_recipe, tmp_path / "base", data="digits:1,4@0+folder:x", validation=20, extension=extension)
    source.write_base_recipe(derive(small_recipe, name="first", data="digits:1,4", validation=20))
    assert are_redrawn(source, derive(small_recipe, name="on", data="digits:1,4", validation=20))


def test_an_older_version_recorded_held_out_pictures_of_a_base_as_learned(small_recipe: Recipe, tmp_path: Path) -> None:
    extension = Extension(method="frozen", base="", num_old=2)
    older = made(small_recipe, tmp_path / "older", validation=2, extension=extension)
    for split, digests in (("train", [1, 2, 9]), ("validation", [3, 8]), ("base", [1, 2, 3])):
        older.write_digests(split, np.array(digests, dtype=np.uint64))  # type: ignore[arg-type]
    older.write_base_recipe(derive(small_recipe, name="first", validation=2))
    later = made(small_recipe, tmp_path / "later")
    later.write_base_digests(older)
    assert {name: digests.tolist() for name, digests in later.digests.items()} == {
        "base": [1, 2, 9],
        "base_held_out": [3, 8],
    }


def test_what_a_run_holds_out_may_have_been_learned_before_it(small_recipe: Recipe, tmp_path: Path) -> None:
    base = made(small_recipe, tmp_path / "base", validation=0)
    assert has_seen_held_out(base)
    base.write_digests("train", np.array([1, 2, 3, 4], dtype=np.uint64))
    extension = Extension(method="frozen", base="", num_old=2)
    later = made(small_recipe, tmp_path / "later", validation=20, extension=extension)
    assert not has_seen_held_out(later)
    later.write_base_recipe(base.recipe)
    assert has_seen_held_out(later)
    later.write_base_recipe(derive(base.recipe, name="base", validation=20))
    later.write_digests("validation", np.array([0, 4, 5], dtype=np.uint64))
    assert not has_seen_held_out(later)
    later.write_base_digests(base)
    assert has_seen_held_out(later)
    assert later.learned_digests is not None
    assert later.learned_digests.tolist() == [0, 1, 2, 3, 4, 5]

"""Plans: growth is measured on unseen images, the order prefers what is new, and the command shows both."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reslab.cli import main
from reslab.data.expression import CLASSES
from reslab.errors import UserError
from reslab.fitting import growth, planning
from reslab.fitting.growth import _part, measure_growth
from reslab.fitting.labelling import _say, order_pictures
from reslab.fitting.planning import ClassGrowth, Plan, _find_network, plan
from reslab.recipe.networks import EfficientNetLite, FastConv, Fusion, Model
from reslab.recipe.recipe import Recipe, derive
from reslab.records import Estimate
from reslab.training import train


def blobs(num: int, *, seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Draw features of classes that overlap."""
    generator = np.random.default_rng(seed)
    labels = np.arange(num) % classes
    centres = 2 * np.random.default_rng(9).normal(size=(classes, 12))
    return (centres[labels] + 2 * generator.normal(size=(num, 12))).astype(np.float32), labels


def test_growth_is_measured_on_unseen_images() -> None:
    features, labels = blobs(240, seed=0)
    told: list[int] = []
    growth = measure_growth(features, labels, show=told.append)
    assert growth.shares.tolist() == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8])
    accuracy = growth.right.mean(axis=1)
    assert growth.right.shape == (5, 240)
    assert accuracy[0] < accuracy[-1] < 1
    assert told[-1] == 15 * 240
    noise = np.random.default_rng(1).normal(size=features.shape).astype(np.float32)
    assert measure_growth(noise, labels).right[-1].mean() < 0.45


def test_parts_are_nested_and_have_two_of_each_class() -> None:
    labels = np.repeat([0, 1], [100, 3])
    parts = [set(_part(labels, np.arange(103), share, seed=1).tolist()) for share in (0.01, 0.1, 0.5)]
    assert [len(part) for part in parts] == [4, 12, 52]
    assert parts[0] < parts[1] < parts[2]
    generator = np.random.default_rng(1)
    expected = [generator.permutation(np.flatnonzero(labels == label))[:num] for label, num in ((0, 10), (1, 2))]
    assert sorted(parts[1]) == sorted(np.concatenate(expected))  # as in every version


def test_parts_are_of_whole_groups_the_same_in_every_class() -> None:
    labels, groups = np.tile([0, 1], 60), np.repeat(np.arange(12), 10)
    parts = [_part(labels, groups, share, seed=1) for share in (0.25, 0.5)]
    assert [np.bincount(groups[part], minlength=12).tolist().count(10) for part in parts] == [3, 6]
    assert set(parts[0]) < set(parts[1])


def test_parts_of_overlapping_groups_are_as_in_every_version() -> None:
    """The groups are in the order in which the classes up to each one first show them."""
    generator = np.random.default_rng(3)
    labels, groups = generator.integers(0, 6, 300), generator.integers(0, 40, 300)
    drawn, seen, expected = np.random.default_rng(1), [], []
    for label in range(6):
        places = drawn.permutation(np.flatnonzero(labels == label))
        seen += [group for group in groups[places] if group not in seen]
        ordered = sorted(places, key=lambda place: list(dict.fromkeys(seen)).index(groups[place]))
        expected += ordered[: max(2, round(0.3 * len(places)))]
    assert _part(labels, groups, 0.3, seed=1).tolist() == sorted(expected)


def test_growth_of_many_images_is_measured_on_several_groups_of_a_small_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "MOST", 60)
    features, labels = blobs(240, seed=0, classes=20)
    labels = (labels == 0).astype(np.int64)  # 12 images
    keys = np.where(labels, np.cumsum(labels) // 5 + 1, np.arange(240) + 10).astype(np.uint64)
    found = measure_growth(features, labels, keys=keys)
    assert np.bincount(found.labels).tolist() == [57, 5]


def test_growth_and_certainty_are_measured_on_other_groups() -> None:
    generator = np.random.default_rng(0)
    noise, labels = generator.normal(size=(100, 300)).astype(np.float32), np.arange(100) % 2
    features, labels, keys = np.tile(noise, (3, 1)), np.tile(labels, 3), np.tile(np.arange(1, 101), 3).astype(np.uint64)
    assert measure_growth(features, labels).right[-1].mean() > 0.9
    assert measure_growth(features, labels, keys=keys).right[-1].mean() < 0.65
    assert _say(features, labels, None, noise).max(axis=1).mean() > 0.9
    assert _say(features, labels, keys, noise).max(axis=1).mean() < 0.7


def test_what_is_new_comes_first_and_its_copies_late() -> None:
    generator = np.random.default_rng(2)
    labels = np.arange(60) % 3
    features = generator.normal(size=(60, 300)).astype(np.float32)
    known = features[:20] + 0.01 * generator.normal(size=(20, 300))
    unknown = generator.normal(size=(10, 300))
    candidates = np.concatenate([known, unknown, np.tile(unknown[:1], (5, 1))]).astype(np.float32)
    order = order_pictures(features, labels, candidates, num=100)
    assert sorted(order.tolist()) == list(range(35))
    first = order[:8]
    assert (first >= 20).mean() > 0.7
    assert sum(place == 20 or place >= 30 for place in first) <= 1


def test_a_plan_has_curves_and_an_order(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    (tmp_path / "new").mkdir()
    for place in range(4):
        Image.fromarray(generator.integers(256, size=(8, 8), dtype=np.uint8)).save(tmp_path / f"new/{place}.png")
    (tmp_path / "new/broken.png").write_bytes(b"")
    found = plan("digits:1,4@8", unlabelled=[tmp_path / "new"])
    assert [each.name for each in found.classes] == ["1", "4"]
    assert (found.all.num_images, len(found.order), found.num_unlabelled, len(found.unread)) == (16, 4, 5, 1)
    for each in (*found.classes, found.all):
        assert all(a.low <= a.value <= a.high for a in each.accuracy)
    assert "points" in found.sentences[0]


def draw(folder: Path, *, num: int) -> Path:
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / "train" / name).mkdir(parents=True)
        for number in range(num):
            pixels = generator.integers(256, size=(8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "train" / name / f"{number}.png")
    return folder


def test_a_run_is_planned_by_the_pictures_that_it_learned_from_wherever_that_is(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "pets", num=8)
    (tmp_path / "pets" / "test").symlink_to(tmp_path / "pets" / "train")
    recipe = derive(small_recipe, name="pets", data="folder:pets", epochs=1, validation=0, standardize=None)
    made = train(recipe, out=tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    Image.new("RGB", (8, 8)).save(tmp_path / "new.png")
    labelled = tmp_path / "pets/train/cat"
    found = plan(str(made.path), unlabelled=[labelled, tmp_path / "new.png", tmp_path / "missing.png"])
    assert found.all.num_images == 16
    assert (found.order, found.num_labelled, len(found.unread)) == ((str(tmp_path / "new.png"),), 8, 1)
    with pytest.raises(UserError, match="all pictures of --unlabelled are labelled already"):
        plan(str(made.path), unlabelled=[labelled])
    (tmp_path / "pets/train/cat/0.png").unlink()
    with pytest.raises(
        UserError, match=r"train split of folder:pets has changed: .* since .*run was trained: train it"
    ):
        plan(str(made.path))


@pytest.mark.parametrize(
    ("model", "pretrained", "size"),
    [
        (EfficientNetLite(), "efficientnet_lite0", 48),  # that of the stored images
        (EfficientNetLite(resize=64), "efficientnet_lite0", 64),
        (Fusion(base=FastConv(), pretrained=EfficientNetLite(resize=64)), None, 64),
        (EfficientNetLite(), None, 128),
        (FastConv(), None, 128),
    ],
)
def test_a_run_is_planned_at_the_image_size_of_its_pretrained_network(
    model: Model, pretrained: str | None, size: int, small_recipe: Recipe
) -> None:
    recipe = small_recipe.model_copy(update={"model": model, "pretrained": pretrained, "image_size": 48})
    assert _find_network(recipe).image_size == size


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["reslab", "data", "plan", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_the_command_prints_the_plan_and_writes_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    assert run(monkeypatch, "digits:1,4@8", "--unlabelled", tmp_path / "a.png", "--csv", "order.csv") == 0
    shown = capsys.readouterr().out
    assert "Four times the pictures would bring" in shown
    assert max(map(len, shown.splitlines())) <= 120
    assert Path("order.csv").read_text(encoding="utf-8-sig").splitlines() == ["rank,file", f"1,{tmp_path / 'a.png'}"]
    assert run(monkeypatch, "digits:1,4@8", "--json") == 0
    assert [len(each["accuracy"]) for each in json.loads(capsys.readouterr().out)["classes"]] == [3, 3]
    assert run(monkeypatch, "digits:1,4@8", "--csv", "order.csv") == 2


def test_what_would_gain_nothing_is_no_figure() -> None:
    now, later = (Estimate(value=value, low=0.9, high=1.0) for value in (0.99, 0.9904))
    flat = ClassGrowth("all", 40, (now, now, later))
    found = Plan("digits", "a network", flat, (flat,))
    assert found.sentences == ("Four times the pictures would bring almost nothing.",)
    steep = replace(flat, accuracy=(now, now, later.model_copy(update={"value": 0.9906})))
    assert replace(found, all=steep).sentences[0] == "Four times the pictures would bring +0.1 points."


def test_pictures_to_rank_are_looked_for_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "_compute", None)
    with pytest.raises(UserError, match="holds no picture"):
        plan("digits:1,4@8", unlabelled=[tmp_path])


def test_an_expression_may_be_longer_than_a_file_name(official: Path) -> None:
    classes = ",".join(CLASSES["cifar100"][:40])
    assert len(classes) > 255
    with pytest.raises(UserError, match="has 80 training images of 40 classes, too few for a learning curve"):
        plan(f"cifar100:{classes}", data_dir=official)


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(UserError, match="has 8 training images of 2 classes, too few for a learning curve"):
        plan("digits:1,4@4")

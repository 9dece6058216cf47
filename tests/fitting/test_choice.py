"""The choice: judged without the images that it is judged on, within its time."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedKFold

from reslab import pretrained
from reslab.data.folds import split_folds
from reslab.data.images import ImageSet
from reslab.data.load import load
from reslab.errors import UserError
from reslab.fitting import choice
from reslab.fitting.choice import (
    Backbone,
    Budget,
    Readers,
    check_counts,
    choose,
    describe_few_groups,
    judge,
)
from reslab.pretrained.heads import STRENGTHS, Method, spread

LITE0 = "efficientnet_lite0"


def test_what_is_judged_has_not_seen_the_image() -> None:
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(2, 60, 400)).astype(np.float32)  # features that say nothing
    noise[1] = noise[0] + 0.01  # whose mirror image is nearly the same
    labels = np.arange(60) % 3
    found = judge(noise, labels, folds=split_folds(labels), backbone=Backbone(LITE0, 32), method="lda")
    assert found.train_accuracy == 1
    assert found.candidate.accuracy is not None
    assert found.candidate.accuracy.value < 0.6


def test_folds_cover_each_image_once() -> None:
    labels = np.repeat([0, 1], [3, 20])
    folds = list(split_folds(labels))
    assert len(folds) == 3
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(23))
    assert all(set(labels[kept]) == {0, 1} for kept, _ in folds)


def test_images_of_one_key_are_in_one_fold_and_those_without_one_on_their_own() -> None:
    generator = np.random.default_rng(0)
    labels, keys = generator.integers(0, 3, 200), generator.integers(0, 30, 200).astype(np.uint64)
    folds = split_folds(labels, keys)
    assert len(folds) == 5
    assert sorted(np.concatenate([held for _, held in folds])) == list(range(200))
    for kept, held in folds:
        assert not np.isin(keys[held][keys[held] > 0], keys[kept]).any()
        assert len(held) == pytest.approx(40, abs=12)
    assert len({fold for fold, (_, held) in enumerate(folds) if (keys[held] == 0).any()}) > 1
    few = split_folds(np.repeat([0, 1], [20, 40]), np.concatenate([np.arange(20) % 2 + 1, 10 + np.arange(40)]))
    assert len(few) == 2  # as many as the first class has groups
    labels, keys = np.tile([0, 0, 1, 1, 2, 2], 4), np.tile([1, 2, 2, 3, 1, 3], 4).astype(np.uint64)
    assert (
        len(split_folds(labels, keys)) == 3
    )  # each class is in two of three groups, and in two folds one would be lost


@pytest.mark.parametrize("keys", [None, np.zeros(100, dtype=np.uint64), np.arange(100, dtype=np.uint64)])
def test_folds_of_images_that_share_no_key_are_the_same_in_every_version(keys: np.ndarray | None) -> None:
    labels = np.random.default_rng(0).integers(0, 3, 100)
    expected = StratifiedKFold(5, shuffle=True, random_state=0).split(labels, labels)
    for (kept, held), (kept_before, held_before) in zip(split_folds(labels, keys), expected, strict=True):
        np.testing.assert_array_equal(kept, kept_before)
        np.testing.assert_array_equal(held, held_before)


@pytest.mark.parametrize("labels", [[0, 0, 1], [0, 0, 1, 1]])
def test_classes_that_cannot_be_in_two_folds_are_refused(labels: list[int]) -> None:
    with pytest.raises(UserError, match="too few training images or groups for cross-validation"):
        split_folds(np.array(labels), np.array([1, 2, 3, 3], dtype=np.uint64)[: len(labels)])


def test_a_copy_tells_nothing_of_the_image_that_it_is_judged_on(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).normal(size=(1, 200, 600)).astype(np.float32)  # features that say nothing
    monkeypatch.setattr(choice, "compute_timed", lambda images, backbone: (np.tile(noise, (2, 2, 1)), 1.0))
    pixels, labels = torch.zeros(400, 3, 8, 8, dtype=torch.uint8), (torch.arange(200) % 2).tile(2)
    keys = np.tile(np.arange(1, 201, dtype=np.uint64), 2)
    copies = ImageSet(pixels, labels, ("a", "b"), "x", "train", keys=keys)
    found, _ = choose(Readers(lambda resize: copies), candidates=[Backbone(LITE0, 24)], budget=Budget.of(1), say=print)
    assert found.candidate.accuracy is not None
    assert found.candidate.accuracy.value < 0.65


def test_without_time_only_the_first_is_tried() -> None:
    images = load("digits:1,4,7@5", "train", image_size=8)
    said: list[str] = []
    found, candidates = choose(
        Readers(lambda resize: images),
        candidates=[Backbone(LITE0, 40), Backbone(LITE0, 48)],
        budget=Budget.of(-1),
        say=said.append,
    )
    assert found.backbone == Backbone(LITE0, 40)
    assert [(each.image_size, bool(each.left_out), each.chosen) for each in candidates] == [
        (40, False, True),
        (48, True, False),
        (40, True, False),
    ]
    assert [line.partition(":")[0].split(",")[0] for line in said] == [
        "compute efficientnet_lite0 at 40 pixels",
        "efficientnet_lite0 at 40 pixels",
    ]


@pytest.mark.usefixtures("stand_in")
def test_pictures_from_the_cache_do_not_count_as_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    images, clock, said = load("digits:1,4@15", "train", image_size=8), [0.0], []

    def tick(seconds: float = 1e-6) -> float:
        clock[0] += seconds
        return clock[0]

    def compute(batch: np.ndarray) -> np.ndarray:
        tick(0.01 * len(batch))
        return batch.reshape(len(batch), -1)[:, :32].astype(np.float32)

    monkeypatch.setattr(pretrained, "open_route", lambda *arguments, by: compute)
    monkeypatch.setattr(time, "perf_counter", tick)
    for _ in range(2):
        candidates = [Backbone(LITE0, 16), Backbone(LITE0, 32)]
        choose(Readers(lambda resize: images), candidates=candidates, budget=Budget.of(1), say=said.append)
    told = [line for line in said if line.startswith("compute efficientnet_lite0 at 32 pixels")]
    assert told == ["compute efficientnet_lite0 at 32 pixels, about 2.4\N{NO-BREAK SPACE}s"] * 2


@pytest.mark.usefixtures("stand_in")
def test_the_first_of_many_pictures_has_a_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    images, said = load("digits:1,4@15", "train", image_size=8), []
    for few in (False, True):
        monkeypatch.setattr(choice, "FORECAST_FROM", 31 if few else 30)
        choose(Readers(lambda resize: images), candidates=[Backbone(LITE0, 16)], budget=Budget.of(1), say=said.append)
    told = [line.partition(",")[2][:6] for line in said if line.startswith("compute")]
    assert told == [" about", ""]


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(("seconds", "chosen"), [(0.0, "crop"), (1e6, "squeeze")])
def test_pictures_become_squares_as_their_classes_are_best_told(seconds: float, chosen: str) -> None:
    noise = torch.randint(256, (30, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 2
    clear = noise // 4 + 128 * labels[:, None, None, None].byte()

    def read(resize: str) -> ImageSet:
        return ImageSet(clear if resize == "crop" else noise, labels, ("a", "b"), "x", "train")

    found, candidates = choose(
        Readers(read, resizings=("squeeze", "pad", "crop"), seconds=seconds),
        candidates=[Backbone(LITE0, 16), Backbone(LITE0, 24)],
        budget=Budget.of(1),
        say=print,
    )
    assert found.backbone.resize == chosen
    assert [each.resize for each in candidates] == ["squeeze", "pad", "crop", *[chosen] * 3]
    assert [bool(each.left_out) for each in candidates[:3]] == [False, *[seconds > 60] * 2]
    assert candidates[2].words.startswith("efficientnet_lite0 at 16 pixels, cropped")


def test_few_groups_are_a_word_of_caution() -> None:
    images = load("digits:1,4@30", "train", image_size=8)
    assert describe_few_groups(images) is None
    keys = np.arange(60, dtype=np.uint64)
    assert describe_few_groups(replace(images, keys=1 + keys)) is None
    few = replace(images.subset(range(12)), keys=1 + keys[:12] // 2, digests=1 + keys[:12] // 2)
    assert describe_few_groups(few) is None  # copies are no groups
    said = describe_few_groups(replace(images, keys=1 + keys % 6))
    assert said is not None
    assert said.startswith(
        "the training pictures are of 6 groups only: pictures of other groups may be classified worse"
    )


def test_a_class_of_one_image_or_group_is_refused() -> None:
    with pytest.raises(UserError, match=r"class '1' has 1 training image\(s\), but .*: add pictures of it"):
        check_counts(load("digits:1,4@1", "train", image_size=8))
    images = replace(load("digits:1,4@3", "train", image_size=8), keys=np.array([1, 2, 0, 0, 3, 3], dtype=np.uint64))
    images = replace(images, labels=torch.tensor([0, 0, 0, 0, 1, 1]))
    with pytest.raises(
        UserError, match=r"the 2 training images of class '4' are copies or one group, but .*: add anoth"
    ):
        check_counts(images)
    grouped = replace(images, digests=np.arange(6, dtype=np.uint64))
    with pytest.raises(
        UserError, match=r"column of groups puts all 2 training images of class '4' .* \?group=none, or"
    ):
        check_counts(grouped)
    series = {"time:5": r" \(such as time:1\), or", "time:1": ", or", "parent": ", or add pictures of another series"}
    for rule, finer in series.items():
        sentence = f"group={rule} puts all 2 training images of class '4' in one group, .* a finer grouping{finer}"
        with pytest.raises(UserError, match=sentence):
            check_counts(replace(images, expression=f"folder:pets?group={rule}"))


@pytest.mark.parametrize(("method", "strength"), [("lda", 0.05), ("lda", 0.2), ("logistic", 1e-3)])
def test_what_folds_say_is_on_the_scale_of_the_head_that_is_kept(
    method: Method, strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads on four fifths of the images give logits of 1.51, 1.14 and 0.90 times this size here."""
    monkeypatch.setitem(STRENGTHS, method, (strength,))
    generator = np.random.default_rng(1)
    centres = 0.35 * generator.normal(size=(3, 400))
    labels = np.arange(3400) % 3
    features = (centres[labels] + generator.normal(size=(3400, 400))).astype(np.float32)
    some = labels[:400]
    found = judge(features[None, :400], some, folds=split_folds(some), backbone=Backbone(LITE0, 128), method=method)
    assert spread(found.logits) == pytest.approx(spread(found.head.logits(features[400:])), rel=0.03)

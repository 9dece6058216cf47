"""Which images are kept for people, and what is found of them, on the small run of the suite."""

import builtins

import numpy as np
import pytest
import torch

from reslab.evaluation import evaluate, gallery
from reslab.evaluation.doubts import find_doubts
from reslab.evaluation.gallery import choose_cells, choose_evenly, choose_looks, choose_sample, shrink
from reslab.runs import Doubts, Features, GalleryImages, HeatMaps, Predictions, read_exhibit

VIEWS = ("gallery-test.npz", "gallery-train.npz", "features-test.npz", "heatmaps-test.npz", "doubts-test.npz")


def test_evaluation_keeps_every_view_and_repeats_it(finished):
    before = {name: (finished.path / name).read_bytes() for name in VIEWS}
    evaluate(finished)
    for name, content in before.items():
        assert (finished.path / name).read_bytes() == content, name


def test_gallery_holds_what_the_other_views_show(finished):
    gallery = read_exhibit(finished.path, "test", GalleryImages)
    shown = set(gallery.indices.tolist())
    features = read_exhibit(finished.path, "test", Features)
    for kept in (features, read_exhibit(finished.path, "test", HeatMaps), read_exhibit(finished.path, "test", Doubts)):
        assert shown >= set(kept.indices.tolist())
    assert features.features.shape == (108, 32)
    assert len(gallery.images) == 108  # a small split: all of it
    maps = read_exhibit(finished.path, "test", HeatMaps).maps
    assert maps.max() == 255
    assert maps.shape[1:] == (2, 2)  # 8 pixels, halved twice


def test_without_the_extra_nothing_old_is_left(finished, monkeypatch):
    true_import = builtins.__import__

    def refuse(name, *arguments, **options):
        if name.split(".")[0] in ("captum", "cleanlab"):
            raise ModuleNotFoundError(name=name)
        return true_import(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    evaluate(finished, splits=["test"])
    assert not (finished.path / "heatmaps-test.npz").exists()
    assert not (finished.path / "doubts-test.npz").exists()
    assert (finished.path / "features-test.npz").exists()


def test_every_cell_gets_its_most_certain_images(monkeypatch):
    monkeypatch.setattr(gallery, "IMAGES_A_CELL", 2)
    monkeypatch.setattr(gallery, "NUM_HEAT_MAPS", 2)
    labels = np.array([0, 0, 0, 0, 1, 1])
    logits = np.array([[1, 0], [3, 0], [2, 0], [0, 1], [0, 5], [4, 0]], np.float32)
    chosen = choose_cells(Predictions(logits, labels))
    np.testing.assert_array_equal(chosen, [1, 2, 3, 4, 5])
    # At most three in all: the first of each cell that there is room for.
    np.testing.assert_array_equal(
        choose_evenly(np.array([0, 0, 1, 2]), certainty=np.array([0.9, 0.8, 0.7, 0.6]), each=2, most=3), [0, 2, 3]
    )
    right, wrong = choose_looks(Predictions(logits, labels))
    np.testing.assert_array_equal(right, [1, 4])
    np.testing.assert_array_equal(wrong, [5, 3])


def answers_among_many(num_classes=60, *, num_right=10):
    """Ten right answers of every class, and one image of it taken for each of the other classes."""
    truth, wrong = np.divmod(np.arange(num_classes**2), num_classes)
    labels = np.concatenate([truth, np.repeat(np.arange(num_classes), num_right - 1)])
    answers = np.concatenate([wrong, np.repeat(np.arange(num_classes), num_right - 1)])
    logits = np.random.default_rng(0).uniform(0, 0.5, (len(labels), num_classes)).astype(np.float32)
    logits[np.arange(len(labels)), answers] += 1
    return Predictions(logits, labels)


def test_no_class_goes_without_images_if_there_are_many():
    predictions = answers_among_many()
    chosen = choose_cells(predictions)
    assert len(chosen) == 1000
    right = predictions.logits[chosen].argmax(axis=1) == predictions.labels[chosen]
    assert set(predictions.labels[chosen[right]].tolist()) == set(range(60))
    assert set(predictions.labels[chosen[~right]].tolist()) == set(range(60))


def test_heat_maps_of_right_answers_are_spread_over_many_classes():
    predictions = answers_among_many()
    right, _ = choose_looks(predictions)
    assert sorted(predictions.labels[right].tolist()) == list(range(0, 60, 5))


def test_no_right_answer_means_no_heat_map_of_one():
    labels = np.arange(4) % 2
    right, wrong = choose_looks(Predictions(np.eye(2, dtype=np.float32)[1 - labels], labels))
    assert (len(right), len(wrong)) == (0, 4)


def test_sample_is_the_same_every_time():
    np.testing.assert_array_equal(choose_sample(2000), choose_sample(2000))
    assert len(choose_sample(2000)) == 800
    np.testing.assert_array_equal(choose_sample(5), np.arange(5))


def test_large_images_are_averaged():
    image = torch.arange(4, dtype=torch.uint8).repeat_interleave(64)[None, None, None].expand(1, 1, 128, 256)
    small = shrink(image)
    assert small.shape == (1, 1, 32, 64)
    assert small[0, 0, 0, [0, 16, 32, 48]].tolist() == [0, 1, 2, 3]


def test_a_flipped_label_is_doubted_first():
    generator = np.random.default_rng(0)
    labels = np.arange(300) % 3
    logits = generator.normal(size=(300, 3)).astype(np.float32)
    logits[np.arange(300), labels] += 6
    logits[[7, 31], labels[[7, 31]]] += 3  # as sure as a person would be
    labels = labels.copy()
    labels[[7, 31]] = (labels[[7, 31]] + 1) % 3
    doubts = find_doubts(Predictions(logits, labels))
    assert set(doubts.indices[:2].tolist()) == {7, 31}
    assert (np.diff(doubts.credibility) >= 0).all()


def test_a_network_doubts_no_more_labels_than_it_may():
    """Labels drawn by chance: confident learning alone would doubt half of what the network gets wrong and more."""
    generator = np.random.default_rng(0)
    labels = generator.integers(3, size=600)
    logits = generator.normal(size=(600, 3)).astype(np.float32)
    logits[np.arange(600), labels] += 30
    for num_wrong, most in ((60, 37), (130, 0)):  # 90 % and 78 %
        given = labels.copy()
        given[:num_wrong] = (given[:num_wrong] + 1) % 3
        assert len(find_doubts(Predictions(logits, given)).indices) == most


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 0, 1]])
def test_no_doubt_where_a_class_has_no_image(labels):
    assert find_doubts(Predictions(np.zeros((3, 3), np.float32), np.array(labels))) is None

"""Sets of classes against a naive reference, and how often they hold the truth."""

import math

import numpy as np
import pytest

from reslab.errors import UserError
from reslab.measure.class_sets import FEWEST, find_threshold, fit_class_sets, members
from reslab.measure.metrics import softmax


def draw(num, *, classes=7, seed=0, too_sure=1):
    """Probabilities, and labels drawn by them unless those are too sure."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(num, classes)) * 2
    labels = np.array([generator.choice(classes, p=row) for row in softmax(logits)])
    return softmax(too_sure * logits), labels


def naive_set(row, threshold):
    """Take classes from the top until those that are taken are together more probable than the threshold."""
    taken, mass = [], 0.0
    for label in sorted(range(len(row)), key=lambda label: -row[label]):
        if mass > threshold:
            break
        taken.append(label)
        mass += row[label]
    return set(taken)


def naive_threshold(probabilities, labels, coverage):
    """The least threshold at which the sets of ceil((n + 1) c) held-out images hold the truth."""
    needed = sorted(
        sum(p for p in row if p > row[label]) for row, label in zip(probabilities.tolist(), labels, strict=True)
    )
    return needed[math.ceil((len(labels) + 1) * coverage) - 1]


@pytest.mark.parametrize("coverage", [0.5, 0.83, 0.9, 0.95])
def test_sets_are_those_of_the_naive_reference(coverage):
    probabilities, labels = draw(300)
    threshold = find_threshold(fit_class_sets(probabilities, labels), coverage=coverage)
    assert threshold == pytest.approx(naive_threshold(probabilities, labels, coverage), abs=2e-6)
    coming, _ = draw(200, seed=1)
    for row, within in zip(coming, members(coming, threshold=threshold), strict=True):
        assert set(np.flatnonzero(within)) == naive_set(row, threshold)


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_they_hold_the_truth_as_often_as_was_promised(coverage):
    probabilities, labels = draw(20_000, too_sure=3)
    shares = []
    for seed in range(50):
        held, coming = np.split(np.random.default_rng(seed).permutation(len(labels))[:3000], [1000])
        threshold = find_threshold(fit_class_sets(probabilities[held], labels[held]), coverage=coverage)
        within = members(probabilities[coming], threshold=threshold)
        shares.append(within[np.arange(len(coming)), labels[coming]].mean())
        assert within.any(axis=1).all()
        assert (within.sum(axis=1) < 7).any()
    assert np.mean(shares) == pytest.approx(coverage, abs=0.006)


def test_a_class_that_will_be_more_frequent_counts_more():
    """A tenth of the held-out images, and most of those to come, may be of a class on which the network is bad."""
    generator = np.random.default_rng(0)

    def draw_classes(num, share):
        labels = (generator.random(num) > share).astype(np.int64) + generator.integers(0, 2, num)  # 0 to 2
        logits = generator.normal(size=(num, 3)) + np.where(labels == 0, 0.3, 4)[:, None] * np.eye(3)[labels]
        return softmax(logits), labels

    probabilities, labels = draw_classes(40_000, 0.1)
    coming, truth = draw_classes(20_000, 0.8)
    frequencies = (np.bincount(each, minlength=3) / len(each) for each in (truth, labels))
    weights = np.divide(*frequencies)[labels]
    sets = (fit_class_sets(probabilities, labels, weights=each) for each in (None, weights))
    plain, weighted = (members(coming, threshold=find_threshold(each, coverage=0.9)) for each in sets)
    assert weighted[np.arange(len(truth)), truth].mean() == pytest.approx(0.9, abs=0.015)
    assert plain[np.arange(len(truth)), truth].mean() < 0.8


def test_equal_weights_change_nothing_and_a_heavy_image_promises_little():
    probabilities, labels = draw(300)
    assert fit_class_sets(probabilities, labels, weights=np.full(300, 0.1)) == fit_class_sets(probabilities, labels)
    heavy = np.where(np.arange(300) == 7, 299.0, 1.0)  # the new image may be as heavy: a third of the total of 897
    assert fit_class_sets(probabilities, labels, weights=heavy).thresholds[-1][0] == pytest.approx(0.66)


def test_few_held_out_images_promise_little():
    probabilities, labels = draw(FEWEST)
    known = fit_class_sets(probabilities, labels)
    assert known.thresholds[-1][0] == 0.9
    with pytest.raises(UserError, match=r"0\.95 is more than 9 held-out images can promise: ask for 0\.9 or less"):
        find_threshold(known, coverage=0.95)
    assert fit_class_sets(probabilities[1:], labels[1:]) is None
    with pytest.raises(UserError, match="no held-out images; hold some out"):
        find_threshold(None, coverage=0.9)
    for share in (0.0, 1.0, 90.0, math.nan):
        with pytest.raises(UserError, match="between 0 and 1"):
            find_threshold(known, coverage=share)
    # What lies between two known coverages gets the larger one.
    assert find_threshold(known, coverage=0.895) == find_threshold(known, coverage=0.9)

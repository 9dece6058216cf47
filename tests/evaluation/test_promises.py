"""What became of promises, by hand, and that the stages before hand on what they need."""

import math

import numpy as np
import pytest

from reslab.evaluation.promises import least_share, measure_answered, measure_class_sets
from reslab.records import ClassSets
from reslab.runs import Familiarities, Predictions

# Probabilities 0.6, 0.3, 0.1; 0.2, 0.5, 0.3; 0.9, 0.06, 0.04; 0.4, 0.35, 0.25.
LOGITS = np.log([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.9, 0.06, 0.04], [0.4, 0.35, 0.25]]).astype(np.float32)
PREDICTIONS = Predictions(LOGITS, np.array([1, 0, 0, 1]))


def test_sets_of_classes_by_hand():
    known = ClassSets(num_images=30, thresholds=((0.9, 0.55), (0.95, 0.6)))
    narrow, wide = measure_class_sets(PREDICTIONS, known)  # 0.99 needs more held-out images
    # Below 0.55 come the first class alone, classes 1 and 2, class 0 alone, and classes 0 and 1.
    assert (narrow.promised, narrow.covered.value, narrow.size, narrow.single) == (0.9, 0.5, 1.5, 0.5)
    assert [each.value for each in narrow.per_class] == [0.5, 0.5, 0.0]
    # 0.6 admits what comes after exactly as much: class 1 of the first image.
    assert (wide.promised, wide.covered.value, wide.size) == (0.95, 0.75, 1.75)
    assert wide.covered.low < 0.75 < wide.covered.high
    assert measure_class_sets(PREDICTIONS, None) == ()


@pytest.mark.parametrize(("num_held_out", "num_images"), [(140, 288), (200, 10_000), (5000, 10_000), (19, 40)])
def test_a_kept_promise_measures_less_in_one_of_forty_cases(num_held_out, num_images):
    """By drawing held-out and test images: the threshold is the highest score but those beyond the promised share."""
    generator = np.random.default_rng(0)
    place = math.ceil((num_held_out + 1) * 0.95) - 1
    thresholds = np.sort(generator.random((4000, num_held_out)), axis=1)[:, place]
    measured = generator.binomial(num_images, thresholds) / num_images
    least = least_share(0.95, num_held_out=num_held_out, num_images=num_images)
    assert 0.01 < (measured < least).mean() < 0.033
    assert (measured < least + 0.01).mean() > 0.02


def test_answers_and_guesses_by_hand():
    """A familiarity of 0.05, a little more in 32 bits, is not answered."""
    found = measure_answered(PREDICTIONS, Familiarities(np.array([0.05, 0.2, 0.051, 0.9], np.float32)))
    assert (found.promised, found.answered.value) == (0.95, 0.75)
    assert found.accuracy.value == pytest.approx(1 / 3)
    assert found.accuracy_of_others.value == 0
    assert found.least is None
    assert measure_answered(PREDICTIONS, Familiarities(np.ones(4, np.float32)), num_held_out=200).least == 0.75
    assert measure_answered(PREDICTIONS, Familiarities(np.ones(4, np.float32))).accuracy_of_others is None

"""What became of promises, by hand, and that the stages before hand on what they need."""

import numpy as np
import pytest

from reslab.evaluation.promises import measure_answered, measure_class_sets
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


def test_answers_and_guesses_by_hand():
    """A familiarity of 0.05, a little more in 32 bits, is not answered."""
    found = measure_answered(PREDICTIONS, Familiarities(np.array([0.05, 0.2, 0.051, 0.9], np.float32)))
    assert (found.promised, found.answered.value) == (0.95, 0.75)
    assert found.accuracy.value == pytest.approx(1 / 3)
    assert found.accuracy_of_others.value == 0
    assert measure_answered(PREDICTIONS, Familiarities(np.ones(4, np.float32))).accuracy_of_others is None

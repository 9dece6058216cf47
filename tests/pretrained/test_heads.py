"""Heads against scikit-learn's, as one weight and one bias."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from reslab.pretrained.heads import Head, solve


def draw(num: int, *, num_features: int, num_classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    generator = np.random.default_rng(0)
    labels = generator.permutation(np.arange(num) % (2 * num_classes) % num_classes)  # unequal where num is odd
    shift = generator.normal(size=(num_classes, num_features))
    features = 3 + 2 * generator.normal(size=(num, num_features)) + shift[labels]
    return features.astype(np.float32), labels


CASES = [(31, 50, 3), (90, 20, 3), (41, 30, 2)]  # fewer rows than features, more, and two classes


@pytest.mark.parametrize(("num", "num_features", "num_classes"), CASES)
@pytest.mark.parametrize("shrinkage", [0.1, 0.9])
def test_discriminant_analysis_is_that_of_scikit_learn(
    num: int, num_features: int, num_classes: int, shrinkage: float
) -> None:
    features, labels = draw(num, num_features=num_features, num_classes=num_classes)
    (head,) = solve("lda", features, labels, strengths=(shrinkage,))
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(features.astype(np.float64), labels)
    ours, theirs = head.logits(features), reference.predict_log_proba(features.astype(np.float64))
    # The same up to what the softmax takes away.
    np.testing.assert_allclose(ours - ours[:, :1], theirs - theirs[:, :1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("num_features", [5, 50])
def test_classes_of_equal_pictures_are_told_apart(num_features: int) -> None:
    labels = np.arange(30) % 3
    features = np.random.default_rng(0).normal(size=(3, num_features))[labels].astype(np.float32)
    for head in solve("lda", features, labels, strengths=(0.05, 0.95)):
        logits = head.logits(features)
        assert np.isfinite(logits).all()
        assert (logits.argmax(1) == labels).all()


@pytest.mark.parametrize(("num", "num_features", "num_classes"), CASES)
def test_logistic_regression_is_that_of_scikit_learn(num: int, num_features: int, num_classes: int) -> None:
    features, labels = draw(num, num_features=num_features, num_classes=num_classes)
    heads = solve("logistic", features, labels, strengths=(1e-2, 1e-1))
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    for head, strength in zip(heads, (1e-2, 1e-1), strict=True):
        reference = LogisticRegression(C=strength, tol=1e-8, max_iter=1000).fit(scaled, labels)
        ours, theirs = head.logits(features), reference.predict_log_proba(scaled)
        np.testing.assert_allclose(ours - ours[:, :1], theirs - theirs[:, :1], atol=0.02)


def test_a_temperature_and_a_mean_are_parts_of_a_head() -> None:
    generator = np.random.default_rng(1)
    first, second = (Head(generator.normal(size=(3, 5)), generator.normal(size=3)) for _ in range(2))
    features = generator.normal(size=(4, 5))
    mean = (first.logits(features) + second.logits(features)) / 2
    np.testing.assert_allclose(first.averaged(second).divided(4.0).logits(features), mean / 4)

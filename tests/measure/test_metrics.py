"""Metrics against values computed by hand, naive references, scikit-learn and SciPy."""

import math
import warnings

import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics

from reslab.measure import metrics

CLASSES = 7


def noisy(*, seed, num=300, classes=CLASSES, signal=1.5):
    """Logits and labels of a classifier that is often, but not always, right."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=num)
    logits = generator.normal(size=(num, classes)).astype(np.float32)
    logits[np.arange(num), labels] += signal
    return logits, labels


def matrix_of(labels, predicted, classes=CLASSES):
    return metrics.confusion_matrix(np.asarray(labels), predicted=np.asarray(predicted), num_classes=classes)


# ---- confusion matrices


def test_figures_of_a_matrix_computed_by_hand():
    figures = metrics.matrix_figures(np.array([[3, 1, 0], [1, 2, 0], [2, 0, 1]]))
    assert figures.accuracy == pytest.approx(6 / 10)
    np.testing.assert_allclose(figures.precision, [3 / 6, 2 / 3, 1 / 1])
    np.testing.assert_allclose(figures.recall, [3 / 4, 2 / 3, 1 / 3])
    np.testing.assert_allclose(figures.f1, [6 / 10, 4 / 6, 2 / 4])
    assert figures.macro_precision == pytest.approx(13 / 18)
    assert figures.macro_recall == figures.balanced_accuracy == pytest.approx(7 / 12)
    assert figures.macro_f1 == pytest.approx(53 / 90)


def test_rows_are_true_and_columns_predicted_classes():
    assert matrix_of([0, 0, 2], [0, 2, 1], classes=3).tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def _never_predicted(labels, predicted):
    return labels, np.where(predicted == 3, 0, predicted)


def _absent(labels, predicted):
    return np.where(labels == 3, 1, labels), predicted


def _neither(labels, predicted):
    return np.where(labels == 3, 1, labels), np.where(predicted == 3, 0, predicted)


@pytest.mark.parametrize("change", [lambda *both: both, _never_predicted, _absent, _neither])
@pytest.mark.parametrize("seed", range(3))
def test_figures_of_matrices_are_those_of_scikit_learn(change, seed):
    logits, labels = noisy(seed=seed)
    labels, predicted = change(labels, logits.argmax(1))
    matrix = matrix_of(labels, predicted)
    ours = metrics.matrix_figures(matrix)
    every = range(CLASSES)
    np.testing.assert_array_equal(matrix, sklearn.metrics.confusion_matrix(labels, predicted, labels=every))
    settings = {"labels": every, "zero_division": 0}
    per_class = sklearn.metrics.precision_recall_fscore_support(labels, predicted, **settings)[:3]
    macro = sklearn.metrics.precision_recall_fscore_support(labels, predicted, average="macro", **settings)[:3]
    np.testing.assert_allclose((ours.precision, ours.recall, ours.f1), per_class, rtol=1e-12)
    np.testing.assert_allclose((ours.macro_precision, ours.macro_recall, ours.macro_f1), macro, rtol=1e-12)
    assert ours.accuracy == pytest.approx(sklearn.metrics.accuracy_score(labels, predicted), rel=1e-12)
    with warnings.catch_warnings(action="ignore"):  # scikit-learn warns of predicted classes that are absent
        assert ours.balanced_accuracy == pytest.approx(sklearn.metrics.balanced_accuracy_score(labels, predicted))


def test_a_batch_of_matrices_has_the_figures_of_each():
    matrices = np.random.default_rng(0).integers(3, size=(2, 4, CLASSES, CLASSES))
    batch = metrics.matrix_figures(matrices)
    for i, j in np.ndindex(2, 4):
        for together, alone in zip(batch, metrics.matrix_figures(matrices[i, j]), strict=True):
            np.testing.assert_allclose(together[i, j], alone)


# ---- probabilities


def test_log_softmax_is_scipys_and_survives_huge_logits():
    logits, _ = noisy(seed=0)
    np.testing.assert_allclose(metrics.log_softmax(logits), scipy.special.log_softmax(logits.astype(float), axis=1))
    huge = np.array([[1e30, -1e30, 0.0], [-1e30, -1e30, -1e30]], np.float32)
    np.testing.assert_allclose(metrics.softmax(huge), np.array([[1, 0, 0], [1 / 3] * 3]))
    assert np.isfinite(metrics.log_softmax(huge)).all()


@pytest.mark.parametrize("signal", [0.0, 1.5, 6.0])
def test_log_loss_is_that_of_scikit_learn(signal):
    logits, labels = noisy(seed=1, signal=signal)
    figures = metrics.probability_figures(metrics.image_terms(logits, labels=labels).mean(0))
    expected = sklearn.metrics.log_loss(labels, metrics.softmax(logits), labels=range(CLASSES))
    assert figures.log_loss == pytest.approx(expected, rel=1e-9)


def test_log_loss_of_a_certain_error_is_not_clipped():
    terms = metrics.image_terms(np.array([[0.0, 1000.0]], np.float32), labels=np.array([0]))
    assert metrics.probability_figures(terms.mean(0)).log_loss == 1000


def naive_calibration_error(logits, labels):
    confidence = metrics.softmax(logits).max(1)
    right = logits.argmax(1) == labels
    error = 0.0
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


@pytest.mark.parametrize("signal", [0.0, 1.5, 6.0])
def test_calibration_error_is_that_of_a_loop_over_bins(signal):
    logits, labels = noisy(seed=2, signal=signal)
    figures = metrics.probability_figures(metrics.image_terms(logits, labels=labels).mean(0))
    assert figures.expected_calibration_error == pytest.approx(naive_calibration_error(logits, labels), rel=1e-9)


def test_calibration_error_computed_by_hand():
    # Two images at 0.9, one right: |1/2 - 0.9| on half of the images; two at 0.6, both right: |1 - 0.6| on the rest.
    logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    terms = metrics.image_terms(logits, labels=np.array([0, 1, 1, 1]))
    figures = metrics.probability_figures(terms.mean(0))
    assert figures.expected_calibration_error == pytest.approx(0.4 / 2 + 0.4 / 2)
    assert figures.log_loss == pytest.approx(-(math.log(0.9) + math.log(0.1) + 2 * math.log(0.6)) / 4)


def test_top_five_is_that_of_scikit_learn():
    logits, labels = noisy(seed=3, classes=20, signal=0.5)
    ours = metrics.top_k_hits(logits, labels=labels, k=5).mean()
    assert ours == sklearn.metrics.top_k_accuracy_score(labels, logits, k=5, labels=range(20))


def test_top_k_gives_ties_to_the_lower_class_as_argmax_does():
    labels = np.arange(CLASSES)
    hits = metrics.top_k_hits(np.zeros((CLASSES, CLASSES)), labels=labels, k=5)
    assert hits.tolist() == [True] * 5 + [False] * 2
    logits = np.random.default_rng(0).integers(3, size=(200, CLASSES)).astype(np.float32)
    labels = np.arange(200) % CLASSES
    np.testing.assert_array_equal(metrics.top_k_hits(logits, labels=labels, k=1), logits.argmax(1) == labels)


# ---- mistakes


def test_mistakes_are_listed_the_most_certain_first():
    logits = np.log([(0.6, 0.4), (0.1, 0.9), (0.2, 0.8), (0.1, 0.9), (0.6, 0.4), (0.3, 0.7)])
    labels = np.array([1, 0, 1, 0, 1, 0])  # only the third is right; 1 and 3, 0 and 4 are equally certain
    assert metrics.confident_mistakes(logits, labels).tolist() == [1, 3, 5, 0, 4]
    assert metrics.confident_mistakes(logits, labels, limit=2).tolist() == [1, 3]
    assert len(metrics.confident_mistakes(np.tile(logits, (500, 1)), np.tile(labels, 500), limit=None)) == 2500


def test_a_perfect_network_makes_no_mistake():
    assert metrics.confident_mistakes(np.eye(3, dtype=np.float32), np.arange(3)).shape == (0,)


# ---- McNemar


def predictions_with(only_first, only_second, both=5, neither=2):
    """Labels all 0, and two sets of predictions that are right on so many images."""
    first = np.repeat([0, 1, 0, 1], [only_first, only_second, both, neither])
    second = np.repeat([1, 0, 0, 1], [only_first, only_second, both, neither])
    return metrics.mcnemar(np.zeros_like(first), first=first, second=second)


def test_mcnemar_of_few_pairs_computed_by_hand():
    result = predictions_with(9, 1)
    assert (result.only_first, result.only_second) == (9, 1)
    assert result.p_value == 2 * (1 + 10) / 1024


def test_mcnemar_of_many_pairs_computed_by_hand():
    # (|150 - 86| - 1)² / (150 + 86) = 16.8178
    assert predictions_with(150, 86).p_value == pytest.approx(scipy.stats.chi2.sf(3969 / 236, df=1), rel=1e-9)


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 0), (4, 4), (3, 11), (0, 24), (12, 12), (7, 17)])
def test_mcnemar_below_25_pairs_is_the_binomial_test(only_first, only_second):
    total = only_first + only_second
    expected = scipy.stats.binomtest(only_first, total).pvalue if total else 1.0
    assert predictions_with(only_first, only_second).p_value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("only_first", "only_second"), [(12, 13), (25, 25), (0, 25), (400, 300)])
def test_mcnemar_from_25_pairs_is_the_corrected_chi_square(only_first, only_second):
    statistic = max(0, abs(only_first - only_second) - 1) ** 2 / (only_first + only_second)
    expected = scipy.stats.chi2.sf(statistic, df=1)
    assert predictions_with(only_first, only_second).p_value == pytest.approx(expected, rel=1e-9)
    assert predictions_with(only_second, only_first).p_value == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_equal_predictions_finds_no_difference():
    assert predictions_with(0, 0) == metrics.McNemar(only_first=0, only_second=0, p_value=1.0)

"""Metrics against values computed by hand, naive references, scikit-learn and SciPy."""

import math
import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics

from reslab import metrics

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
    np.testing.assert_allclose(metrics.softmax(huge), [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])
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
    logits = np.random.default_rng(0).integers(3, size=(200, CLASSES))
    labels = np.arange(200) % CLASSES
    np.testing.assert_array_equal(metrics.top_k_hits(logits, labels=labels, k=1), logits.argmax(1) == labels)


# ---- intervals


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [  # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_is_the_published_one(successes, total, low, high):
    interval = metrics.wilson_interval(np.array(successes), total=np.array(total))
    assert (round(float(interval.low), 4), round(float(interval.high), 4)) == (low, high)


def test_wilson_interval_is_scipys_and_holds_the_share():
    successes, total = np.array([0, 0, 3, 7, 7, 9999]), np.array([1, 7, 7, 7, 100, 10_000])
    for confidence in (0.9, 0.95):
        low, high = metrics.wilson_interval(successes, total=total, confidence=confidence)
        for i, (hits, num) in enumerate(zip(successes, total, strict=True)):
            theirs = scipy.stats.binomtest(hits, num).proportion_ci(confidence, method="wilson")
            assert (low[i], high[i]) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
        assert ((low >= 0) & (low <= successes / total)).all()
        assert ((high <= 1) & (high >= successes / total)).all()


def test_wilson_interval_of_no_images_says_nothing():
    interval = metrics.wilson_interval(np.array([0]), total=np.array([0]))
    assert (interval.low.item(), interval.high.item()) == (0, 1)


def test_percentile_interval_leaves_equal_tails():
    samples = np.stack([np.arange(1001.0), np.arange(1001.0)[::-1] / 1000], axis=1)
    interval = metrics.percentile_interval(samples, values=np.array([500.0, 0.5]))
    np.testing.assert_allclose(interval.low, [25, 0.025])
    np.testing.assert_allclose(interval.high, [975, 0.975])
    narrow = metrics.percentile_interval(samples, values=np.array([500.0, 0.5]), confidence=0.5)
    np.testing.assert_allclose(narrow.low, [250, 0.25])


def test_percentile_interval_is_stretched_to_a_figure_that_the_bootstrap_misses():
    samples = np.arange(1001.0)
    assert metrics.percentile_interval(samples, values=np.array(10.0)) == pytest.approx((10, 975))
    assert metrics.percentile_interval(samples, values=np.array(990.0)) == pytest.approx((25, 990))


# ---- the bootstrap


def test_resampling_a_matrix_is_resampling_its_images():
    logits, labels = noisy(seed=4, num=60)
    predicted = logits.argmax(1)
    generator = np.random.default_rng(0)
    cells = metrics.resample_matrix(matrix_of(labels, predicted), resamples=4000, generator=generator)
    draws = generator.integers(60, size=(4000, 60))
    matrices = np.stack([matrix_of(labels[draw], predicted[draw]) for draw in draws])
    images = metrics.matrix_figures(matrices)
    for name in metrics.MatrixFigures._fields:
        ours, naive = getattr(cells, name), getattr(images, name)
        assert ours.shape == naive.shape
        np.testing.assert_allclose(ours.mean(0), naive.mean(0), atol=0.02, err_msg=name)
        np.testing.assert_allclose(ours.std(0), naive.std(0), rtol=0.08, atol=1e-9, err_msg=name)


def test_resampling_terms_is_resampling_images():
    logits, labels = noisy(seed=5, num=60)
    terms = metrics.image_terms(logits, labels=labels)
    ours = metrics.resample_terms(terms, resamples=200, generator=np.random.default_rng(7))
    generator = np.random.default_rng(7)
    for i in range(200):
        draw = generator.integers(60, size=60)
        expected = metrics.probability_figures(metrics.image_terms(logits[draw], labels=labels[draw]).mean(0))
        assert (ours.log_loss[i], ours.expected_calibration_error[i]) == pytest.approx(tuple(map(float, expected)))


def test_the_bootstrap_overrates_the_calibration_error_of_a_calibrated_network():
    generator = np.random.default_rng(0)
    right = generator.random(3000) < 0.7
    terms = np.zeros((3000, 16))
    terms[np.arange(3000), 1 + np.arange(3000) % 15] = 0.7 - right  # all that is left is the noise of 15 bins
    value = metrics.probability_figures(terms.mean(0)).expected_calibration_error
    samples = metrics.resample_terms(terms, resamples=300, generator=generator).expected_calibration_error
    # The noise of the resample adds to that of the sample: twice the variance.
    assert 1.2 < samples.mean() / value < 1.7


def test_batches_of_matrices_change_nothing(monkeypatch):
    matrix = matrix_of(*(np.random.default_rng(0).integers(CLASSES, size=(2, 90))))
    whole = metrics.resample_matrix(matrix, resamples=50, generator=np.random.default_rng(1))
    monkeypatch.setattr(metrics, "_BATCH", 3 * CLASSES**2)
    parts = metrics.resample_matrix(matrix, resamples=50, generator=np.random.default_rng(1))
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_macro_f1_of_the_population_lies_in_its_interval_about_as_often_as_promised():
    population = np.array([[0.30, 0.05, 0.02], [0.06, 0.22, 0.05], [0.04, 0.05, 0.21]])
    truth = metrics.matrix_figures(np.round(population * 100).astype(int)).macro_f1
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(600):
        sample = generator.multinomial(200, population.ravel()).reshape(3, 3)
        drawn = metrics.resample_matrix(sample, resamples=300, generator=generator).macro_f1
        low, high = metrics.percentile_interval(drawn, values=metrics.matrix_figures(sample).macro_f1)
        inside += low <= truth <= high
    assert 0.91 <= inside / 600 <= 0.975


def test_log_loss_of_the_population_lies_in_its_interval_about_as_often_as_promised():
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        terms = np.zeros((200, 16))
        terms[:, 0] = generator.exponential(0.5, size=200)
        drawn = metrics.resample_terms(terms, resamples=150, generator=generator).log_loss
        low, high = metrics.percentile_interval(drawn, values=terms[:, 0].mean())
        inside += low <= 0.5 <= high
    assert 0.9 <= inside / 200 <= 0.985


@pytest.mark.parametrize(("num", "classes"), [(50_000, 20), (2000, 300)])
def test_a_thousand_resamples_stay_well_under_a_gigabyte(num, classes):
    logits, labels = noisy(seed=6, num=num, classes=classes)
    terms = metrics.image_terms(logits, labels=labels)
    matrix = matrix_of(labels, logits.argmax(1), classes=classes)
    tracemalloc.start()
    metrics.resample_terms(terms, resamples=1000, generator=np.random.default_rng(0))
    metrics.resample_matrix(matrix, resamples=1000, generator=np.random.default_rng(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e8


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


# ---- paired bootstraps


def naive_macro_f1(labels, predicted, num_classes):
    parts = []
    for k in range(num_classes):
        both, either = ((labels == k) & (predicted == k)).sum(), (labels == k).sum() + (predicted == k).sum()
        parts.append(2 * both / either if either else 0.0)
    return float(np.mean(parts))


def test_gain_counts_images_won_less_images_lost():
    before, after = np.array([1, 1, 0, 0, 0, 1, 0, 0], bool), np.array([1, 0, 1, 1, 1, 1, 0, 0], bool)
    gains = metrics.resample_gain(before, after=after, resamples=4000, generator=np.random.default_rng(0))
    # Each of eight draws is +1 with probability 3/8 and -1 with 1/8.
    assert gains.mean() == pytest.approx(2 / 8, abs=0.01)
    assert gains.var() == pytest.approx((4 / 8 - (2 / 8) ** 2) / 8, rel=0.06)
    assert set(np.round(8 * gains)) <= set(range(-8, 9))
    same = metrics.resample_gain(after, after=after, resamples=50, generator=np.random.default_rng(0))
    assert not same.any()


def test_macro_f1_difference_is_that_of_images_drawn_with_both_predictions():
    generator = np.random.default_rng(1)
    labels = generator.integers(4, size=300)
    first = np.where(generator.random(300) < 0.2, generator.integers(4, size=300), labels)
    second = np.where(generator.random(300) < 0.2, generator.integers(4, size=300), first)
    settings = {"num_classes": 4, "resamples": 2000}
    value, samples = metrics.macro_f1_difference(labels, first=first, second=second, **settings, generator=generator)
    assert value == pytest.approx(naive_macro_f1(labels, first, 4) - naive_macro_f1(labels, second, 4))
    naive = []
    for _ in range(2000):
        chosen = generator.integers(300, size=300)
        ours, theirs = (naive_macro_f1(labels[chosen], each[chosen], 4) for each in (first, second))
        naive.append(ours - theirs)
    assert samples.shape == (2000,)
    np.testing.assert_allclose(
        np.quantile(samples, [0.025, 0.5, 0.975]), np.quantile(naive, [0.025, 0.5, 0.975]), atol=0.006
    )
    value, samples = metrics.macro_f1_difference(labels, first=first, second=first, **settings, generator=generator)
    assert value == 0
    assert not samples.any()

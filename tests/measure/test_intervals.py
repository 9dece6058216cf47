"""Intervals against published values, SciPy and naive references, and how often they hold the truth."""

import json
import math
import runpy
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from reslab.measure import intervals, metrics
from reslab.measure.estimates import class_figures, gain, macro_figures, proportion, share_of
from reslab.measure.intervals import (
    Interval,
    difference_interval,
    f1_interval,
    gain_interval,
    macro_f1_difference,
    macro_interval,
    proportion_interval,
)
from reslab.records import Estimate

Z = 1.959963984540054
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "coverage.py"
RECORD, COVERAGE = SCRIPT.with_suffix(".json"), runpy.run_path(str(SCRIPT))


def ends(interval):
    return float(interval.low), float(interval.high)


# ---- proportions


def test_a_proportion_has_the_interval_of_jeffreys():
    for hits, num in ((3, 7), (5, 20), (81, 263), (9306, 10_000)):
        expected = scipy.stats.beta(hits + 0.5, num - hits + 0.5).ppf([0.025, 0.975])
        assert ends(proportion_interval(np.array(hits), total=np.array(num))) == pytest.approx(tuple(expected))


def test_at_most_one_error_or_hit_has_that_of_clopper_and_pearson():
    for hits in (0, 36):
        exact = scipy.stats.binomtest(hits, 36).proportion_ci(method="exact")
        assert ends(proportion_interval(np.array(hits), total=np.array(36))) == pytest.approx((exact.low, exact.high))
    # An observed error excludes a share of 1.
    exact = scipy.stats.binomtest(35, 36).proportion_ci(method="exact")
    assert ends(proportion_interval(np.array(35), total=np.array(36)))[1] == pytest.approx(exact.high)
    assert ends(proportion_interval(np.array(1), total=np.array(36)))[0] == pytest.approx(1 - exact.high)
    assert exact.high < 0.9994


def test_a_proportion_lies_in_its_interval():
    total = np.repeat([1, 2, 20, 1000], 50)
    hits = np.minimum(np.tile(np.arange(50), 4), total)
    low, high = proportion_interval(hits, total=total)
    assert ((low >= 0) & (low <= hits / total) & (hits / total <= high) & (high <= 1) & (low < high)).all()


def test_of_no_images_any_proportion_is_possible():
    assert ends(proportion_interval(np.array(0), total=np.array(0))) == (0, 1)
    assert proportion(np.array(0), total=np.array(0)) == Estimate(value=0, low=0, high=1)


def test_the_share_of_answers_is_a_proportion_of_images():
    assert share_of(np.array([True, False, True])) == proportion(np.array(2), total=np.array(3))


def test_large_sets_have_nearly_the_interval_of_wilson():
    theirs = scipy.stats.binomtest(9306, 10_000).proportion_ci(method="wilson")
    ours = ends(proportion_interval(np.array(9306), total=np.array(10_000)))
    assert ours == pytest.approx((theirs.low, theirs.high), abs=5e-5)


def test_f1_is_a_share_of_hits_among_hits_and_errors():
    low, high = proportion_interval(np.array(8), total=np.array(8 + 3))
    assert ends(f1_interval(np.array(8), errors=np.array(3))) == pytest.approx(
        (2 * float(low) / (1 + float(low)), 2 * float(high) / (1 + float(high)))
    )


# ---- macro averages


def noisy_matrix(*, num=3000, classes=5, seed=0, right=0.85):
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=num)
    predicted = np.where(generator.random(num) < right, labels, generator.integers(classes, size=num))
    return metrics.confusion_matrix(labels, predicted=predicted, num_classes=classes)


@pytest.mark.parametrize("figure", ["accuracy", "precision", "recall", "f1"])
def test_of_many_images_it_is_the_interval_of_the_bootstrap(figure):
    matrix = noisy_matrix()
    drawn = np.random.default_rng(1).multinomial(matrix.sum(), matrix.ravel() / matrix.sum(), size=4000)
    samples = getattr(metrics.matrix_figures(drawn.reshape(-1, 5, 5)), figure)
    samples = samples if figure == "accuracy" else samples.mean(axis=-1)
    assert ends(macro_interval(matrix, figure=figure)) == pytest.approx(
        tuple(np.quantile(samples, [0.025, 0.975])), abs=0.0025
    )
    if figure != "accuracy":
        some = getattr(metrics.matrix_figures(drawn.reshape(-1, 5, 5)), figure)[:, 3:].mean(axis=1)
        assert ends(macro_interval(matrix, figure=figure, over=slice(3, None))) == pytest.approx(
            tuple(np.quantile(some, [0.025, 0.975])), abs=0.0035
        )


@pytest.mark.parametrize("figure", ["accuracy", "precision", "recall", "f1"])
def test_weighted_rows_count_as_in_the_weighted_bootstrap(figure):
    matrix, weights = noisy_matrix(), np.array([3.0, 1.0, 0.2, 1.0, 1.0])
    drawn = np.random.default_rng(1).multinomial(matrix.sum(), matrix.ravel() / matrix.sum(), size=4000)
    samples = getattr(metrics.matrix_figures(drawn.reshape(-1, 5, 5) * weights[:, None]), figure)
    samples = samples if figure == "accuracy" else samples.mean(axis=-1)
    assert ends(macro_interval(matrix, figure=figure, weights=weights)) == pytest.approx(
        tuple(np.quantile(samples, [0.025, 0.975])), abs=0.004
    )


def test_no_error_is_no_certainty():
    figures = macro_figures(np.diag([12, 12, 12]))
    accuracy = proportion(np.array(36), total=np.array(36))
    for name, each in figures.items():
        assert each.value == each.high == 1
        assert each.low == pytest.approx(accuracy.low, abs=0.002), name  # of equal classes it is the accuracy's own
    (first, *_) = class_figures(np.diag([12, 12, 12]))
    assert first.precision.low == first.recall.low == pytest.approx(0.025 ** (1 / 12))


def test_each_class_has_half_an_error_and_half_a_hit_that_nobody_saw():
    """Against slopes by differences, of the matrix with what was not seen added."""
    matrix = np.array([[6, 1, 0], [2, 4, 1], [0, 0, 3]])
    smooth = matrix + np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]])

    def macro_f1(cells):
        return (2 * np.diag(cells) / (cells.sum(0) + cells.sum(1))).mean()

    steps = 1e-6 * np.eye(9).reshape(9, 3, 3)
    slope = np.array([macro_f1(smooth + step) - macro_f1(smooth - step) for step in steps]).reshape(3, 3) / 2e-6
    mean = macro_f1(smooth)
    alike = mean * (1 - mean) / ((smooth * slope**2).sum() * smooth.sum() / matrix.sum())
    expected = proportion_interval(macro_f1(matrix) * alike, total=alike)
    assert ends(macro_interval(matrix, figure="f1")) == pytest.approx(ends(expected), abs=1e-6)


def test_a_class_of_one_image_counts_as_much_as_any_other():
    low, high = macro_interval(np.array([[0, 1], [0, 50]]), figure="recall")
    assert low < 0.4
    assert high == pytest.approx((1 + 0.975) / 2)  # of one image that is wrong, the recall may be up to 0.975


@pytest.mark.parametrize(
    ("supports", "recalls"),
    [
        ((200, 200, 5), (0.9, 0.88, 0.7)),
        ((200, 20), (0.97, 0.9)),
        ((100, 100, 10), (0.95, 0.95, 0.85)),
        ((100,) * 9 + (5,), (0.95,) * 9 + (0.7,)),
    ],
)
def test_a_mean_recall_is_in_its_interval_if_one_class_is_rare(supports, recalls):
    """Its few images may all be right by chance."""
    hits = np.random.default_rng(0).binomial(supports, recalls, size=(400, len(supports)))
    held = 0
    for right in hits:
        wrong = np.array(supports) - right
        matrix = np.diag(right)
        matrix[np.arange(len(supports)), np.arange(len(supports)) - 1] += wrong
        low, high = macro_interval(matrix, figure="recall")
        held += low <= np.mean(recalls) <= high
    assert held / len(hits) >= 0.93


def test_a_mean_recall_over_rare_and_frequent_classes_adds_squared_distances():
    matrix = np.array([[180, 20, 0], [10, 190, 0], [0, 0, 5]])
    recall, own = np.array([0.9, 0.95, 1]), proportion_interval(matrix.diagonal(), total=matrix.sum(axis=1))
    low, high = macro_interval(matrix, figure="recall")
    assert low == pytest.approx(0.95 - math.sqrt(((recall - own.low) ** 2).sum()) / 3)
    assert high >= 0.95 + math.sqrt(((own.high - recall) ** 2).sum()) / 3 - 1e-12
    frequent = macro_interval(matrix, figure="recall", over=slice(2))  # of these alone, no class is rare
    alone = macro_interval(matrix[:2, :2], figure="recall")
    assert ends(frequent) == pytest.approx(ends(alone), abs=1e-3)


def test_macro_recall_is_balanced_accuracy_and_has_its_interval():
    figures = macro_figures(noisy_matrix(num=60))
    assert figures["macro_recall"] == figures["balanced_accuracy"]
    # A class without images counts as 0 in macro recall alone.
    matrix = np.array([[5, 1, 0], [1, 5, 0], [0, 0, 0]])
    figures = macro_figures(matrix)
    assert figures["macro_recall"].value == pytest.approx(2 / 3 * figures["balanced_accuracy"].value)
    assert figures["macro_recall"].high == pytest.approx(2 / 3 * figures["balanced_accuracy"].high)


# ---- paired differences


def naive_gain_interval(gained, lost, total):
    """Test every gain on a grid: the share of losses is the one that makes the data most probable."""

    def is_possible(gain):
        def surprise(share):
            chances = (share + gain, share, 1 - gain - 2 * share)
            return -sum(
                count * math.log(max(chance, 1e-300))
                for count, chance in zip((gained, lost, total - gained - lost), chances, strict=True)
            )

        bounds = (max(0.0, -gain), (1 - gain) / 2)
        share = scipy.optimize.minimize_scalar(surprise, bounds=bounds, method="bounded", options={"xatol": 1e-9}).x
        return (gained - lost - total * gain) ** 2 <= Z**2 * total * (2 * share + gain * (1 - gain))

    grid = np.linspace(-0.999, 0.999, 1999)
    possible = [gain for gain in grid if is_possible(gain)]
    return min(possible), max(possible)


@pytest.mark.parametrize(("gained", "lost", "total"), [(0, 0, 36), (5, 1, 36), (1, 7, 50), (0, 4, 20), (30, 22, 400)])
def test_a_gain_has_the_interval_of_tangos_score(gained, lost, total):
    found = ends(gain_interval(gained, lost=lost, total=total))
    assert found == pytest.approx(naive_gain_interval(gained, lost, total), abs=0.0015)
    mirrored = ends(gain_interval(lost, lost=gained, total=total))
    assert mirrored == pytest.approx((-found[1], -found[0]), abs=1e-9)


def test_the_difference_of_two_proportions_has_newcombes_interval():
    """His example (h): 56 of 70 less 48 of 80 has 0.2 (0.0524 to 0.3339), by intervals of Wilson."""

    def wilson(hits, total):
        centre, root = hits + Z**2 / 2, Z * math.sqrt(Z**2 / 4 + hits * (1 - hits / total))
        return Interval(*(np.asarray((centre + sign * root) / (total + Z**2)) for sign in (-1, 1)))

    found = difference_interval(wilson(48, 80), wilson(56, 70), values=(48 / 80, 56 / 70))
    assert ends(found) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_equal_answers_may_yet_differ_on_other_images():
    right = np.ones(36, dtype=bool)
    found = gain(right, after=right)
    assert found.value == 0
    assert -found.low == pytest.approx(found.high)
    assert found.high == pytest.approx(Z**2 / (36 + Z**2))  # by hand: all of the variance is gain · (1 - gain)
    assert gain_interval(5, lost=0, total=5).high == 1


def naive_macro_f1(labels, predicted, num_classes):
    parts = []
    for k in range(num_classes):
        both, either = ((labels == k) & (predicted == k)).sum(), (labels == k).sum() + (predicted == k).sum()
        parts.append(2 * both / either if either else 0.0)
    return float(np.mean(parts))


def test_macro_f1_difference_is_that_of_images_drawn_with_both_predictions():
    generator = np.random.default_rng(1)
    labels = generator.integers(4, size=300)
    first = np.where(generator.random(300) < 0.2, generator.integers(4, size=300), labels)
    second = np.where(generator.random(300) < 0.2, generator.integers(4, size=300), first)
    value, interval = macro_f1_difference(labels, first=first, second=second, num_classes=4)
    assert value == pytest.approx(naive_macro_f1(labels, first, 4) - naive_macro_f1(labels, second, 4))
    naive = []
    for _ in range(2000):
        chosen = generator.integers(300, size=300)
        ours, theirs = (naive_macro_f1(labels[chosen], each[chosen], 4) for each in (first, second))
        naive.append(ours - theirs)
    assert ends(interval) == pytest.approx(tuple(np.quantile(naive, [0.025, 0.975])), abs=0.006)


def test_equal_predictions_may_yet_differ_in_macro_f1():
    labels = np.arange(36) % 3
    value, interval = macro_f1_difference(labels, first=labels, second=labels, num_classes=3)
    assert value == 0
    assert 0.05 < interval.high < 0.12
    assert interval.low == pytest.approx(-interval.high)


# ---- log loss and calibration error


def noisy(*, seed, num=300, classes=7, signal=1.5):
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=num)
    logits = generator.normal(size=(num, classes)).astype(np.float32)
    logits[np.arange(num), labels] += signal
    return logits, labels


def log_losses(logits, labels, *, resamples=1500):
    terms, unseen = metrics.image_terms(logits, labels=labels), metrics.unseen_error(logits)
    generator = np.random.default_rng(0)
    return terms, intervals.resample_terms(terms, unseen=unseen, resamples=resamples, generator=generator)


def test_of_many_images_resampling_is_drawing_them_with_replacement():
    terms, drawn = log_losses(*noisy(seed=5, num=2000))
    generator = np.random.default_rng(7)
    naive = [terms[generator.integers(2000, size=2000), 0].mean() for _ in range(1500)]
    ours, theirs = (np.quantile(each, [0.025, 0.975]) for each in (drawn.log_loss, naive))
    assert ours == pytest.approx(theirs, abs=0.005)


def test_an_unseen_error_is_as_sure_of_itself_as_the_answers_are():
    logits = np.log(np.array([[0.9, 0.06, 0.04], [0.2, 0.1, 0.7]]))
    found = metrics.unseen_error(logits)
    assert found[0] == pytest.approx(-(math.log(0.06) + math.log(0.2)) / 2)
    assert found[1:].sum() == pytest.approx((0.9 + 0.7) / 2)


def test_no_error_leaves_doubt_about_the_log_loss():
    labels = np.arange(36) % 3
    terms, drawn = log_losses(8 * np.eye(3)[labels], labels)
    low, high = intervals.percentile_interval(drawn.log_loss, values=terms[:, 0].mean())
    assert low < 0.01
    assert 0.2 < high < 1  # an error at this confidence costs 8


def test_the_bootstrap_overrates_the_calibration_error_of_a_calibrated_network():
    generator = np.random.default_rng(0)
    right = generator.random(3000) < 0.7
    terms = np.zeros((3000, 16))
    terms[np.arange(3000), 1 + np.arange(3000) % 15] = 0.7 - right  # all that is left is the noise of 15 bins
    value = metrics.probability_figures(terms.mean(0)).expected_calibration_error
    drawn = intervals.resample_terms(terms, unseen=terms.mean(0), resamples=300, generator=generator)
    # The noise of the resample adds to that of the sample: twice the variance.
    assert 1.2 < drawn.expected_calibration_error.mean() / value < 1.7


def test_chance_lowers_the_interval_of_a_calibration_error():
    found = Interval(np.array(0.05), np.array(0.09))
    chance = np.linspace(0, 0.04, 1001)  # of which 2.5 % are above 0.039
    assert intervals.lowered(found, values=np.array(0.06), chance=chance) == pytest.approx((0.021, 0.09))
    assert intervals.lowered(found, values=np.array(0.03), chance=chance) == pytest.approx((0, 0.09))
    assert intervals.lowered(found, values=np.array(0.06), chance=chance / 100) == pytest.approx((0.05, 0.09))


def test_percentile_interval_leaves_equal_tails():
    samples = np.stack([np.arange(1001.0), np.arange(1001.0)[::-1] / 1000], axis=1)
    interval = intervals.percentile_interval(samples, values=np.array([500.0, 0.5]))
    np.testing.assert_allclose(interval.low, [25, 0.025])
    np.testing.assert_allclose(interval.high, [975, 0.975])


def test_percentile_interval_is_stretched_to_a_figure_that_the_bootstrap_misses():
    samples = np.arange(1001.0)
    assert intervals.percentile_interval(samples, values=np.array(10.0)) == pytest.approx((10, 975))
    assert intervals.percentile_interval(samples, values=np.array(990.0)) == pytest.approx((25, 990))


def test_a_thousand_resamples_stay_well_under_a_gigabyte():
    logits, labels = noisy(seed=6, num=50_000, classes=20)
    tracemalloc.start()
    log_losses(logits, labels, resamples=100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e8


# ---- the promise


@pytest.mark.parametrize("accuracy", COVERAGE["ACCURACIES"])
@pytest.mark.parametrize("num", COVERAGE["SIZES"])
def test_the_truth_lies_in_an_interval_as_often_as_promised(num, accuracy):
    """Benchmarks/coverage.py does the same with more trials, where no figure falls under 0.93."""
    found = COVERAGE["coverage"](COVERAGE["CLASSES"]["3 classes"], num=num, accuracy=accuracy, trials=120)
    assert min(found.values()) >= 0.88, found  # 0.95 less three standard errors of 120 trials


def test_no_interval_of_the_committed_simulation_holds_the_truth_too_seldom():
    record = json.loads(RECORD.read_text())["result"]
    assert record["trials"] >= 2000
    kinds = [name for name in COVERAGE["CLASSES"] if name != "skewed"]
    for name in kinds:
        for num in COVERAGE["SIZES"]:
            for accuracy in COVERAGE["ACCURACIES"]:
                found = record["coverage"][f"{name}, {num} images, accuracy {accuracy:g}"]
                assert min(found.values()) >= 0.93, (name, num, accuracy, found)

"""Scores of a run folder: hand-computed, against scikit-learn, kept and refused where they must be."""

import json
import math
import warnings

import numpy as np
import pytest
import sklearn.metrics

from reslab.cli.show import print_evaluation
from reslab.errors import UserError
from reslab.evaluation.score import measure, score
from reslab.measure.metrics import softmax
from reslab.recipe.networks import PreActResNet
from reslab.recipe.recipe import Linear, Recipe, Sgd, Standardize
from reslab.records import Calibration, ClassSets, Estimate, Weights
from reslab.report.tables import metric_table
from reslab.runs import Copies, Familiarities, InSeries, Predictions, Run, pack_weights, read_weights, write_exhibit
from reslab.words import printable as plain

CLASSES = ("ant", "bee", "cat")


def make_run(path, classes=CLASSES, class_sets=None):
    run = Run.create(path)
    run.write_recipe(
        Recipe(
            name="small",
            source="this test",
            data="digits",
            model=PreActResNet(depth=8),
            optimizer=Sgd(peak_lr=0.1),
            schedule=Linear(),
            epochs=1,
            batch_size=10,
        )
    )
    write_weights(run, classes, class_sets)
    return run


def write_weights(run, classes, class_sets=None):
    weights = Weights(
        model=PreActResNet(depth=8),
        classes=classes,
        channels=1,
        image_size=8,
        standardize=Standardize(mean=(0.0,), std=(1.0,)),
        class_sets=class_sets,
    )
    run.write_weights(pack_weights({"head.weight": np.zeros((1, 1), np.float32)}, weights))


def predictions(*, seed=0, num=120, classes=3, signal=1.5):
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=num)
    logits = generator.normal(size=(num, classes)).astype(np.float32)
    logits[np.arange(num), labels] += np.float32(signal)
    return Predictions(logits, labels)


@pytest.fixture
def run(tmp_path):
    run = make_run(tmp_path / "run")
    run.write_predictions("train", predictions(seed=1))
    run.write_predictions("test", predictions(seed=2))
    return run


@pytest.fixture
def two_wrong(tmp_path):
    """A run whose last two of eight test images are classified wrongly."""
    run = make_run(tmp_path / "run")
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1])
    logits = np.eye(3, dtype=np.float32)[labels]
    logits[6:] = np.roll(logits[6:], 1, axis=1)  # two errors
    run.write_predictions("test", Predictions(logits, labels))
    return run


@pytest.mark.parametrize(
    ("copies", "right", "total"), [([], 6, 8), ([0, 3, 7], 4, 5), ([6, 7], 6, 6), (list(range(8)), None, 8)]
)
def test_accuracy_without_copies(two_wrong, capsys, copies, right, total):
    assert score(two_wrong, splits=["test"]).splits["test"].without_copies is None
    write_exhibit(two_wrong.path, "test", Copies(np.array(copies, dtype=np.int64)))
    evaluation = score(two_wrong, splits=["test"])
    found = evaluation.splits["test"].without_copies
    assert found.num_copies == len(copies)
    assert (found.accuracy and found.accuracy.value) == (right and right / total)
    print_evaluation(evaluation)
    shown = "75.00 %" if not copies else "none is left" if right is None else f"{100 * right / total:.2f} %"
    printed = capsys.readouterr().out.splitlines()
    assert any(line.startswith("without copies") and shown in line for line in printed)
    assert any(line.startswith("copies of training images") for line in printed)
    row = next(row for row in metric_table(evaluation).rows if "without copies" in row[0].text)
    assert shown in plain(row[1].text)


@pytest.mark.parametrize(("in_series", "shown"), [([0, 3, 7], "80.00 %"), (list(range(8)), "none is left")])
def test_accuracy_without_series(two_wrong, capsys, in_series, shown):
    assert score(two_wrong, splits=["test"]).splits["test"].without_series is None
    write_exhibit(two_wrong.path, "test", InSeries(np.array(in_series, dtype=np.int64)))
    evaluation = score(two_wrong, splits=["test"])
    assert evaluation.splits["test"].without_series.num_in_series == len(in_series)
    print_evaluation(evaluation)
    printed = capsys.readouterr().out.splitlines()
    assert any(line.startswith("without series") and shown in line for line in printed)
    assert any(line.startswith("seconds from a training image") for line in printed)
    row = next(row for row in metric_table(evaluation).rows if "within seconds" in row[0].text)
    assert shown in plain(row[1].text)


@pytest.mark.parametrize("kind", [Copies, InSeries])
def test_copies_of_other_images_are_refused(run, kind):
    write_exhibit(run.path, "test", kind(np.array([120])))
    with pytest.raises(UserError, match="other images"):
        score(run, splits=["test"])


def test_figures_computed_by_hand(tmp_path):
    run = make_run(tmp_path / "run")
    # Rows: probabilities of ant, bee, cat. Right: first, second, fourth; the third and fifth ants are called bees.
    table = [(0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.3, 0.5, 0.2), (0.1, 0.1, 0.8), (0.1, 0.5, 0.4)]
    labels = np.array([0, 1, 0, 2, 0])
    run.write_predictions("test", Predictions(np.log(table).astype(np.float32), labels))
    figures = score(run, splits=["test"]).splits["test"]
    assert figures.num_images == 5
    assert figures.confusion_matrix == ((1, 2, 0), (0, 1, 0), (0, 0, 1))
    assert figures.accuracy.value == 3 / 5
    # Jeffreys: the middle 95 % of Beta(3.5, 2.5).
    assert (figures.accuracy.low, figures.accuracy.high) == pytest.approx((0.209417, 0.905610), abs=1e-6)
    assert figures.balanced_accuracy.value == pytest.approx((1 / 3 + 1 + 1) / 3)
    assert figures.macro_recall.value == figures.balanced_accuracy.value
    assert figures.macro_precision.value == pytest.approx((1 + 1 / 3 + 1) / 3)
    assert figures.macro_f1.value == pytest.approx((1 / 2 + 1 / 2 + 1) / 3)
    assert figures.log_loss.value == pytest.approx(-(3 * math.log(0.8) + math.log(0.3) + math.log(0.1)) / 5)
    # Three right at 0.8 and two wrong at 0.5, in different bins.
    assert figures.expected_calibration_error.value == pytest.approx((3 * 0.2 + 2 * 0.5) / 5)
    assert [one.support for one in figures.per_class] == [3, 1, 1]
    assert [one.recall.value for one in figures.per_class] == pytest.approx([1 / 3, 1, 1])
    assert figures.per_class[1].recall.low == pytest.approx(0.025)  # one of one
    assert figures.top5_accuracy is None


def test_every_figure_is_that_of_scikit_learn_and_lies_in_its_interval():
    logits, labels = predictions(seed=3, num=600, classes=12)
    labels[labels == 4] = 5  # a class without images
    logits[:, 7] -= 100  # a class that is never predicted
    figures = measure(Predictions(logits, labels))
    predicted, every = logits.argmax(1), range(12)
    settings = {"labels": every, "average": "macro", "zero_division": 0}
    expected = {
        "accuracy": sklearn.metrics.accuracy_score(labels, predicted),
        "macro_precision": sklearn.metrics.precision_score(labels, predicted, **settings),
        "macro_recall": sklearn.metrics.recall_score(labels, predicted, **settings),
        "macro_f1": sklearn.metrics.f1_score(labels, predicted, **settings),
        "top5_accuracy": sklearn.metrics.top_k_accuracy_score(labels, logits, k=5, labels=every),
    }
    with warnings.catch_warnings(action="ignore"):  # of predicted classes that are absent
        expected["balanced_accuracy"] = sklearn.metrics.balanced_accuracy_score(labels, predicted)
    # scikit-learn clips where a probability is too small for double precision; these logits stay above that.
    expected["log_loss"] = -np.log(softmax(logits)[np.arange(600), labels]).mean()
    for name, value in expected.items():
        estimate = getattr(figures, name)
        assert estimate.value == pytest.approx(value, rel=1e-9), name
        assert estimate.low < estimate.value < estimate.high, name
    per_class = sklearn.metrics.precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    for number, one in enumerate(figures.per_class):
        values = (one.precision.value, one.recall.value, one.f1.value, one.support)
        assert values == pytest.approx([column[number] for column in per_class])
        assert all(e.low <= e.value <= e.high for e in (one.precision, one.recall, one.f1))
    assert figures.per_class[4].recall == Estimate(value=0, low=0, high=1)


@pytest.mark.parametrize(("classes", "has_top5"), [(10, False), (11, True)])
def test_top_five_stands_where_there_are_more_than_ten_classes(classes, has_top5):
    figures = measure(predictions(classes=classes))
    assert (figures.top5_accuracy is not None) is has_top5


def test_a_perfect_split_has_figures_of_one():
    labels = np.arange(60) % 3
    figures = measure(Predictions(np.eye(3, dtype=np.float32)[labels] * 50, labels))
    assert figures.accuracy.value == figures.accuracy.high == 1 > figures.accuracy.low
    assert figures.macro_f1.value == figures.macro_f1.high == 1
    assert figures.macro_f1.low == pytest.approx(figures.accuracy.low, abs=0.001)
    assert figures.balanced_accuracy == figures.macro_recall
    assert figures.log_loss.value == pytest.approx(0, abs=1e-12)


def test_no_error_is_said_in_words(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    labels = np.arange(36) % 3
    run.write_predictions("test", Predictions(np.eye(3, dtype=np.float32)[labels] * 9, labels))
    evaluation = score(run, splits=["test"])
    print_evaluation(evaluation)
    rows = {line.strip().partition("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "no errors among 36" in rows["errors"]
    table = {row[0].text: row[1] for row in metric_table(evaluation).rows}
    assert table["Errors"].text == "no errors among 36"
    for name in ("accuracy", "balanced accuracy", "macro precision", "macro recall", "macro F1"):
        assert "100.00 % (90." in rows[name]
        assert plain(" ".join(table[name.capitalize().replace("f1", "F1")][:2])).startswith("100.00 % (90.")
    for each in evaluation.splits["test"].per_class:
        assert each.precision.low == each.recall.low < each.f1.low < 1


def test_the_figures_of_a_small_run_fit_into_80_columns(tmp_path, capsys, monkeypatch):
    """Each metric of both splits, and each promise with its verdict, stands on one line."""
    monkeypatch.setenv("COLUMNS", "80")
    known = ClassSets(num_images=200, thresholds=((0.9, 0.5), (0.95, 0.7), (0.99, 0.9)))
    run = make_run(tmp_path / "run", class_sets=known)
    run.write_predictions("train", predictions(seed=1, num=480, signal=50))
    run.write_predictions("test", predictions(seed=2, num=90))
    write_exhibit(run.path, "test", Copies(np.array([3])))
    write_exhibit(run.path, "test", Familiarities(np.linspace(0.01, 1, 90).astype(np.float32)))
    print_evaluation(score(run, splits=["train", "test"]))
    lines = [plain(line).rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 80
    assert "with reslab evaluate RUN --data EXPR" in " ".join(lines)  # no word is broken
    (accuracy,) = (line for line in lines if line.startswith("accuracy"))
    assert accuracy.count("–") == 2
    for promised in ("95 % of the pictures", *(f"{share} % of the sets" for share in (90, 95, 99))):
        (line,) = (line for line in lines if line.startswith(promised))
        assert line.endswith(("kept", "undecided"))
    assert any(line.startswith("  accuracy on the others") and "–" in line for line in lines)


# ---- evaluation.json


def test_the_evaluation_is_written_with_its_head(run):
    evaluation = score(run, splits=["train", "test"])
    assert run.evaluation == evaluation
    assert (evaluation.recipe, evaluation.classes) == ("small", CLASSES)
    assert (evaluation.confidence, evaluation.bootstrap_resamples) == (0.95, 1000)
    assert evaluation.evaluated.endswith("+00:00")
    written = json.loads((run.path / "evaluation.json").read_text())
    assert set(written["splits"]) == {"train", "test"}
    assert set(written["splits"]["test"]["accuracy"]) == {"value", "low", "high"}


def test_a_split_has_the_same_figures_whatever_is_scored_beside_it(run):
    both = score(run, splits=["train", "test"])
    alone = score(run, splits=["test"])
    assert alone.splits["test"] == both.splits["test"]


def test_a_split_that_is_not_scored_again_is_kept(run):
    before = score(run, splits=["train", "test"])
    run.write_predictions("train", predictions(seed=8))
    run.write_predictions("test", predictions(seed=9))
    after = score(run, splits=["test"])
    assert after.splits["train"] == before.splits["train"]
    assert after.splits["test"] != before.splits["test"]


def test_a_split_is_dropped_where_the_head_would_not_describe_it(run):
    before = score(run, splits=["train", "test"])
    run.write_evaluation(before.model_copy(update={"bootstrap_resamples": 40}))
    assert set(score(run, splits=["test"]).splits) == {"test"}
    write_weights(run, ("ant", "bee", "cow"))
    assert set(score(run, splits=["train"]).splits) == {"train"}


# ---- test-time augmentation


def test_augmented_figures_stand_beside_the_plain_ones(run):
    views = predictions(seed=2, signal=3.0)
    run.write_predictions("test", views, augmented=True)
    plain = score(run, splits=["test"]).splits["test"]
    assert plain.test_time_augmentation is None
    figures = score(run, splits=["test"], views=2).splits["test"]
    assert figures.accuracy == plain.accuracy
    assert figures.test_time_augmentation.views == 2
    assert figures.test_time_augmentation.figures == measure(views)


def test_augmented_predictions_must_be_there_and_of_the_same_images(run):
    with pytest.raises(UserError, match=r"predictions-test-tta\.npz is missing"):
        score(run, splits=["test"], views=2)
    run.write_predictions("test", predictions(seed=1), augmented=True)
    with pytest.raises(UserError, match="are of different images"):
        score(run, splits=["test"], views=2)
    assert not run.is_evaluated


# ---- refusals


def _with(logits=None, labels=None):
    plain = predictions(num=4)
    return Predictions(plain.logits if logits is None else logits, plain.labels if labels is None else labels)


def _not_finite(value):
    logits = predictions(num=4).logits
    logits[2, 1] = value
    return logits


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (_with(logits=np.zeros((4, 5), np.float32)), "logits are of 5 classes, the network has 3"),
        (_with(logits=_not_finite(np.nan)), "the logits of 1 images are not finite"),
        (_with(logits=_not_finite(np.inf)), "the logits of 1 images are not finite"),
        (_with(labels=np.array([0, 1, 3, 2])), "run from 0 to 3, not from 0 to 2"),
        (_with(labels=np.array([0, -1, 1, 2])), "run from -1 to 2, not from 0 to 2"),
        (Predictions(np.zeros((0, 3), np.float32), np.zeros(0, int)), "they contain no images"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(run, bad, sentence):
    run.write_predictions("test", bad)
    with pytest.raises(UserError, match=sentence) as error:
        score(run, splits=["train", "test"])
    assert "\n" not in str(error.value)
    assert "run reslab evaluate" in str(error.value)
    assert not run.is_evaluated


@pytest.mark.parametrize(("temperature", "is_changed"), [(1, False), (2, True)])
def test_probabilities_before_calibration_are_measured_if_it_changed_them(run, temperature, is_changed):
    tensors, weights = read_weights(run.path)
    calibration = Calibration(temperature=temperature, num_images=60)
    run.write_weights(pack_weights(tensors, weights.model_copy(update={"calibration": calibration})))
    test = score(run, splits=["test"]).splits["test"]
    assert (test.log_loss_uncalibrated is not None) == is_changed


def test_augmented_predictions_are_checked_as_well(run):
    run.write_predictions("test", _with(logits=_not_finite(np.nan)), augmented=True)
    with pytest.raises(UserError, match="test predictions with test-time augmentation cannot be scored"):
        score(run, splits=["test"], views=2)


def test_missing_predictions_and_network_are_refused(run):
    with pytest.raises(UserError, match=r"predictions-validation\.npz is missing"):
        score(run, splits=["validation"])
    run.weights_path.unlink()
    with pytest.raises(UserError, match="no finished network"):
        score(run, splits=["test"])


@pytest.mark.parametrize(("sharpness", "is_exact"), [(1.0, True), (1.5, False)])
def test_a_calibration_error_of_exact_probabilities_begins_at_zero(sharpness, is_exact):
    """In nearly all of forty sets of labels drawn by the probabilities, and never if these are too sure by far."""
    generator, begins = np.random.default_rng(0), []
    for _ in range(40):
        logits = generator.normal(size=(1000, 5))
        logits[:, 0] += generator.normal(size=1000) + 1
        labels = (softmax(logits).cumsum(axis=1) > generator.random((1000, 1))).argmax(axis=1)
        found = measure(Predictions((sharpness * logits).astype(np.float32), labels)).expected_calibration_error
        assert found.low <= found.value <= found.high
        begins.append(found.low == 0)
    assert np.mean(begins) > 0.9 if is_exact else np.mean(begins) == 0

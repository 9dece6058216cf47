from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from reslab.cli.show import print_evaluation
from reslab.measure.estimates import proportion
from reslab.records import AnsweredFigures, ClassFigures, DataSet, Epoch, Estimate, SetFigures
from reslab.report import tables
from reslab.runs import Predictions


def epoch(number, rate):
    return Epoch(
        epoch=number,
        updates=10 * number,
        seconds=1,
        images_per_second=1,
        learning_rate=rate,
        train_loss=1,
        train_accuracy=0.5,
    )


def test_confused_pairs_are_the_largest_cells_off_the_diagonal():
    matrix = np.array([[90, 7, 3], [0, 50, 0], [7, 9, 4]])
    pairs = tables.confused_pairs(matrix, most=3)
    assert [(pair.true, pair.predicted, pair.num_images) for pair in pairs] == [(2, 1, 9), (0, 1, 7), (2, 0, 7)]
    assert [pair.share for pair in pairs] == [0.45, 0.07, 0.35]


def test_the_data_table_counts_unreadable_pictures_left_out():
    used = [
        DataSet(expression="folder:x", split="train", num_images=1200, fingerprint="0" * 64, num_damaged=2),
        DataSet(expression="folder:x", split="test", num_images=300, fingerprint="1" * 64),
    ]
    inputs: Any = SimpleNamespace(environment=SimpleNamespace(data=used))
    table = tables.data_table(inputs)
    assert [f"{row[3].text} {row[3].aside}".strip() for row in table.rows] == [
        "1,200 (2 unreadable pictures left out)",
        "300",
    ]


def test_confused_pairs_leave_out_cells_without_images():
    matrix = np.array([[5, 1, 0], [0, 5, 0], [0, 0, 0]])
    assert len(tables.confused_pairs(matrix, most=8)) == 1
    assert tables.confused_pairs(np.diag([5, 5]), most=8) == []


def test_rate_changes_are_found_in_the_log():
    rates = [0.01, 0.1, 0.1 * (1 + 1e-12), 0.01, 0.01, 0.001]
    log = [epoch(number, rate) for number, rate in enumerate(rates, 1)]
    assert tables.rate_changes(log) == [(0, 0.01), (1, 0.1), (3, 0.01), (5, 0.001)]
    assert tables.rate_changes([]) == []


def test_a_promise_is_kept_or_not_or_the_interval_cannot_tell():
    def between(low, high):
        return Estimate(value=(low + high) / 2, low=low, high=high)

    sets = [
        SetFigures(promised=0.9, covered=between(low, high), size=1.25, single=0.75, per_class=())
        for low, high in ((0.80, 0.89), (0.85, 0.91), (0.91, 0.95))
    ]
    answered = AnsweredFigures(promised=0.95, answered=between(0.88, 0.94), accuracy=None, accuracy_of_others=None)
    test = SimpleNamespace(answered=answered, class_sets=sets)
    evaluation: Any = SimpleNamespace(splits={"test": test})
    table = tables.promise_table(evaluation)
    rows = [[cell.text.replace("\u00a0", " ") for cell in row] for row in table.rows]
    assert [row[2] for row in rows] == ["not kept", "not kept", "", "undecided", "", "kept", ""]
    assert rows[2][:2] == ["  classes in a set, on average", "1.25"]
    assert table.rows[2][1].aside.replace("\u00a0", " ") == "(75.0 % hold one)"
    test.class_sets = [sets[0].model_copy(update={"size": 1.0, "single": 1.0})]
    assert tables.promise_table(evaluation).rows[2][1] == ("1.00", "(each holds one)", None)


@pytest.mark.parametrize(
    ("right", "total", "verdict"),
    [
        (12, 12, "undecided"),  # at least 73.54 %
        (11, 12, "undecided"),
        (8, 12, "not kept"),  # at most 88.1 %
        (9, 12, "undecided"),
        (181, 200, "kept"),  # at least 85.8 %
        (176, 200, "undecided"),
        (9010, 10000, "kept"),
        (8930, 10000, "not kept"),
    ],
)
def test_a_handful_of_images_neither_keeps_nor_breaks_a_promise(right, total, verdict):
    covered = proportion(np.asarray(right), total=np.asarray(total))
    sets = SetFigures(promised=0.9, covered=covered, size=1, single=1, per_class=())
    evaluation: Any = SimpleNamespace(splits={"test": SimpleNamespace(answered=None, class_sets=[sets])})
    (kept, _) = tables.promise_table(evaluation).rows
    assert kept[2].text == verdict


def test_a_promise_on_few_held_out_images_is_not_broken_by_what_these_explain():
    covered = proportion(np.asarray(9300), total=np.asarray(10_000))
    assert tables.is_broken(0.95, found=covered, least=0.94)
    assert not tables.is_broken(0.95, found=covered, least=0.915)
    assert tables.is_broken(0.95, found=covered, least=None)


def test_of_no_images_there_is_no_share():
    """The third class has no test image, and no image was taken for the second one."""
    none, half = Estimate(value=0, low=0, high=1), Estimate(value=0.5, low=0.1, high=0.9)
    per_class = [
        ClassFigures(precision=half, recall=half, f1=half, support=2),
        ClassFigures(precision=none, recall=half, f1=half, support=1),
        ClassFigures(precision=half, recall=none, f1=none, support=0),
    ]
    sets = SetFigures(promised=0.9, covered=half, size=1, single=1, per_class=(half, half, none))
    figures: Any = SimpleNamespace(
        confusion_matrix=[[1, 0, 1], [1, 0, 0], [0, 0, 0]], per_class=per_class, class_sets=[sets]
    )
    table = tables.class_table(figures, classes="abc")
    assert [[cell.text == "–" for cell in row[2:5]] for row in table.rows] == [
        [False, False, False],
        [True, False, False],
        [False, True, True],
    ]
    assert table.rows[2][3] == ("–", "", -1)  # and sorts as a number
    evaluation: Any = SimpleNamespace(splits={"test": figures}, classes="abc")
    covered = tables.coverage_table(evaluation)
    assert [row[1].text.replace("\u00a0", " ") for row in covered.rows] == ["50.00 %", "50.00 %", "–"]


def test_reliability_by_hand():
    # Two classes: a difference of logits of ln 3 is a probability of 3/4, of ln 9 one of 9/10.
    logits = np.log(np.array([[3, 1], [1, 3], [3, 1], [3, 1], [1, 9]], np.float64)).astype(np.float32)
    bins = tables.reliability(Predictions(logits, np.array([0, 1, 1, 0, 0])))
    np.testing.assert_allclose(bins.certainty, [0.75, 0.9], rtol=1e-6)
    np.testing.assert_allclose(bins.accuracy, [0.75, 0.0])
    assert (bins.low < bins.accuracy).tolist() == [True, False]  # none right of one
    assert (bins.high > bins.accuracy).all()
    np.testing.assert_allclose(bins.share, [0.8, 0.2])


def test_certainty_of_one_falls_into_the_last_bin():
    logits = np.array([[100, 0], [3, 0]], np.float32)  # probabilities 1 and 0.953, both above 14/15
    assert len(tables.reliability(Predictions(logits, np.array([0, 0]))).share) == 1


@pytest.mark.parametrize("which", ["rich", "lean"])
def test_reliability_adds_up_to_the_calibration_error(which, request):
    """Guo et al. 2017: the error is the share-weighted distance of the bins from the diagonal; here spelled out."""
    predictions = request.getfixturevalue(which).read_predictions("test")
    bins = tables.reliability(predictions)
    error, num = 0.0, len(predictions.labels)
    exponentials = np.exp(predictions.logits.astype(np.float64))
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    for low in np.arange(15) / 15:
        inside = (probabilities.max(1) > low) & (probabilities.max(1) <= low + 1 / 15)
        if inside.any():
            correct = (probabilities.argmax(1) == predictions.labels)[inside]
            error += inside.sum() / num * abs(correct.mean() - probabilities.max(1)[inside].mean())
    assert (bins.share * abs(bins.accuracy - bins.certainty)).sum() == pytest.approx(error, abs=1e-9)


@pytest.mark.parametrize("has_errors", [False, True])
def test_without_errors_uncalibrated_metrics_stand_without_the_interval_of_an_unseen_one(rich, has_errors):
    evaluation = rich.evaluation
    wild = Estimate(value=0.0001, low=0, high=117.189)
    changes = {"log_loss_uncalibrated": wild, "expected_calibration_error_uncalibrated": wild}
    test = evaluation.splits["test"].model_copy(update={**changes, "test_time_augmentation": None})
    if not has_errors:
        test = test.model_copy(update={"confusion_matrix": ((test.num_images,),)})
    rows = {
        row[0].text: row[1]
        for row in tables.metric_table(evaluation.model_copy(update={"splits": {"test": test}})).rows
    }
    assert bool(rows["Log loss, uncalibrated (nats)"].aside) == has_errors
    assert bool(rows["The same, uncalibrated"].aside) == has_errors
    assert rows["Log loss (nats)"].aside
    in_lines = {name: cell.line for name, _, (cell,) in tables.metric_rows([test])}
    assert in_lines["log_loss_uncalibrated"] == ("0.000 (0.000–117.189)" if has_errors else "0.000")


def test_a_metric_that_a_column_lacks_is_left_out_everywhere(rich, capsys):
    """As when splits were evaluated by different versions."""
    evaluation = rich.evaluation
    changes = {"log_loss_uncalibrated": Estimate(value=1, low=0.9, high=1.1)}
    train = evaluation.splits["train"].model_copy(update=changes)
    mixed = evaluation.model_copy(update={"splits": {"train": train, "test": evaluation.splits["test"]}})
    print_evaluation(mixed)
    printed = [line.partition("  ")[0].strip() for line in capsys.readouterr().out.splitlines()]
    for row in tables.metric_table(mixed).rows:
        assert row[0].text.lower() in [name.lower() for name in printed]
    assert not any("uncalibrated" in name for name in printed)

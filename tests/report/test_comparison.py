"""Runs beside each other: the table, McNemar's test by hand, and what cannot be compared."""

import json
from typing import Any

import numpy as np
import pytest
from pydantic_core import to_jsonable_python

from reslab.cli.show import describe_pair
from reslab.errors import UserError
from reslab.evaluation.score import score
from reslab.measure.metrics import McNemar
from reslab.recipe.networks import EfficientNetLite, Fusion, Plain, PreActResNet
from reslab.recipe.recipe import Extension, Linear, Recipe, Sgd, Standardize, StartingWeights, derive
from reslab.records import DataSet, Environment, Epoch, Weights
from reslab.report.beside import put_beside
from reslab.report.comparison import REMEDY, compare
from reslab.runs import Predictions, Run, pack_weights

LABELS = np.arange(30) % 3
ENVIRONMENT: dict[str, Any] = {
    **dict.fromkeys(("reslab", "python", "torch", "numpy", "platform", "processor", "device", "command"), "any"),
    "threads": 1,
    "commit": None,
    "seed": 0,
    "started": "2020-01-01T00:00:00+00:00",
}


def make_run(
    path,
    *,
    wrong=(),
    labels=LABELS,
    classes=("ant", "bee", "cat"),
    model=None,
    split="test",
    data="digits:0-2",
    fingerprint="f00",
    image_size=32,
):
    """A finished run of two epochs that errs on the images `wrong`."""
    model = model or PreActResNet(depth=8)
    run = Run.create(path)
    recipe = Recipe(
        name="small",
        source="this test",
        data=data,
        model=model,
        optimizer=Sgd(peak_lr=0.1),
        schedule=Linear(),
        epochs=2,
        batch_size=10,
        image_size=image_size,
    )
    run.write_recipe(recipe)
    used = DataSet(expression=data, split="test", num_images=len(labels), fingerprint=fingerprint)
    run.write_environment(Environment(**ENVIRONMENT, data=(used,)))
    for number, seconds in ((1, 2.5), (2, 1.5)):
        figures = {"learning_rate": 0.1, "train_loss": 1.0, "train_accuracy": 0.5}
        run.append_log(Epoch(epoch=number, updates=number, seconds=seconds, images_per_second=1, **figures))
    standardize = Standardize(mean=(0.0,), std=(1.0,))
    weights = Weights(model=model, classes=classes, channels=1, image_size=8, standardize=standardize)
    run.write_weights(pack_weights({"head.weight": np.zeros((1, 1), np.float32)}, weights))
    predicted = labels.copy()
    predicted[list(wrong)] = (labels[list(wrong)] + 1) % len(classes)
    run.write_predictions(split, Predictions(np.eye(len(classes), dtype=np.float32)[predicted], labels))
    score(run, splits=[split])
    return run


def test_a_row_says_what_was_run_and_how_good_it_is(tmp_path):
    model = Plain(depth=14, activation="elu", width=8)
    run = make_run(tmp_path / "first", wrong=range(6), model=model)
    (row,) = compare([run]).rows
    assert (row.name, row.recipe, row.data) == ("first", "small", "digits:0-2")
    assert row.model == "plain14 (width 8, activation ELU)"
    assert (row.epochs, row.seconds) == (2, 4.0)
    figures = run.evaluation.splits["test"]
    assert row.accuracy.value == 24 / 30
    assert (row.accuracy, row.macro_f1, row.log_loss) == (figures.accuracy, figures.macro_f1, figures.log_loss)


def test_every_two_runs_are_tested_on_their_images(tmp_path):
    runs = [
        make_run(tmp_path / "a", wrong=range(1)),
        make_run(tmp_path / "b", wrong=range(10)),
        make_run(tmp_path / "c", wrong=range(5, 12)),
    ]
    comparison = compare(runs)
    assert [row.model for row in comparison.rows] == ["preact_resnet8"] * 3
    ab, ac, bc = comparison.pairs
    # b errs on 0 to 9 and a on 0: nine discordant pairs, all for a.
    assert (ab.first, ab.second, ab.reason) == ("a", "b", None)
    assert ab.mcnemar == McNemar(only_first=9, only_second=0, p_value=2 / 2**9)
    # c errs on 5 to 11: a alone is right on those seven, c alone on image 0.
    assert ac.mcnemar == McNemar(only_first=7, only_second=1, p_value=2 * (1 + 8) / 2**8)
    # b alone is right on 10 and 11, c alone on 0 to 4.
    assert (bc.first, bc.second) == ("b", "c")
    assert bc.mcnemar == McNemar(only_first=2, only_second=5, p_value=2 * (1 + 7 + 21) / 2**7)


def test_macro_f1_differs_by_what_the_figures_say(tmp_path):
    first, second = make_run(tmp_path / "a", wrong=range(1)), make_run(tmp_path / "b", wrong=range(10))
    (pair,) = compare([first, second]).pairs
    ours, theirs = (run.evaluation.splits["test"].macro_f1.value for run in (first, second))
    difference = pair.macro_f1_difference
    assert difference.value == pytest.approx(ours - theirs)
    # Nine of 30 images are lost: about 0.3, give or take two standard errors of 0.08.
    assert 0.1 < difference.low < 0.2 < difference.value < 0.4 < difference.high < 0.55
    assert compare([first, second]).pairs[0] == pair  # the same draws every time
    (back,) = compare([second, first]).pairs
    assert back.macro_f1_difference.value == pytest.approx(-difference.value)


def test_runs_on_other_images_are_not_tested_and_say_why(tmp_path):
    moved = LABELS.copy()
    moved[[0, 1]] = moved[[1, 0]]
    runs = [
        make_run(tmp_path / "a"),
        make_run(tmp_path / "fewer", labels=LABELS[:24]),
        make_run(tmp_path / "moved", labels=moved),
        make_run(tmp_path / "other", classes=("ant", "bee", "cow")),
    ]
    pairs = compare(runs).pairs
    assert [pair.reason for pair in pairs[:3]] == [
        f"their test splits have 30 and 24 images; {REMEDY}",
        "the labels of 2 of 30 test images differ",
        "their classes differ: a alone has cat and other alone has cow; for those that both have, ant and bee, "
        f"{REMEDY}",
    ]
    assert [(pair.mcnemar, pair.macro_f1_difference) for pair in pairs] == [(None, None)] * 6


def test_runs_without_a_common_class_are_told_so(tmp_path):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", classes=("x", "y", "z"))]
    (pair,) = compare(runs).pairs
    assert pair.reason.startswith(
        "their classes differ: a alone has ant, bee and cat and b alone has x, y and z; they "
    )
    assert "evaluate" not in pair.reason


def test_the_same_classes_in_another_order_are_compared(tmp_path):
    """Each class is found by its name: 12 of 30 images are wrong in the second run alone."""
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", wrong=range(12))]
    (straight,) = compare(runs).pairs
    order = np.array([2, 0, 1])  # of the classes, cat first
    logits, labels = runs[1].read_predictions("test")
    runs[1].write_predictions("test", Predictions(logits[:, order], np.argsort(order)[labels]))
    evaluation = runs[1].evaluation
    classes = tuple(evaluation.classes[place] for place in order)
    runs[1].write_evaluation(evaluation.model_copy(update={"classes": classes}))
    assert compare(runs).pairs == (straight,)
    assert straight.mcnemar.only_first == 12


def test_an_extension_beside_its_base_is_shown_by_evaluate(tmp_path):
    fused = Fusion(base=EfficientNetLite(resize=256), pretrained=EfficientNetLite())
    base = make_run(tmp_path / "base", classes=("ant", "bee"), labels=LABELS[LABELS < 2])
    made = make_run(tmp_path / "made", model=fused)
    extension = Extension(method="fusion", base="0" * 64, num_old=2)
    made.write_recipe(made.recipe.model_copy(update={"extension": extension}))
    found = compare([base, made])
    sentence = (
        f"their classes differ: made alone has cat; reslab evaluate {made.path} shows the old classes before and after"
    )
    assert [pair.reason for pair in found.pairs] == [sentence]
    assert found.rows[1].model == "efficientnet_lite0+efficientnet_lite0"


def test_equal_labels_do_not_make_equal_images(tmp_path):
    runs = [
        make_run(tmp_path / "a", data="folder:pets", fingerprint="f00"),
        make_run(tmp_path / "other", data="folder:toys", fingerprint="ba5"),
        make_run(tmp_path / "copy", data="npz:pets.npz", fingerprint="f00"),
        make_run(tmp_path / "larger", data="folder:pets", fingerprint="1a5", image_size=64),
        make_run(tmp_path / "later", data="folder:pets", fingerprint="dea" + 61 * "d"),
    ]
    a_other, a_copy, a_larger, a_later = compare(runs).pairs[:4]
    assert a_other.mcnemar is a_later.mcnemar is None
    prints = "(fingerprints f00… and ba5…)"
    assert a_other.reason == f"the test images of folder:pets and folder:toys differ {prints}; {REMEDY}"
    assert a_later.reason == f"the test images of folder:pets differ (fingerprints f00… and deaddddddddd…); {REMEDY}"
    assert a_copy.reason is a_larger.reason is None


@pytest.mark.parametrize(("second", "is_compared"), [("a" * 64, True), ("b" * 64, False)])
def test_images_left_out_for_other_starting_weights_are_other_images(tmp_path, second, is_compared):
    """Equally many of the same split were measured, but which ones depends on what the weights had learned."""
    runs = [make_run(tmp_path / name) for name in ("one", "two")]
    for run, digest in zip(runs, ("a" * 64, second), strict=True):
        run.write_recipe(derive(run.recipe, name="on", start=StartingWeights(file="base", sha256=digest)))
        (used,) = run.environment.data
        whole = used.model_copy(update={"num_images": used.num_images + 5})
        run.write_environment(run.environment.model_copy(update={"data": (whole,)}))
    (pair,) = compare(runs).pairs
    assert (pair.mcnemar is not None) == is_compared
    assert is_compared or "fingerprints aaaaaaaaaaaa… and bbbbbbbbbbbb…" in str(pair.reason)


def test_a_folder_that_was_read_larger_must_hold_the_same_files(tmp_path):
    runs = [
        make_run(tmp_path / "a", data="folder:pets", fingerprint="f00"),
        make_run(tmp_path / "b", data="folder:pets", fingerprint="1a5", image_size=64),
    ]
    names = [f"cat/{number}.png" for number in range(30)]
    for run, held in zip(runs, (names, names[::-1]), strict=True):
        run.write_predictions("test", run.read_predictions("test"), names=held)
    assert "differ (fingerprints f00… and 1a5…)" in compare(runs).pairs[0].reason
    runs[1].write_predictions("test", runs[1].read_predictions("test"), names=names)
    assert compare(runs).pairs[0].reason is None


def test_pictures_read_at_two_sizes_are_paired_by_their_content(tmp_path):
    runs = [
        make_run(tmp_path / "a", data="folder:pets", fingerprint="f00", wrong=[0, 1]),
        make_run(tmp_path / "b", data="folder:renamed", fingerprint="1a5", image_size=64, wrong=[1]),
    ]
    digests = np.arange(1, 31, dtype=np.uint64)
    order = np.random.default_rng(0).permutation(30)
    logits, labels = runs[1].read_predictions("test")
    runs[1].write_predictions("test", Predictions(logits[order], labels[order]))
    for run, held in zip(runs, (digests, digests[order]), strict=True):
        run.write_digests("test", held)
    (pair,) = compare(runs).pairs
    assert pair.reason is None
    assert (pair.mcnemar.only_first, pair.mcnemar.only_second) == (0, 1)  # both are wrong on image 1
    assert pair.num_shared is None
    runs[1].write_digests("test", digests[order] + np.uint64(30))
    assert compare(runs).pairs[0].reason == f"they have no test picture in common; {REMEDY}"


def test_runs_with_other_test_images_are_compared_on_those_that_both_have(tmp_path):
    """As after `extend --merge` with a folder that brings test images; a copy among them counts once."""
    labels = np.concatenate([LABELS, LABELS[:7]])
    runs = [
        make_run(tmp_path / "base", data="folder:pets", fingerprint="f00", wrong=[0, 1, 2, 29]),
        make_run(tmp_path / "more", data="folder:pets+folder:new", fingerprint="1a5", labels=labels, wrong=[1, 30, 33]),
    ]
    digests = np.arange(1, 38, dtype=np.uint64)
    digests[36] = digests[6]  # of the same class
    runs[0].write_digests("test", digests[:29])
    assert compare(runs).pairs[0].reason == f"their test splits have 30 and 37 images; {REMEDY}"  # one is unknown
    runs[0].write_digests("test", np.append(digests[:29], np.uint64(99)))
    runs[1].write_digests("test", digests)
    (pair,) = compare(runs).pairs
    assert (pair.reason, pair.num_shared) == (None, 29)
    assert pair.mcnemar == McNemar(only_first=0, only_second=2, p_value=0.5)  # on images 0 and 2
    assert describe_pair(pair).startswith("base against more, on the 29 images that both have: no image right in the")
    with pytest.raises(UserError, match=r"share only 29 test images: reslab compare .* compares them on these"):
        put_beside(runs[0], against=runs[1])


def test_folders_of_the_same_name_are_told_apart_by_their_paths(tmp_path):
    (tmp_path / "x").mkdir()
    runs = [make_run(tmp_path / "x" / "run"), make_run(tmp_path / "run"), make_run(tmp_path / "third")]
    comparison = compare(runs)
    names = [str(tmp_path / "x" / "run"), str(tmp_path / "run"), "third"]
    assert [row.name for row in comparison.rows] == names
    assert [(pair.first, pair.second) for pair in comparison.pairs] == [
        (names[0], names[1]),
        (names[0], names[2]),
        (names[1], names[2]),
    ]


def test_a_comparison_becomes_json(tmp_path):
    comparison = compare([make_run(tmp_path / "a"), make_run(tmp_path / "b", wrong=[0])])
    written = json.loads(json.dumps(to_jsonable_python(comparison)))
    assert written["rows"][0]["accuracy"]["value"] == 1
    assert set(written["pairs"][0]["macro_f1_difference"]) == {"value", "low", "high"}
    assert written["pairs"][0]["mcnemar"] == {"only_first": 1, "only_second": 0, "p_value": 1.0}


def test_runs_that_are_kept_without_their_weights_are_compared(tmp_path):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", wrong=[0])]
    before = compare(runs)
    for run in runs:
        run.weights_path.unlink()
    assert compare(runs) == before


# ---- refusals


def test_a_run_given_twice_is_refused(tmp_path):
    run = make_run(tmp_path / "a")
    with pytest.raises(UserError, match="a is given 2 times"):
        compare([run, Run(tmp_path / "." / "a")])


def test_runs_that_are_not_finished_or_evaluated_are_refused(tmp_path):
    run = make_run(tmp_path / "a")
    (tmp_path / "a" / "evaluation.json").unlink()
    with pytest.raises(UserError, match=r"a has not been evaluated: run reslab evaluate"):
        compare([make_run(tmp_path / "b"), run])
    run.weights_path.unlink()
    with pytest.raises(UserError, match=r"a holds no finished network: resume with reslab train --resume"):
        compare([run])
    with pytest.raises(UserError, match="has been evaluated on train, not on test"):
        compare([make_run(tmp_path / "c", split="train")])


@pytest.mark.parametrize(
    "other",
    [
        Predictions(np.zeros((29, 3), np.float32), np.zeros(29, int)),
        Predictions(np.zeros((30, 4), np.float32), LABELS),
    ],
)
def test_predictions_that_are_not_those_of_the_evaluation_are_refused(tmp_path, other):
    run = make_run(tmp_path / "a")
    run.write_predictions("test", other)
    with pytest.raises(UserError, match=r"the predictions and the evaluation of .* differ: run reslab evaluate"):
        compare([run])

"""What the page of an extended run says beside that of any other, held against the files that it was made from."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from reslab.errors import UserError
from reslab.measure.metrics import mcnemar
from reslab.recipe.recipe import Extension, Flip, Freeze, Muon, Sampling
from reslab.records import Estimate, PriorChoice
from reslab.report import figures, words, write_report
from reslab.report.extension import give_account, in_points
from reslab.report.findings import gain
from reslab.report.inputs import read_inputs
from reslab.report.tables import confused_pairs
from reslab.runs import Predictions, Run


def in_percent(estimate):
    return f"{100 * estimate.value:.2f} % ({100 * estimate.low:.2f}–{100 * estimate.high:.2f})"


def plain(text):
    return " ".join(text.replace("\u00a0", " ").split())


def test_headline_names_what_was_taught(taught, taught_page):
    text = plain(taught_page.text[""])
    for part in (
        "synthetic: taught 3 new classes",
        "FastConv (widths 64, 256 and 256), 29 parameters",
        "New classes, macro F165.40 %(63.40–67.40)",
        "Old classes, accuracy94.00 %(92.00–96.00), before 95.00 %",
    ):
        assert part in text, part
    assert (
        "A network that knew 12 classes (kind 1, kind 2, kind 3, kind 4, kind 5, kind 6, kind 7, kind 8, kind 9 and 3 "
        "others) was taught a lizard, eft and <b>snake</b> by the method finetune-distill. Measured on 900 test images "
        "of 15 classes"
    ) in plain(taught_page.text["run"])
    assert "published" not in taught_page.text
    assert "Compared with the published result" not in text


def test_old_classes_stand_before_and_after(taught, taught_page):
    evaluation = taught.evaluation
    extension, per_class = evaluation.extension, evaluation.splits["test"].per_class
    header, *rows = taught_page.tables["old"][0]
    assert header == ["Class", "Before", "After", "Change in points", "Images"]
    assert [row[0] for row in rows] == [*evaluation.classes[:12], "All old classes"]
    for row, each, whole in zip(rows, extension.old_classes, per_class, strict=False):
        change = f"{100 * (each.after.value - 0.9):+.2f}".replace("-", "−")
        assert row[1:] == ["90.00 % (88.00–92.00)", in_percent(each.after), change, str(whole.support)]
    num_images = sum(each.support for each in per_class[:12])
    last = ["95.00 % (93.00–97.00)", "94.00 % (92.00–96.00)", "−1.00 (−3.00 to +0.20)", str(num_images)]
    assert rows[-1][1:] == last
    assert (
        f"Of the {num_images} test images of the 12 old classes, the base, which knows only these, recognizes 95.00 %; "
        "the extended network, choosing among all 15, 94.00 %. That is a change of −1.00 points (−3.00 to +0.20): "
        "the interval includes 0, so the change may be chance."
    ) in plain(taught_page.text["old"])


def test_no_change_is_not_called_chance(taught):
    inputs = read_inputs(taught)
    same = inputs.evaluation.extension.model_copy(update={"old_change": Estimate(value=0, low=-0.02, high=0.02)})
    inputs = inputs._replace(evaluation=inputs.evaluation.model_copy(update={"extension": same}))
    assert plain(give_account(inputs).old_sentence).endswith(
        "among all 15, 94.00 %. The accuracy on them has not changed."
    )
    assert "; the accuracy on the old ones has not changed. It takes" in gain(inputs.test, same)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("ends", "judgement"),
    [((-0.03, -0.001), "the old classes are recognized less well"), ((0.001, 0.02), "the old classes improved")],
)
def test_a_change_beyond_chance_is_said(ends, judgement, make_run, read_page):
    run = make_run(num_old=2, recipe={"extension": {"method": "frozen", "base": "f00", "num_old": 2}})
    evaluation = run.evaluation
    change = Estimate(value=sum(ends) / 2, low=ends[0], high=ends[1])
    extension = evaluation.extension.model_copy(update={"old_change": change})
    run.write_evaluation(evaluation.model_copy(update={"extension": extension}))
    assert judgement in read_page(write_report(run)).text["old"]


def test_new_classes_have_their_figures_and_errors(taught, taught_page):
    header, *rows = taught_page.tables["new"][0]
    assert header[:2] == ["Class", "Most often taken for"]
    assert header[2:] == ["Precision", "Recall", "F1", "Taken for an old class"]
    per_class = taught.evaluation.splits["test"].per_class
    for name, row, each in zip(("a lizard", "eft", "<b>snake</b>"), rows, per_class[12:], strict=True):
        expected = [*map(in_percent, (each.precision, each.recall, each.f1)), "33.30 % (31.30–35.30)"]
        assert row == [name, "kind 1 (20.0 %), kind 2 (15.0 %)", *expected]


def test_any_new_class_is_told_from_any_old_one(taught, taught_page):
    matrix = np.array(taught.evaluation.splits["test"].confusion_matrix)
    num_old = taught.evaluation.extension.num_old
    hits, called, actual = matrix[num_old:, num_old:].sum(), matrix[:, num_old:].sum(), matrix[num_old:].sum()
    assert 0 < hits < min(called, actual)
    text = plain(taught_page.text["new"])
    assert f"It classifies {called:,} images as a new class; {100 * hits / called:.2f} %" in text
    assert f"of new classes, it classifies {100 * hits / actual:.2f} %" in text


@pytest.mark.usefixtures("undrawn")
def test_new_classes_that_are_never_found_have_no_figures_of_nothing(make_run):
    run = make_run(num_old=2, recipe={"extension": {"method": "frozen", "base": "f00", "num_old": 2}})
    inputs = read_inputs(run)

    def tell(matrix):
        test = inputs.test.model_copy(update={"confusion_matrix": matrix})
        return give_account(
            inputs._replace(evaluation=inputs.evaluation.model_copy(update={"splits": {"test": test}}))
        ).new_sentence

    matrix = np.zeros((len(inputs.evaluation.classes),) * 2, int)
    matrix[:, 0] = 10
    actual = 10 * (len(matrix) - 2)
    none = f"No image was classified as a new class, not even one of the {actual} images of new classes."
    assert tell(matrix) == none
    matrix[0, 2] = 1
    assert plain(tell(matrix)).startswith("It classifies 1 image as a new class; 0.00 %")
    assert "Of these" not in tell(matrix)
    matrix[2, 2] = 1
    assert "Of these, 100.00" in tell(matrix)


def test_worst_confusions_have_a_new_class_on_one_side(taught, taught_page):
    matrix = np.array(taught.evaluation.splits["test"].confusion_matrix)
    logits, labels = taught.read_predictions("test")
    classes = taught.evaluation.classes
    _, *rows = taught_page.tables["pairs"][0]
    cells = [matrix[i, j] for i in range(15) for j in range(15) if i != j and (i >= 12 or j >= 12)]
    assert [int(row[2]) for row in rows] == sorted(cells, reverse=True)[:8]
    for true, predicted, count, *_ in rows:
        i, j = classes.index(true), classes.index(predicted)
        assert max(i, j) >= 12
        assert matrix[i, j] == int(count)
    _, images = taught.read_examples("test")
    for image in taught_page.images["pairs"]:
        index, true, predicted = re.match(r"Test image (\d+): (.+), taken for (.+) with", image["alt"]).groups()
        assert (classes[labels[int(index)]], classes[logits[int(index)].argmax()]) == (true, predicted)
        with Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))) as picture:
            assert any(np.array_equal(np.asarray(picture).transpose(2, 0, 1), each) for each in images)
    assert len(taught_page.images["pairs"]) == sum(min(int(row[2]), 10) for row in rows)


def test_pairs_among_the_old_classes_are_left_out():
    matrix = np.array([[5, 9, 1], [8, 5, 0], [2, 7, 5]])
    assert [(pair.true, pair.predicted) for pair in confused_pairs(matrix, most=4, num_old=2)] == [
        (2, 1),
        (2, 0),
        (0, 2),
    ]
    assert confused_pairs(matrix, most=1, num_old=2)[0].share == 7 / 14
    assert confused_pairs(matrix, most=1)[0].num_images == 9


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_mistakes_has_no_confusions(make_run, read_page):
    recipe = {"extension": {"method": "frozen", "base": "f00", "num_old": 2}}
    page = read_page(write_report(make_run(num_old=2, skill=50.0, recipe=recipe)))
    assert not {"pairs", "worst"} & set(page.text)


# ---- tau


def test_tau_is_explained(taught_page):
    text = plain(taught_page.text["prior"])
    assert "0 keeps the prior, 1 removes it. Tau is 0.25 here: chosen on validation images" in text
    (image,) = taught_page.images["prior"]
    alt = "Curves over tau from 0 to 1, chosen 0.25, in percent: macro F1 72.8 to 62.7; macro precision 7"
    assert image["alt"].startswith(alt)


def test_curves_are_drawn_with_the_chosen_tau(monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "_png", lambda figure: drawn.append(figure) or b"")
    taus, f1, recall = np.array([0, 0.5, 1]), np.array([70.0, 80, 75]), np.array([60.0, 70, 90])
    figures.prior_curves(taus, curves={"macro F1": f1, "recall": recall}, band=(f1 - 3, f1 + 4), chosen=0.5)
    (axes,) = drawn[0].axes
    line, first, second = axes.lines
    assert line.get_xdata() == [0.5, 0.5]
    np.testing.assert_array_equal(first.get_xydata(), np.column_stack([taus, f1]))
    np.testing.assert_array_equal(second.get_xydata(), np.column_stack([taus, recall]))
    (band,) = axes.collections
    corners = {(float(x), float(y)) for x, y in band.get_paths()[0].vertices}
    assert {(0.0, 67.0), (0.5, 84.0), (1.0, 72.0)} <= corners
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["macro F1", "recall"]


def test_a_tau_that_was_not_chosen_is_not_said_to_be(taught):
    inputs = read_inputs(taught)
    extension = inputs.evaluation.extension
    forced = extension.model_copy(update={"prior": extension.prior.model_copy(update={"tau": 0.0})})
    evaluation = inputs.evaluation.model_copy(update={"extension": forced})
    assert give_account(inputs._replace(evaluation=evaluation)).prior_sentence == (
        "Tau is 0 here, since a class has too few validation images to choose by."
    )


@pytest.mark.usefixtures("undrawn")
def test_without_validation_images_there_is_no_curve(make_run, read_page):
    run = make_run(num_old=2, recipe={"extension": {"method": "weight-align", "base": "f00", "num_old": 2}})
    evaluation = run.evaluation
    extension = evaluation.extension.model_copy(update={"prior": PriorChoice(tau=1, curve=())})
    run.write_evaluation(evaluation.model_copy(update={"extension": extension}))
    page = read_page(write_report(run))
    assert "There was no image of an old class to choose tau by, so tau is 1." in plain(page.text["prior"])
    assert "prior" not in page.images
    assert not (run.path / "figures" / "prior.png").exists()


# ---- beside another run


def test_the_other_run_stands_beside(taught, taught_page):
    other = Run.open(taught.path.parent / "frozen")
    header, *rows = zip(*taught_page.tables["beside"][0], strict=True)  # a run is a column
    assert list(header[1:]) == [
        "Test accuracy",
        "Macro F1",
        "New classes, macro F1",
        "Old classes, before",
        "Old classes, after",
    ]
    for row, run in zip(rows, (taught, other), strict=True):
        test = run.evaluation.splits["test"]
        assert list(row[:3]) == [run.name, in_percent(test.accuracy), in_percent(test.macro_f1)]
    (logits, labels), (theirs, _) = taught.read_predictions("test"), other.read_predictions("test")
    found = mcnemar(labels, first=logits.argmax(1), second=theirs.argmax(1))
    text = plain(taught_page.text["beside"])
    assert text.startswith("Compared with frozen")
    assert (
        f"Right in this run alone: {found.only_first} images; right in frozen alone: {found.only_second} images; the "
        f"difference in accuracy is larger than chance explains (McNemar's test, p = {found.p_value:.2g})."
    ) in text
    gap = taught.evaluation.splits["test"].macro_f1.value - other.evaluation.splits["test"].macro_f1.value
    low, high = re.search(
        rf"differs by \+{100 * gap:.2f} points \(\+(\S+) to \+(\S+)\); the interval excludes 0", text
    ).groups()
    assert float(low) < 100 * gap < float(high)


@pytest.mark.usefixtures("undrawn")
def test_runs_that_were_not_extended_stand_beside_each_other_too(make_run, read_page):
    run = make_run()
    page = read_page(write_report(run, against=make_run("other")))  # the same answers
    assert [row[0] for row in page.tables["beside"][0]] == ["", "Test accuracy", "Macro F1"]
    text = plain(page.text["beside"])
    assert "Right in this run alone: no image; right in other alone: no image; the difference in accuracy is no" in text
    assert "differs by 0.00 points (\u22121.16 to +1.16); the interval includes 0." in text
    assert "beside" not in read_page(write_report(run)).text


def _labels_moved(run):
    logits, labels = run.read_predictions("test")
    run.write_predictions("test", Predictions(np.roll(logits, 1, 0), np.roll(labels, 1)))


@pytest.mark.parametrize(
    ("changes", "damage", "sentence"),
    [
        (
            {"classes": ("ant", "bee", "cow")},
            None,
            "cannot be compared image by image with .*other: their classes differ: run alone has <script>.*</script> "
            "and other alone has cow; for those that both have, ant and bee, measure .* reslab compare .* lists",
        ),
        ({"num_images": 200}, None, "their test splits have 240 and 200 images"),
        ({}, _labels_moved, r"the labels of \d+ of 240 test images differ"),
        ({}, lambda run: (run.path / "evaluation.json").unlink(), "has not been evaluated"),
    ],
)
def test_a_run_that_cannot_be_compared_is_refused(changes, damage, sentence, make_run):
    run, other = make_run(), make_run("other", **changes)
    if damage:
        damage(other)
    with pytest.raises(UserError, match=sentence):
        write_report(run, against=other)
    with pytest.raises(UserError, match="is given 2 times"):
        write_report(run, against=run)
    assert not (run.path / "report.html").exists()


@pytest.mark.parametrize("planned", [None, {"method": "frozen", "base": "f00", "num_old": 1}])
def test_an_evaluation_of_another_extension_is_refused(planned, make_run):
    run = make_run(num_old=2, recipe={"extension": planned})
    with pytest.raises(UserError, match="files of different evaluations"):
        write_report(run)


# ---- in words


def test_everything_that_the_recipe_chooses_is_said(taught_page):
    text = plain(taught_page.text["run"])
    for part in (
        "finetune-distill: all layers trained further, with the base as a second teacher",
        "a network of 12 classes, weights ba5eba5eba5eba5e… (SHA-256)",
        "at most 50 images of each old class, classes of one name merged",
        "Backboneat 0.4 times the rate",
        "the base's predictions with weight 0.5 alongside the labels, temperature 2",
        "mirrored left to right in every other epoch, each image from its first or its second on",
        "Muon for the filters, momentum 0.6, 3 iterations; SGD for head and biases, peak rates 1.5 and 0.25, Nesterov "
        "momentum 0.85, decay 0.004",
        "cross-entropy, label smoothing 0.2, logits adjusted by 0.5 times the logarithm of each class's share",
        "2,000 images, in micro-batches of 250",
        "1,200 images drawn an epoch, a class of n images in proportion to n to the power of 0.25",
        "parameters of stem after 3 epochs",
    ):
        assert part in text, part


def test_what_is_left_at_its_default_is_not_said(rich_page):
    terms = (
        "Method",
        "Base",
        "Old data",
        "Backbone",
        "Distillation",
        "Sampling",
        "Not trained",
        "micro-batches",
        "adjusted",
    )
    assert [term for term in terms if term in rich_page.text["run"]] == []


def test_parts_of_an_extension():
    def extension(**changes):
        return Extension(method="frozen", base="f00", num_old=2, **changes)

    assert words.old_data_words(extension()) == "all training images of the old classes"
    assert words.old_data_words(extension(old_data="none")) == "no image of an old class"
    by_memory = Extension(method="fusion", base="f00", num_old=2, old_data="none")
    assert words.old_data_words(by_memory) == "no image of an old class, but what the base remembered of them"
    assert words.old_data_words(extension(old_data=1)) == "at most 1 image of each old class"
    assert (
        words.sampling_words(Sampling(images_per_epoch=9))
        == "9 images drawn an epoch, classes at their natural frequencies"
    )
    assert words.sampling_words(Sampling(images_per_epoch=9, balance=1)).endswith("all classes equally often")
    freeze = (Freeze(parameters="", epoch=0), Freeze(parameters="stem", epoch=1))
    told = "all layers below the head from the start; parameters of stem after 1 epoch"
    assert "; ".join(each.words(epochs=2) for each in freeze) == told
    assert "; ".join(each.words(epochs=1) for each in freeze) == f"{told} (not reached)"
    assert words.augment_words((Flip(alternate=True),)) != words.augment_words((Flip(),))
    assert "1 iteration;" in words.optimizer_words(Muon(iterations=1))


def test_a_difference_stands_with_its_interval_in_points():
    assert in_points(Estimate(value=0.01, low=-0.02, high=0.04)).aside == "(−2.00 to +4.00)"


def markdown_tables(text):
    """The tables below each heading, cell by cell, without what escapes."""
    found, heading = {}, ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("| "):
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            found.setdefault(heading, []).append([plain(re.sub(r"\\(.)", r"\1", cell)) for cell in cells])
    return found


def test_markdown_tells_of_the_extension_what_the_page_tells(taught, taught_page):
    text = (taught.path / "report.md").read_text(encoding="utf-8")
    tables = markdown_tables(text)
    for heading, page in (
        ("Old classes before and after", "old"),
        ("New classes", "new"),
        ("Compared with frozen", "beside"),
    ):
        assert tables[heading] == [list(map(plain, row)) for row in taught_page.tables[page][0]], heading
    worst = [list(map(plain, row[:4])) for row in taught_page.tables["pairs"][0]]
    assert tables["Most confused pairs"] == worst
    assert "That is a change of −1.00 points" in plain(text)
    assert "Tau is " in text

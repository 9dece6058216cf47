"""What stands on the page, held against the files that it was made from."""

import re

import numpy as np
import pytest

from reslab.recipe.published import CIFAR10_NETWORKS
from reslab.recipe.recipe import Linear, derive
from reslab.recipe.settings import with_settings
from reslab.recipe.shipped import RECIPES
from reslab.report import write_report


def in_percent(estimate):
    return f"{100 * estimate.value:.2f} % ({100 * estimate.low:.2f}–{100 * estimate.high:.2f})"


def plain(text):
    return " ".join(text.replace("\u00a0", " ").split())


def test_headline(rich, rich_page):
    figures = rich.evaluation.splits["test"]
    for words in (
        "synthetic on cifar10",
        f"{100 * figures.accuracy.value:.2f} %",
        f"({100 * figures.accuracy.low:.2f}–{100 * figures.accuracy.high:.2f})",
        f"{100 * figures.macro_f1.value:.2f} %",
        "pre-activation ResNet-8, is published at 70.00–72.00 %",
        "29 parameters",
        "of 600 test images correctly",
        "2 min 3 s",  # six epochs of 20.5 s
        "95 % intervals",
    ):
        assert words in rich_page.text[""], words


def test_table_of_contents_leads_to_every_section(rich_page, lean_page, taught_page):
    for page in (rich_page, lean_page, taught_page):
        links = [attributes["href"][1:] for tag, attributes in page.tags if tag == "a" and attributes["href"][0] == "#"]
        assert links == [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert "published" in rich_page.text
    assert "published" not in lean_page.text


def test_what_was_run(rich_page):
    for words in (
        "made by the tests",
        "pre-activation ResNet (8 layers",
        "SGD, Nesterov momentum 0.9",
        "rises linearly to 0.1 over the first 20 % of the run",
        "6 of 6 epochs, 228 updates",
        "32 images",
        "200 images held out",
        "1,004 training images a second",  # the median of 1001 to 1006
        "a processor",
        "PyTorch 2.13.0",
        "c0ffee",
        "reslab train synthetic --out run --set optimizer.peak_lr=0.1",
        "2026-01-02, 03:04 UTC",
        "minus 125.5, 122.25, 113, divided by 63, 62, 66.5",
    ):
        assert words in rich_page.text["run"], words
    assert rich_page.tables["run"][0][1] == ["npz:somewhere", "Training split", "ab" * 32, "1,200"]


def test_augmented_figures_stand_beside_those_without(rich, rich_page):
    header, *rows = rich_page.tables["figures"][0]
    assert header == [
        "",
        "Test split, 600 images",
        "Test split, mean of 2 views",
        "Training split, 600 images",
        "Training split, mean of 2 views",
    ]
    splits = rich.evaluation.splits
    columns = [figures for name in ("test", "train") for figures in (splits[name], splits[name].test_time_augmentation)]
    columns = [columns[0], columns[1].figures, columns[2], columns[3].figures]
    by_name = {name: cells for name, *cells in rows}
    assert by_name["Accuracy"] == [in_percent(figures.accuracy) for figures in columns]
    assert by_name["Balanced accuracy"] == [in_percent(figures.balanced_accuracy) for figures in columns]
    assert by_name["Macro precision"] == [in_percent(figures.macro_precision) for figures in columns]
    assert by_name["Macro recall"] == [in_percent(figures.macro_recall) for figures in columns]
    assert by_name["Macro F1"] == [in_percent(figures.macro_f1) for figures in columns]
    assert by_name["Log loss (nats)"] == ["0.432 (0.412–0.452)"] * 4
    assert by_name["Expected calibration error"] == ["3.45 % (1.45–5.45)"] * 4
    assert len(by_name) == 8


def test_figures_without_augmentation_and_with_top5(lean_page):
    header, *rows = lean_page.tables["figures"][0]
    assert header == ["", "Test split, 240 images", "Training split, 240 images"]
    assert ["Top-5 accuracy", "98.70 % (96.70–100.70)", "98.70 % (96.70–100.70)"] in rows


def test_every_class_has_its_row(rich, rich_page, lean_page):
    header, *rows = rich_page.tables["classes"][0]
    assert header == ["No.", "Class", "Precision", "Recall", "F1", "Images"]
    third = rich.evaluation.splits["test"].per_class[2]
    expected = [*map(in_percent, (third.precision, third.recall, third.f1)), str(third.support)]
    assert rows[2] == ["3", "<script>alert(1)</script>", *expected]
    assert len(lean_page.tables["classes"][0]) == 13


def test_confused_pairs_with_their_images(lean, lean_page):
    matrix = np.array(lean.evaluation.splits["test"].confusion_matrix)
    logits, labels = lean.read_predictions("test")
    _, *rows = lean_page.tables["pairs"][0]
    counts = sorted(matrix[~np.eye(12, dtype=bool)], reverse=True)[:8]
    assert [int(row[2]) for row in rows] == counts
    images = lean_page.images["pairs"]
    assert len(images) == sum(min(count, 10) for count in counts)
    for true, predicted, count, share, _ in rows:
        i, j = int(true.split()[1]) - 1, int(predicted.split()[1]) - 1
        assert matrix[i, j] == int(count)
        assert share == f"{100 * matrix[i, j] / matrix[i].sum():.1f} %"
        shown = [image for image in images if f": {true}, taken for {predicted} with" in image["alt"]]
        indices = [int(re.match(r"Test image (\d+)", image["alt"])[1]) for image in shown]
        assert indices
        assert all(labels[index] == i and logits[index].argmax() == j for index in indices)


def test_worst_errors_are_the_most_certain_ones_of_each_pair_of_classes(lean, lean_page):
    logits, labels = lean.read_predictions("test")
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = np.flatnonzero(logits.argmax(1) != labels)
    by_pair = {}
    for index in wrong[np.argsort(-probabilities[wrong].max(1))]:
        by_pair.setdefault((labels[index], logits[index].argmax()), []).append(index)
    worst = [first for first, *_ in by_pair.values()][:24]
    assert f"{len(wrong)} mistakes on the test split; 24 shown" in lean_page.text["worst"]
    expected = [
        f"Test image {index}: kind {labels[index] + 1}, taken for kind {logits[index].argmax() + 1} "
        f"with {100 * probabilities[index].max():.2f} %"
        for index in worst
    ]
    assert [image["alt"].replace("\u00a0", " ") for image in lean_page.images["worst"]] == expected


def test_published_figure_and_verdict(rich_page, lean_page):
    text = rich_page.text["published"]
    assert "Somebody et al. 2020, table 3" in text
    assert "Our whole interval" in text
    assert "not the spread between seeds" in text
    assert "no verdict" not in text  # although the command says --set
    assert "nearest" not in lean_page.text[""]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "recipe",
    [
        RECIPES["resnet-20"].shortened(0.02),
        derive(RECIPES["resnet-20"], name="resnet-20", epochs=3, schedule=Linear()),
        with_settings(RECIPES["resnet-20"], ["epochs=3", "schedule.at=[1,2]"]),
    ],
)
def test_a_recipe_that_is_not_the_published_one_gets_no_verdict(recipe, make_run, read_page):
    page = read_page(write_report(make_run(recipe=recipe.model_dump(mode="json"))))
    text = plain(page.text["published"])
    assert "The same network, ResNet-20, is published at 91.25 %" in text
    assert "There is no verdict: only a run of the published recipe gets one." in text
    assert "interval, " not in text
    assert not {"above", "below", "within"} & {attributes.get("class") for tag, attributes in page.tags}


ELSEWHERE = {"file": "their.pth", "sha256": "ab" * 32}


@pytest.mark.usefixtures("undrawn")
def test_what_other_training_saw_is_not_claimed(make_run, read_page):
    imported = {"published": None, "data": "cifar10", "imported": ELSEWHERE | {"map": "order"}}
    page = read_page(write_report(make_run("imported", epochs=0, recipe=imported | {"epochs": 6})))
    text = plain(page.text["run"])
    assert "Trained elsewhere. Measured on 240 test images of 3 classes, which that training may have seen." in text
    assert "Training timenot known" in plain(page.text[""])
    assert "On its training images" not in page.text[""]
    assert ["synthetic", "0.029 k", "–", "–", "–", "–"] in [row[:6] for row in page.tables["published"][0]]
    page = read_page(write_report(make_run("started", recipe={"published": None, "start": ELSEWHERE})))
    assert (
        "Trained for 6 epochs. Measured on 240 test images of 3 classes that this training never saw; the weights that "
        "it began from may have."
    ) in plain(page.text["run"])
    page = read_page(write_report(make_run("own", recipe={"published": None})))
    assert "Measured on 240 test images of 3 classes that training never saw." in plain(page.text["run"])
    assert "On its training images" in page.text[""]


def test_run_stands_at_its_place_in_the_field(rich, rich_page):
    header, *rows = rich_page.tables["published"][0]
    assert header[-1] == "Test accuracy"
    accuracies = [float(row[-1].split(" ")[0]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert len(rows) == len(CIFAR10_NETWORKS) + 1
    ours = next(row for row in rows if row[0] == "synthetic")
    accuracy = in_percent(rich.evaluation.splits["test"].accuracy)
    assert ours == ["synthetic", "0.029 k", "32", "6", "2 min 3 s", "cpu, 2 threads, bfloat16", accuracy]
    assert ["Pre-activation ResNet-32", "0.47 M", "128", "200", "1 h 7 min", "GTX 1080 Ti", "92.68 %"] in rows
    marked = [place for place, (_, attributes) in enumerate(rows_of(rich_page, "published")) if "class" in attributes]
    assert marked == [1 + rows.index(ours)]


def rows_of(page, section):
    start = next(i for i, (tag, attributes) in enumerate(page.tags) if attributes.get("id") == section)
    return [(tag, attributes) for tag, attributes in page.tags[start:] if tag == "tr"]

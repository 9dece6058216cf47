import base64
import io
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from reslab.errors import Failure, UserError
from reslab.published import CIFAR10_NETWORKS
from reslab.report import write_report
from reslab.runs import Examples, Predictions

LOADING = {"src", "srcset", "data", "poster", "background"}  # attributes that make a browser fetch; href of <link> too
EVERY_FIGURE = {
    "loss.png",
    "accuracy.png",
    "confusion-train.png",
    "confusion-train-by-row.png",
    "confusion-test.png",
    "confusion-test-by-row.png",
    "reliability-test.png",
}


class Page(HTMLParser):
    """A page taken apart: tags, and by section its text, tables and images."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.tables, self.images, self.open = [], {"": ""}, {}, {}, [""]
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "section":
            self.open.append(dict(attributes)["id"])
        elif tag == "img":
            self.images.setdefault(self.open[-1], []).append(dict(attributes))
        elif tag == "table":
            self.tables.setdefault(self.open[-1], []).append([])
        elif tag == "tr":
            self.tables[self.open[-1]][-1].append([])
        elif tag in ("td", "th"):
            self.tables[self.open[-1]][-1][-1].append("")

    def handle_endtag(self, tag):
        if tag == "section":
            self.open.pop()

    def handle_data(self, data):
        section = self.open[-1]
        words = data.replace("\u00a0", " ")
        self.text[section] = self.text.get(section, "") + words
        if self.tables.get(section) and self.tables[section][-1] and self.tables[section][-1][-1]:
            row = self.tables[section][-1][-1]
            row[-1] = f"{row[-1]} {words.strip()}".strip()


def read_page(run):
    return Page((run.path / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rich_page(rich):
    return read_page(rich)


@pytest.fixture(scope="module")
def lean_page(lean):
    return read_page(lean)


def in_percent(estimate):
    return f"{100 * estimate.value:.2f} % ({100 * estimate.low:.2f}–{100 * estimate.high:.2f})"


# ---- what the page says


def test_headline(rich, rich_page):
    figures = rich.evaluation.splits["test"]
    for words in (
        "synthetic on cifar10",
        f"{100 * figures.accuracy.value:.2f} %",
        f"({100 * figures.accuracy.low:.2f}–{100 * figures.accuracy.high:.2f})",
        f"{100 * figures.macro_f1.value:.2f} %",
        "published 70.00–72.00 %",
        "29 parameters",
        "600 test images of 3 classes",
        "2 min 3 s",  # six epochs of 20.5 s
        "95 % intervals",
    ):
        assert words in rich_page.text[""], words


def test_table_of_contents_leads_to_every_section(rich_page, lean_page):
    for page in (rich_page, lean_page):
        links = [attributes["href"][1:] for tag, attributes in page.tags if tag == "a" and attributes["href"][0] == "#"]
        assert links == [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    assert "field" in rich_page.text
    assert "field" not in lean_page.text


def test_what_was_run(rich_page):
    for words in (
        "made by the tests",
        "pre-activation ResNet-8",
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
    assert rich_page.tables["run"][0][1] == ["npz:somewhere", "Training", "ab" * 32, "1,200"]


def test_augmented_figures_stand_beside_those_without(rich, rich_page):
    header, *rows = rich_page.tables["figures"][0]
    assert header == [
        "",
        "Training, 600 images",
        "Training, mean of 2 views",
        "Test, 600 images",
        "Test, mean of 2 views",
    ]
    splits = rich.evaluation.splits
    columns = [figures for name in ("train", "test") for figures in (splits[name], splits[name].test_time_augmentation)]
    columns = [columns[0], columns[1].figures, columns[2], columns[3].figures]
    by_name = {name: cells for name, *cells in rows}
    assert by_name["Accuracy"] == [in_percent(figures.accuracy) for figures in columns]
    assert by_name["Balanced accuracy"] == [in_percent(figures.balanced_accuracy) for figures in columns]
    assert by_name["Macro precision"] == [in_percent(figures.macro_precision) for figures in columns]
    assert by_name["Macro recall"] == [in_percent(figures.macro_recall) for figures in columns]
    assert by_name["Macro F1"] == [in_percent(figures.macro_f1) for figures in columns]
    assert by_name["Log loss (nats)"] == ["0.432 (0.412–0.452)"] * 4
    assert by_name["Expected calibration error"] == ["3.45 % (1.45–5.45)"] * 4
    assert len(by_name) == 7


def test_figures_without_augmentation_and_with_top5(lean_page):
    header, *rows = lean_page.tables["figures"][0]
    assert header == ["", "Training, 240 images", "Test, 240 images"]
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
    assert len(images) == sum(min(count, 8) for count in counts)
    for true, predicted, count, share, _ in rows:
        i, j = int(true.split()[1]) - 1, int(predicted.split()[1]) - 1
        assert matrix[i, j] == int(count)
        assert share == f"{100 * matrix[i, j] / matrix[i].sum():.1f} %"
        shown = [image for image in images if f": {true}, taken for {predicted} with" in image["alt"]]
        indices = [int(re.match(r"Test image (\d+)", image["alt"])[1]) for image in shown]
        assert indices
        assert all(labels[index] == i and logits[index].argmax() == j for index in indices)


def test_worst_errors_are_the_most_certain_ones(lean, lean_page):
    logits, labels = lean.read_predictions("test")
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = np.flatnonzero(logits.argmax(1) != labels)
    worst = wrong[np.argsort(-probabilities[wrong].max(1))][:24]
    expected = [
        f"Test image {index}: kind {labels[index] + 1}, taken for kind {logits[index].argmax() + 1} "
        f"with {100 * probabilities[index].max():.2f} %"
        for index in worst
    ]
    assert [image["alt"].replace("\u00a0", " ") for image in lean_page.images["worst"]] == expected


def test_published_figure_and_verdict(rich_page, lean_page):
    text = rich_page.text["published"]
    assert "Somebody et al. 2020, table 3" in text
    assert "Above." in text
    assert "one seed cannot carry the spread from seed to seed" in text
    assert "changed by --set" in " ".join(text.split())
    assert "There is no published figure for this recipe" in lean_page.text["published"]
    assert "none published" in lean_page.text[""]


def test_recipe_as_shipped_is_not_called_changed(make_run):
    run = make_run(command="reslab train synthetic --settings x --out=--set")
    assert "changed by" not in read_page_of(write_report(run)).text["published"]


def read_page_of(path):
    return Page(path.read_text(encoding="utf-8"))


def test_run_stands_at_its_place_in_the_field(rich, rich_page):
    header, *rows = rich_page.tables["field"][0]
    assert header[-1] == "Test accuracy"
    accuracies = [float(row[-1].split(" ")[0]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert len(rows) == len(CIFAR10_NETWORKS) + 1
    ours = next(row for row in rows if row[0] == "synthetic")
    accuracy = in_percent(rich.evaluation.splits["test"].accuracy)
    assert ours == ["synthetic", "0.029 k", "32", "6", "2 min 3 s", "cpu, 2 threads", accuracy]
    assert ["Pre-activation ResNet-32", "0.47 M", "128", "200", "1 h 7 min", "GTX 1080 Ti", "92.68 %"] in rows
    marked = [place for place, (_, attributes) in enumerate(rows_of(rich_page, "field")) if "class" in attributes]
    assert marked == [1 + rows.index(ours)]


def rows_of(page, section):
    start = next(i for i, (tag, attributes) in enumerate(page.tags) if attributes.get("id") == section)
    return [(tag, attributes) for tag, attributes in page.tags[start:] if tag == "tr"]


# ---- how the page is made


@pytest.mark.parametrize("which", ["rich", "lean"])
def test_page_loads_nothing_and_runs_nothing(which, request):
    page = request.getfixturevalue(f"{which}_page")
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "embed", "video", "audio"}
        assert not any(name.startswith("on") for name in attributes)
        addresses = [value for name, value in attributes.items() if name in LOADING or (tag, name) == ("link", "href")]
        assert all(address.startswith("data:") for address in addresses), (tag, addresses)
    style = "".join(
        re.findall(r"<style>(.*?)</style>", (request.getfixturevalue(which).path / "report.html").read_text(), re.S)
    )
    assert len(style) > 1000
    assert "url(" not in style
    assert "@import" not in style
    policy = next(attributes for _, attributes in page.tags if "http-equiv" in attributes)
    assert policy["content"].startswith("default-src 'none'; img-src data:;")


@pytest.mark.parametrize("which", ["rich", "lean"])
def test_every_picture_is_described_and_decodes(which, request):
    run, page = request.getfixturevalue(which), request.getfixturevalue(f"{which}_page")
    assert {"lang": "en"} in [attributes for tag, attributes in page.tags if tag == "html"]
    embedded = []
    for image in (image for images in page.images.values() for image in images):
        assert len(image["alt"]) > 20
        content = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"), validate=True)
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
        embedded.append(content)
    files = {path.name: path.read_bytes() for path in (run.path / "figures").iterdir()}
    assert set(files) == EVERY_FIGURE
    assert all(content in embedded for content in files.values())
    captions = [tag for tag, _ in page.tags].count("figcaption")
    assert captions == len(EVERY_FIGURE)


def test_figures_are_embedded_at_half_their_size(rich_page):
    for image in rich_page.images["matrices"]:
        content = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"))
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.size == (2 * int(image["width"]), 2 * int(image["height"]))


def test_example_images_are_the_pixels_of_the_run(rich, rich_page):
    indices, images = rich.read_examples("test")
    by_index = dict(zip(indices.tolist(), images, strict=True))
    for image in rich_page.images["worst"]:
        index = int(re.match(r"Test image (\d+)", image["alt"])[1])
        with Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))) as picture:
            np.testing.assert_array_equal(np.asarray(picture).transpose(2, 0, 1), by_index[index])


def test_same_run_gives_the_same_bytes(lean, tmp_path):
    before = (lean.path / "report.html").read_bytes()
    assert write_report(lean).read_bytes() == before


def test_large_images_do_not_make_a_large_page(make_run):
    run = make_run(classes=tuple("abcdefghij"), num_images=600, skill=0.5)
    indices, _ = run.read_examples("test")
    noise = np.random.default_rng(0).integers(256, size=(len(indices), 3, 224, 224)).astype(np.uint8)
    run.write_examples("test", Examples(indices, noise))
    assert write_report(run).stat().st_size < 8_000_000
    assert len(read_page(run).images["worst"]) == 24


def test_no_torch_and_no_global_drawing_state():
    code = (
        "import sys, reslab.report as r; print(sorted(m for m in sys.modules if m.split('.')[0] == 'torch' or "
        "m in ('matplotlib.pyplot', 'reslab.recipes', 'reslab.training', 'reslab.data')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- runs at the edge


def test_a_run_without_mistakes(make_run):
    page = read_page_of(write_report(make_run(skill=50.0)))
    assert "every test image was classified correctly" in page.text["pairs"]
    assert "every test image was classified correctly" in page.text["worst"]


def test_a_run_without_a_log_has_no_curves(make_run):
    run = make_run(epochs=0, recipe={"epochs": 6})
    page = read_page_of(write_report(run))
    assert "curves" not in page.text
    assert not (run.path / "figures" / "loss.png").exists()
    assert "0 of 6 epochs" in page.text["run"]


def test_a_run_that_is_not_evaluated_is_refused(make_run):
    run = make_run()
    (run.path / "evaluation.json").unlink()
    with pytest.raises(UserError, match="has not been evaluated: run reslab evaluate"):
        write_report(run)
    assert not (run.path / "figures").exists()


def test_a_run_without_test_figures_is_refused(make_run):
    run = make_run()
    train = {"train": run.evaluation.splits["train"]}
    run.write_evaluation(run.evaluation.model_copy(update={"splits": train}))
    with pytest.raises(UserError, match="no figures of the test split"):
        write_report(run)


@pytest.mark.parametrize("name", ["predictions-test.npz", "examples-test.npz", "model.safetensors"])
def test_a_missing_file_is_named(name, make_run):
    run = make_run()
    (run.path / name).unlink()
    with pytest.raises(UserError, match=r"predictions-test\.npz|examples-test\.npz|no finished network"):
        write_report(run)


def _other_number(run):
    logits, labels = run.read_predictions("test")
    run.write_predictions("test", Predictions(logits[:-1], labels[:-1]))


def _other_classes(run):
    logits, labels = run.read_predictions("test")
    run.write_predictions("test", Predictions(logits[:, :2], labels))


def _examples_beyond(run):
    indices, images = run.read_examples("test")
    run.write_examples("test", Examples(indices + 240, images))


@pytest.mark.parametrize("damage", [_other_number, _other_classes, _examples_beyond])
def test_files_of_different_evaluations_are_refused(damage, make_run):
    run = make_run()
    damage(run)
    with pytest.raises(UserError, match="files of different evaluations"):
        write_report(run)


def test_a_folder_that_cannot_be_made_is_a_failure(make_run):
    run = make_run()
    (run.path / "figures").write_text("in the way")
    with pytest.raises(Failure, match="figures cannot be made"):
        write_report(run)
    assert not (run.path / "report.html").exists()

"""What the report says of single images, what it leaves out, and what it writes beside the page."""

import json
import re
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from sklearn.datasets import load_sample_images

from reslab.errors import UserError
from reslab.evaluation.gallery import IMAGES_OF_CELLS, NUM_FEATURES, NUM_HEAT_MAPS
from reslab.language import read_language, speaking
from reslab.report import draw, tabulate, write_report
from reslab.report.inputs import read_inputs
from reslab.report.interactive import PLOTLY
from reslab.report.looks import doubts_sentence, looks
from reslab.report.plane import to_plane
from reslab.report.printing import find_browser
from reslab.report.sheets import make_sheet
from reslab.runs import Doubts, Features, HeatMaps, drop_exhibit, read_exhibit, write_exhibit
from reslab.runs.gallery import NUM_DOUBTS


def test_looks_and_doubts_stand_on_the_page(rich, rich_page):
    assert len(rich_page.images["looks"]) == 10  # five images, each with its map
    assert "taken for" in rich_page.text["looks"]
    text = " ".join(rich_page.text["doubts"].split())
    assert "doubts 3 labels of 600 on the test split" in text
    assert "least credible" not in text  # all are shown
    logits, labels = rich.read_predictions("test")
    given = np.exp(logits[0, labels[0]]) / np.exp(logits[0]).sum()
    assert f"{100 * given:.2f} %" in text
    assert [image["alt"].split(":")[0] for image in rich_page.images["doubts"]] == [
        "Test image 0",
        "Test image 9",
        "Test image 3",
    ]


@pytest.mark.parametrize(
    ("columns", "where"),
    [
        ((0, 9, 0), "neither half holds most of it"),
        ((0, 0, 0), "neither half holds most of it"),
        ((9,), "neither half holds most of it"),
        ((5, 1, 3), "most of it lies in the left half"),
        ((3, 2, 200), "most of it lies in the right half"),
        ((1, 2, 3, 1), "most of it lies in the right half"),
    ],
)
def test_the_words_for_a_heat_map_say_where_its_evidence_lies(columns, where, rich):
    inputs = read_inputs(rich)
    maps = np.tile(np.array(columns, np.uint8), (1, 2, 1))
    heat = HeatMaps(inputs.gallery.shown["test"].indices[:1], maps)
    found = looks(inputs._replace(gallery=replace(inputs.gallery, heat_maps=heat)))
    (look,) = [*found["right"], *found["wrong"]]
    assert look.heat.alt.endswith(where)


@pytest.mark.usefixtures("undrawn")
def test_a_card_names_the_reports_of_both_languages(make_run):
    run = make_run()
    write_report(run, language="ru")
    card = (run.path / "model-card.ru.md").read_text()
    assert "- `report.ru.html`: отчёт на русском" in card
    assert "report.html`" not in card
    write_report(run)
    assert "- `report.ru.html`: the report in Russian" in (run.path / "model-card.md").read_text()


@pytest.mark.parametrize(
    ("num", "said", "in_russian"),
    [
        (0, "doubts no label of the test split (600 images).", "ни одну метку тестовой выборки (600 изображений)."),
        (1, "doubts 1 label of 600 on the test split", "(Confident learning, cleanlab): 1 метка из 600."),
        (37, "The 36 least credible are shown.", "Показаны наименее правдоподобные (36)."),
    ],
)
def test_doubts_are_counted_in_either_language(num, said, in_russian, rich):
    inputs = read_inputs(rich)
    few = Doubts(np.arange(num), np.zeros(num, np.float32))
    inputs = inputs._replace(gallery=replace(inputs.gallery, doubts=few))
    assert said in doubts_sentence(inputs)
    with speaking(read_language("ru")):
        assert in_russian in doubts_sentence(inputs)


def test_data_holds_what_the_network_said(rich, rich_page):
    data = json.loads(rich_page.scripts[0])
    split = data["splits"]["test"]
    logits, labels = rich.read_predictions("test")
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert split["matrix"] == [list(row) for row in rich.evaluation.splits["test"].confusion_matrix]
    for image, label, answers in zip(split["images"], split["labels"], split["answers"], strict=True):
        index = int(image.removeprefix("image "))
        assert label == labels[index]
        assert {k for k, _ in answers} == {0, 1, 2}
        assert [p for _, p in answers] == pytest.approx([probabilities[index, k] for k, _ in answers], abs=1e-4)
    assert data["curves"]["panels"][0]["series"][1][1] == [100 * epoch.validation_accuracy for epoch in rich.log]


@pytest.mark.usefixtures("undrawn")
def test_what_is_missing_is_said_in_a_sentence(make_run, read_page):
    run = make_run(looked_at=True)
    drop_exhibit(run.path, "test", HeatMaps)
    page = read_page(write_report(run))
    text = " ".join(page.text[""].split())
    commands = f"pip install 'reslab[report]'; reslab evaluate {run.path}; reslab report {run.path}."
    assert f"Left out: heat maps. To have them, run {commands}" in text
    assert "looks" not in page.text


@pytest.mark.usefixtures("undrawn")
def test_what_no_command_can_add_is_not_promised(make_run, read_page):
    """A network without a layer of places, and labels of which a class has none in the test split."""
    run = make_run(looked_at=True)
    write_exhibit(run.path, "test", HeatMaps(np.empty(0, np.int64), np.empty((0, 0, 0), np.uint8)))
    drop_exhibit(run.path, "test", Doubts)
    evaluation = run.evaluation
    test = evaluation.splits["test"]
    *others, last = test.per_class
    without = test.model_copy(update={"per_class": (*others, last.model_copy(update={"support": 0}))})
    run.write_evaluation(evaluation.model_copy(update={"splits": {"test": without}}))
    page = read_page(write_report(run))
    text = " ".join(page.text[""].split())
    assert "There are no heat maps: no layer of this network has spatial extent." in text
    assert "There are no test images of 1 class, so no label is doubted." in text
    assert "Left out" not in text
    assert not {"looks", "doubts"} & set(page.text)


@pytest.mark.usefixtures("undrawn")
def test_views_of_another_evaluation_are_refused(make_run):
    run = make_run(looked_at=True)
    features = read_exhibit(run.path, "test", Features)
    write_exhibit(run.path, "test", Features(features.indices + 1, features.features))
    with pytest.raises(UserError, match="another evaluation: run reslab evaluate"):
        write_report(run)


def test_promises_stand_on_the_page_in_markdown_and_on_the_card(rich, rich_page):
    test = rich.evaluation.splits["test"]
    promised, by_class = rich_page.tables["promises"]
    assert promised[1][0] == "95 % of the pictures are answered"
    assert promised[1][1].startswith(f"{100 * test.answered.answered.value:.2f} %")
    assert [row[0] for row in promised[2:4]] == ["accuracy of the answers", "accuracy on the others"]
    assert [row[0] for row in promised[4::2]] == [
        f"{share} % of the sets contain the true class" for share in (90, 95, 99)
    ]
    assert by_class[1][3].startswith(f"{100 * test.class_sets[2].per_class[0].value:.2f} %")
    for page in ("model-card.md", "report.md"):
        text = (rich.path / page).read_text(encoding="utf-8").replace("\u00a0", " ")
        assert f"| 95 % of the pictures are answered | {100 * test.answered.answered.value:.2f} %" in text
        assert "Probabilities are off by 3.45 %" in text


def test_markdown_has_the_figures_and_links_to_pictures_that_exist(rich):
    text = (rich.path / "report.md").read_text(encoding="utf-8")
    accuracy = rich.evaluation.splits["test"].accuracy
    assert f"{100 * accuracy.value:.2f} % ({100 * accuracy.low:.2f}" in text
    assert "\\<script\\>alert(1)" in text
    links = [line.rpartition("(")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert len(links) == 9
    assert all((rich.path / link).exists() for link in links)


def test_model_card_is_read_by_the_hub(rich):
    card = ModelCard.load(rich.path / "model-card.md").data
    figures = rich.evaluation.splits["test"]
    assert (card.library_name, card.pipeline_tag, card.datasets) == (
        "reslab",
        "image-classification",
        ["uoft-cs/cifar10"],
    )
    results = {result.metric_type: result for result in card.eval_results}
    assert results["accuracy"].metric_value == pytest.approx(figures.accuracy.value, abs=1e-6)
    assert results["f1"].metric_value == pytest.approx(figures.macro_f1.value, abs=1e-6)
    assert results["accuracy"].dataset_type == "uoft-cs/cifar10"
    assert results["accuracy"].dataset_split == "test"


def test_model_card_and_markdown_hold_hostile_names_as_they_are(make_run):
    name = "`x`\n# [evil](http://x) <b>"
    run = make_run(classes=("*ant*", "bee\n---\n\x1b[31m", "<script>"), recipe={"name": name, "source": name})
    run.write_environment(run.environment.model_copy(update={"command": "reslab\n```\n# free"}))
    write_report(run)
    for page in ("model-card.md", "report.md"):
        text = (run.path / page).read_text(encoding="utf-8")
        assert "\x1b" not in text
        body = text.split("\n---\n", 1)[1] if text.startswith("---") else text
        shown = MarkdownIt().enable("table").render(body)
        assert not re.search(r"<(script|b|em|a)\b|<h1>(evil|free)", shown), page
        assert "&lt;script&gt;" in shown
        assert "*ant*" in shown
    assert ModelCard.load(run.path / "model-card.md").data.library_name == "reslab"


def test_plane_keeps_groups_apart_and_repeats():
    generator = np.random.default_rng(0)
    groups = [generator.normal(size=(20, 6)) + 20 * offset for offset in range(3)]
    features = np.concatenate(groups).astype(np.float32)
    points, method = to_plane(features)
    assert method == "t-SNE"
    centers = [points[20 * place : 20 * place + 20].mean(0) for place in range(3)]
    spread = max(points[20 * place : 20 * place + 20].std() for place in range(3))
    assert min(np.linalg.norm(centers[i] - centers[j]) for i, j in ((0, 1), (0, 2), (1, 2))) > spread
    np.testing.assert_array_equal(to_plane(features)[0], points)
    assert to_plane(features[:5])[1] == "principal components"


@pytest.mark.parametrize("scale", [0, 1e-25])
def test_plane_of_features_that_are_all_equal(scale):
    features = 1 / 3 + np.zeros((40, 6)) if not scale else scale * np.random.default_rng(0).normal(size=(40, 6))
    points, method = to_plane(features.astype(np.float32))  # t-SNE would end the process
    assert method == "principal components"
    np.testing.assert_array_equal(points, np.zeros((40, 2)))


def test_sheet_is_small_where_there_are_many_images():
    images = np.random.default_rng(0).integers(0, 256, size=(400, 3, 32, 32)).astype(np.uint8)
    assert make_sheet(images[:20])[0] == "png"
    kind, content = make_sheet(images)
    assert kind == "webp"
    assert len(content) < images.nbytes


def test_page_of_cifars_size_stays_under_four_megabytes():
    """Plotly's script and two sheets of as many images as evaluation keeps leave room for a megabyte of pictures."""
    photographs = np.stack(load_sample_images().images)  # (2, 427, 640, 3), natural images
    tiles = photographs[:, :416].reshape(2, 13, 32, 20, 32, 3).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 3, 32, 32)
    kept = 2 * IMAGES_OF_CELLS + NUM_FEATURES + 2 * NUM_HEAT_MAPS + NUM_DOUBTS
    _, content = make_sheet(np.resize(tiles, (kept, 3, 32, 32)))
    script = resources.files("reslab.report").joinpath(PLOTLY).read_bytes()
    assert len(script) + 4 / 3 * len(content) < 3_000_000


@pytest.mark.usefixtures("undrawn")
def test_parts_are_shown_in_a_notebook(make_run):
    run = make_run(looked_at=True)
    assert draw(run, part="matrices")._repr_html_().count("<img") == 4
    assert "&lt;script&gt;" in tabulate(run, part="classes")._repr_html_()
    assert [row[0].text for row in tabulate(run, part="field").rows] == [run.recipe.name]  # it is of no published data
    with pytest.raises(UserError, match="no part 'curve': choose from curves, matrices"):
        draw(run, part="curve")
    with pytest.raises(UserError, match="not an extended run"):
        tabulate(run, part="old")


def test_no_browser_is_said_in_a_sentence(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="--pdf needs Chromium, Chrome or Edge on PATH"):
        find_browser()

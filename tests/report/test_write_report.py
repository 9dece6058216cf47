"""How the page and its figures are made, and the runs that are refused."""

import base64
import hashlib
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import reslab
from reslab.cli.show import print_shortfall
from reslab.errors import Failure, UserError
from reslab.records import Segment, Setup
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


@pytest.mark.parametrize("which", ["rich", "lean", "taught"])
def test_page_loads_nothing_and_runs_nothing(which, request):
    page = request.getfixturevalue(f"{which}_page")
    for tag, attributes in page.tags:
        assert tag not in {"iframe", "object", "embed", "video", "audio"}
        assert not any(name.startswith("on") for name in attributes)
        addresses = [value for name, value in attributes.items() if name in LOADING or (tag, name) == ("link", "href")]
        assert all(address.startswith("data:") for address in addresses), (tag, addresses)
    html = (request.getfixturevalue(which).path / "report.html").read_text(encoding="utf-8")
    style = html[html.index("<style>") : html.index("</style>")]
    assert len(style) > 1000
    assert "url(" not in style
    assert "@import" not in style
    policy = next(attributes for _, attributes in page.tags if "http-equiv" in attributes)
    assert policy["content"].startswith("default-src 'none'; img-src data:;")
    # One block of data, and the one script that the policy lets run.
    data, script = page.scripts
    assert json.loads(data)["classes"] == list(request.getfixturevalue(which).evaluation.classes)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy["content"].endswith(f"script-src 'sha256-{digest}'")
    assert script.count("plotly.js (cartesian - minified) v") == 1


@pytest.mark.parametrize("which", ["rich", "lean", "taught"])
def test_every_picture_is_described_and_decodes(which, request):
    run, page = request.getfixturevalue(which), request.getfixturevalue(f"{which}_page")
    assert {"lang": "en"} in [attributes for tag, attributes in page.tags if tag == "html"]
    embedded = []
    for image in (image for images in page.images.values() for image in images):
        assert len(image["alt"]) > 20
        content = base64.b64decode(image["src"].partition(";base64,")[2], validate=True)
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
        embedded.append(content)
    files = {path.name: path.read_bytes() for path in (run.path / "figures").iterdir()}
    more = {"taught": {"prior.png"}, "rich": {"features-test.png", "answered-test.png"}}
    assert set(files) == EVERY_FIGURE | more.get(which, set())
    assert all(content in embedded for content in files.values())
    captions = [tag for tag, _ in page.tags].count("figcaption")
    assert captions == len(files) + [attributes.get("class") for _, attributes in page.tags].count("chart")


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


@pytest.mark.usefixtures("undrawn")
def test_a_second_report_replaces_the_first_by_the_same_bytes(make_run):
    run = make_run()
    before = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == before


@pytest.mark.usefixtures("undrawn")
def test_large_images_do_not_make_a_large_page(make_run, read_page):
    run = make_run(classes=tuple("abcd"), num_images=130, skill=-2.0)
    indices, _ = run.read_examples("test")
    noise = np.random.default_rng(0).integers(256, size=(len(indices), 3, 160, 160)).astype(np.uint8)
    run.write_examples("test", Examples(indices, noise))
    path = write_report(run)
    assert path.stat().st_size < 8_000_000
    images = read_page(path).images
    assert (len(images["worst"]), len(images["pairs"])) == (24, 80)


def test_no_torch_and_no_global_drawing_state():
    code = (
        "import sys, reslab.report as r; print(sorted(m for m in sys.modules if m.split('.')[0] == 'torch' or "
        "m in ('matplotlib.pyplot', 'reslab.training', 'reslab.data.load')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- runs at the edge


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_mistakes(make_run, read_page):
    page = read_page(write_report(make_run(skill=50.0)))
    assert not {"pairs", "worst"} & set(page.text)
    assert "Most confus" not in page.text[""]
    assert "It made no mistake on the test images." in page.text[""]


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_a_log_has_no_curves(make_run, read_page):
    run = make_run(epochs=0, recipe={"epochs": 6})
    page = read_page(write_report(run))
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
    with pytest.raises(UserError, match="no metrics of the test split"):
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


@pytest.mark.usefixtures("undrawn")
def test_a_folder_that_cannot_be_made_is_a_failure(make_run):
    run = make_run()
    (run.path / "figures").write_text("in the way")
    with pytest.raises(Failure, match="figures cannot be written: Not a directory"):
        write_report(run)
    assert not (run.path / "report.html").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_network_that_falls_short_of_its_log_is_told_in_red_and_any_other_is_not(make_run, read_page, capsys):
    for name, skill in (("short", 0.0), ("sound", 9.0)):
        run = make_run(name, skill=skill)
        write_report(run)
        print_shortfall(run)
        measured = f"{100 * run.evaluation.splits['train'].accuracy.value:.1f} % on its training images"
        page, said = read_page(run.path / "report.html"), capsys.readouterr().err
        alarms = [attributes for tag, attributes in page.tags if attributes.get("class") == "alarm"]
        texts = (page.text[""], (run.path / "report.md").read_text(), said)
        told = [measured in text.replace("\u00a0", " ") for text in texts]
        assert (told, len(alarms)) == ([name == "short"] * 3, name == "short")
    assert "--alarm: #b3001b" in (run.path / "report.html").read_text()


@pytest.mark.usefixtures("undrawn")
def test_every_segment_of_a_run_is_told(make_run, read_page):
    run = make_run()
    setup = {name: getattr(run.environment, name) for name in Setup.model_fields}
    changes = {"processor": "a newer one", "threads": 5, "torch": "3.0.0"}
    segment = Segment(**setup | changes, updates=76, started="2026-01-02T05:04:05+00:00")
    run.write_environment(run.environment.model_copy(update={"segments": (segment,)}))
    write_report(run)
    page = read_page(run.path / "report.html")
    assert "cpu, 2 threads, bfloat16, then cpu, 5 threads, bfloat16" in page.text[""]
    for text in (page.text["run"], (run.path / "report.md").read_text().replace("\u00a0", " ")):
        told = text[text.index("From update 77") :]
        for words in ("5 threads, bfloat16", "a newer one", "PyTorch 3.0.0", "begun 2026-01-02, 05:04 UTC"):
            assert words in told


@pytest.mark.usefixtures("undrawn")
def test_what_the_run_did_not_come_to_is_told_as_such(make_run, read_page):
    run = make_run(
        epochs=6,
        recipe={
            "epochs": 9,
            "updates": 228,
            "progressive_resizing": [{"epoch": 0, "image_size": 16}, {"epoch": 7, "image_size": 32}],
        },
    )
    write_report(run)
    text = read_page(run.path / "report.html").text["run"]
    assert "trained at 16 pixels a side; 32 after 7 epochs (not reached)" in text
    assert "6 of 9 epochs, 228 updates, ended by the limit of 228 updates" in text


@pytest.mark.usefixtures("undrawn")
def test_a_limit_that_the_run_did_not_come_to_did_not_end_it(make_run, read_page):
    run = make_run(recipe={"updates": 64_000})
    text = read_page(write_report(run)).text["run"]
    assert "6 of 6 epochs, 228 updates" in text
    assert "ended by the limit" not in text


@pytest.mark.usefixtures("undrawn")
def test_the_page_names_the_version_that_wrote_it(make_run, read_page):
    run = make_run()
    run.write_environment(run.environment.model_copy(update={"reslab": "0.0.1"}))
    page = read_page(write_report(run))
    assert f"Written by reslab {reslab.__version__} from" in page.text[""]
    assert "reslab 0.0.1" in page.text["run"]  # which trained it


def test_plots_of_an_earlier_report_are_removed(make_run):
    run = make_run(validation=True)
    write_report(run)
    figures, others = run.path / "figures", run.path / "figures" / "mine.png"
    others.write_bytes(b"")
    (figures / "confusion-validation.png").write_bytes(b"of an evaluation that measured the validation split, too")
    before = {path.name for path in figures.iterdir()}
    write_report(run)
    assert {path.name for path in figures.iterdir()} == before - {"confusion-validation.png"}
    assert others.exists()

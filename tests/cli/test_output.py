"""What the commands print: JSON for programs, tables whose lines stay whole, on any kind of terminal."""

import csv
import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reslab.cli import show
from reslab.evaluation.answers_table import answers_csv
from reslab.measure.metrics import softmax
from reslab.recipe.networks import Plain
from reslab.recipe.recipe import Imported, Recipe
from reslab.recipe.shipped import RECIPES
from reslab.runs import Familiarities, Run, pack_weights, read_weights, write_exhibit

Command = Callable[..., Any]


def read_json(outcome: Any) -> Any:
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


# ---- JSON


def test_lab_as_json(reslab: Command, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reslab.lab.lab_recipe", lambda: small_recipe)
    monkeypatch.setattr("reslab.lab.LATER", "digits:0@20")
    found = read_json(reslab("lab", "--out", "lab", "--threads", "1", "--json"))
    for part, name in zip(found, ("base", "extended"), strict=True):
        assert part.pop("run") == f"lab/{name}"
        assert Path(part.pop("report")).exists()
        assert part == json.loads(Path(f"lab/{name}/evaluation.json").read_text())


def test_extend_as_json_and_what_it_says_before(reslab: Command, finished: Run) -> None:
    outcome = reslab("extend", "small", "--with", "digits:0,8@20", "--out", "more", "--json", "--method", "frozen")
    found = read_json(outcome)
    assert found["run"] == "more"
    assert found["prior"] == json.loads(Path("more/prior.json").read_text())
    assert found["log"] == [json.loads(line) for line in Path("more/log.jsonl").read_text().splitlines()]
    said = outcome.err.splitlines()
    assert re.fullmatch(r"new classes, with their training images: 0 1[89], 8 1[89]", said[0])
    assert said[1].startswith("old classes: 3, with 37 training images each; the largest class has ")
    assert said[2].startswith("no image of the old classes occurs in the new ones")
    assert re.fullmatch(r"frozen will take about [\d.]+ s here", said[3])
    assert read_json(reslab("extend", "--resume", "more", "--json")) == found


def test_the_methods_are_listed(reslab: Command) -> None:
    from reslab.extension import METHODS

    found = read_json(reslab("methods", "--json"))
    assert list(found) == list(METHODS)
    assert {name: after for name, about in found.items() if (after := about["default_after"])} == {
        "fusion": "fit",
        "finetune-distill": "train",
    }
    assert all(name in reslab("methods").out for name in METHODS)


def test_train_as_json_with_the_progress_beside_it(reslab: Command, small_recipe: Recipe) -> None:
    Path("small.json").write_text(small_recipe.model_dump_json())
    outcome = reslab("train", "small.json", "--set", "epochs=2", "--seed", "3", "--json")
    found = read_json(outcome)
    assert found["run"] == "runs/small-seed3"
    assert [epoch["epoch"] for epoch in found["log"]] == [1, 2]
    assert found["log"] == [json.loads(line) for line in Path("runs/small-seed3/log.jsonl").read_text().splitlines()]
    lines = [line for line in outcome.err.splitlines() if line.startswith("epoch")]
    assert [line.split()[:2] for line in lines] == [["epoch", "1/2"], ["epoch", "2/2"]]
    assert max(map(len, lines)) <= 80
    assert reslab("train", "--resume", "runs/small-seed3").out.startswith("Already finished; next: reslab evaluate")
    again = read_json(reslab("train", "--resume", "runs/small-seed3", "--json"))
    assert again == found


def test_evaluate_as_json_is_evaluation_json(reslab: Command, finished: Run) -> None:
    found = read_json(reslab("evaluate", "small", "--splits", "test,train", "--views", "2", "--json"))
    assert found == json.loads((finished.path / "evaluation.json").read_text())
    assert list(found["splits"]) == ["train", "test"]
    assert found["classes"] == ["1", "4", "7"]
    assert found["splits"]["test"]["test_time_augmentation"]["views"] == 2


def test_report_and_compare_as_json(reslab: Command, finished: Run) -> None:
    found = read_json(reslab("report", "small", "--json"))
    assert found == {
        "report": "small/report.html",
        "figures": "small/figures",
        "card": "small/model-card.md",
        "markdown": "small/report.md",
    }
    shutil.copytree("small", "twin")
    compared = read_json(reslab("compare", "small", "twin", "--out", "both", "--json"))
    assert [row["name"] for row in compared["rows"]] == ["small", "twin"]
    assert compared["rows"][0]["accuracy"] == finished.evaluation.splits["test"].accuracy.model_dump()
    assert compared["pairs"][0]["mcnemar"] == {"only_first": 0, "only_second": 0, "p_value": 1.0}
    assert compared["chart"] == "both/curves.png"
    assert Path("both/curves.png").exists()


def test_predict_as_json(reslab: Command, finished: Run) -> None:
    for name in ("a", "b"):
        Image.new("L", (8, 8), color=ord(name)).save(f"{name}.png")
    found = read_json(reslab("predict", "small", "b.png", "a.png", "--top", "2", "--json"))
    assert [answer["file"] for answer in found] == ["b.png", "a.png"]
    for answer in found:
        assert len(answer["classes"]) == len(answer["probabilities"]) == 2
        assert set(answer["classes"]) < {"1", "4", "7"}
        assert answer["probabilities"] == sorted(answer["probabilities"], reverse=True)
        assert 0 < sum(answer["probabilities"]) <= 1
    (whole,) = read_json(reslab("predict", "small", "a.png", "--top", "9", "--json"))
    assert sum(whole["probabilities"]) == pytest.approx(1)


def test_models_as_json_count_the_classes(reslab: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reslab.recipe.networks.MODELS", {"plain8": Plain(depth=8)})
    few, many = (read_json(reslab("models", "--num-classes", num, "--json"))["plain8"] for num in (10, 15))
    head_inputs = 64
    assert many["parameters"] - few["parameters"] == 5 * (head_inputs + 1)
    assert many["multiply_adds"] - few["multiply_adds"] == 5 * head_inputs


def test_recipes_as_json(reslab: Command) -> None:
    assert read_json(reslab("recipes", "--json")) == {
        name: recipe.model_dump(mode="json") for name, recipe in RECIPES.items()
    }
    assert Recipe.model_validate(read_json(reslab("recipes", "lab-resnet32"))) == RECIPES["lab-resnet32"]


def test_data_show_as_json(reslab: Command) -> None:
    found = read_json(reslab("data", "show", "digits:3,5", "--image-size", "4", "--json"))
    assert found["classes"] == ["3", "5"]
    assert found["image_shape"] == [1, 4, 4]
    assert found["counts"] == {"train": [146, 146], "test": [37, 36]}
    assert set(found["fingerprints"]) == {"train", "test"}


def test_data_verify_as_json_and_its_error_beside_it(reslab: Command, official: Path) -> None:
    found = read_json(reslab("data", "verify", "--data-dir", official, "--json"))
    assert {"file": "cifar-10-batches-py/test_batch", "status": "ok"}.items() <= found[6].items()
    (official / found[6]["file"]).write_bytes(b"cut")
    outcome = reslab("data", "verify", "--data-dir", official, "--json")
    assert outcome.code == 2
    assert json.loads(outcome.out)[6]["status"] == "damaged"
    assert outcome.err.startswith("reslab: damaged: cifar-10-batches-py/test_batch;")


# ---- tables


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_table_in_a_file_has_every_row_on_one_line(reslab: Command, finished: Run) -> None:
    """Six columns of figures with their intervals, wider than any terminal."""
    outcome = reslab("evaluate", "small", "--splits", "train,validation,test", "--views", "6")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    (head,) = (line for line in lines if "validation (9 images)" in line)
    assert head.count("mean of 6 views") == 3
    (accuracy,) = (line for line in lines if line.strip().startswith("accuracy"))
    assert accuracy.count("–") == 6
    assert f"{100 * finished.evaluation.splits['test'].accuracy.value:.2f} % (" in accuracy


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Print a table to a terminal of so many columns, or elsewhere."""

    def show_it(width: int, *table: Any, out: type[io.StringIO] = Terminal) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys, "stdout", out())
        show.print_table("Title", *table)
        return [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in sys.stdout.getvalue().splitlines()]

    return show_it


def test_a_last_column_of_text_that_is_too_narrow_gets_a_table_of_its_own(shown: Callable[..., list[str]]) -> None:
    text = "lizard: 4.0 %, crocodile: 3.0 %, frog: 2.0 %"
    table = ["", "recall", "taken for"], [["snake", "50.12 % (40.00–60.12)", text], ["turtle", "1.00 %", "none"]]
    assert shown(52, *table) == [
        "Title",
        "                       recall",
        "─────────────────────────────",
        "snake   50.12 % (40.00–60.12)",
        "turtle                 1.00 %",
        "",
        "        taken for",
        f"{'─' * (8 + len(text))}",
        f"snake   {text}",
        "turtle  none",
        "",
    ]
    assert f"snake   50.12 % (40.00–60.12)  {text}" in shown(100, *table)


def test_a_unit_stays_with_its_number(shown: Callable[..., list[str]]) -> None:
    for width in range(10, 40):
        lines = shown(width, ["name", "some memory", "and more"], [["a", "123.4 MB", "9"], ["b", "5.0 MB (1–2)", "10"]])
        assert sum("123.4 MB" in line or "5.0 MB" in line for line in lines) == 2


def test_a_line_is_not_broken_at_a_no_break_space(shown: Callable[..., list[str]]) -> None:
    cell = ", ".join(f"class-{number}: {number}.0\u00a0%" for number in range(6))
    for width in range(24, 60):
        lines = shown(width, ["file", "classes"], [["a.png", cell]])
        assert not [line for line in lines if line.strip().startswith("%")]
        assert "".join(lines).count("0 %") == 6


def test_a_table_fits_a_terminal_without_breaking_a_word(
    shown: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words wrap; a narrower terminal gets blocks of lines. Columns of nothing go."""
    columns = ["name", "what", "none", "number"]
    rows = [["a-long-name", "some words that wrap", "-", "1,234"], ["b", "", "", "-"]]
    assert "none" not in " ".join(shown(80, columns, rows))
    assert shown(80, columns, rows)[3] == "a-long-name  some words that wrap   1,234"
    assert shown(32, columns, rows)[3:5] == ["a-long-name  some words    1,234", "             that wrap"]
    assert shown(20, columns, rows)[1:] == ["a-long-name", "  what: some words that wrap", "  number: 1,234", "b"]
    assert shown(32, columns, rows, out=io.StringIO)[3:5] == shown(32, columns, rows)[3:5]
    rows[0][1] = 40 * "word "
    assert max(map(len, shown(80, columns, rows))) <= 80
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    show.print_table("Title", columns, rows)
    assert 40 * "word " in sys.stdout.getvalue()  # a pipe gets each row in a line


def test_long_names_stay_whole(reslab: Command, finished: Run) -> None:
    folder = Path("/".join(["a-folder-with-a-long-name"] * 8))
    folder.mkdir(parents=True)
    Image.new("L", (8, 8)).save(folder / "a.png")
    assert f"\n{folder}/a.png " in reslab("predict", "small", folder / "a.png").out


def test_every_answer_is_written_with_the_probability_of_each_class(reslab: Command, finished: Run) -> None:
    assert reslab("evaluate", "small", "--splits", "test", "--csv", "all.csv").out.endswith(
        "Next: reslab report small\n"
    )
    with Path("all.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    logits, labels = finished.read_predictions("test")
    assert [row["file"] for row in rows[:2]] == ["test image 0", "test image 1"]
    assert [row["label"] for row in rows] == [finished.evaluation.classes[label] for label in labels]
    found = np.array([[float(row[f"probability of {name}"]) for name in "147"] for row in rows])
    np.testing.assert_allclose(found, softmax(logits), rtol=1e-6)
    assert [row["prediction"] for row in rows] == ["147"[place] for place in found.argmax(axis=1)]
    assert {(row["familiarity"], row["answered"]) for row in rows} == {("", "")}  # too few images were held out
    write_exhibit(finished.path, "test", Familiarities(np.linspace(0, 1, len(rows), dtype=np.float32)))
    told = answers_csv(finished, "test").decode("utf-8-sig").splitlines()
    assert told[1].split(",")[3:5] == ["0.0", "no"]
    assert told[-1].split(",")[3:5] == ["1.0", "yes"]
    said = reslab("evaluate", "small", "--splits", "train", "--csv", "all.csv")
    assert (said.code, said.err.startswith("reslab: --csv writes the answers to the test split")) == (2, True)


def test_the_tables_hold_the_figures(reslab: Command, finished: Run) -> None:
    shown = reslab("recipes").out
    assert "92.68 %" in shown
    assert "91.25 %" in shown
    shutil.copytree("small", "twin")
    shown = reslab("compare", "small", "twin", "--out", "both").out
    accuracy = finished.evaluation.splits["test"].accuracy
    assert shown.count(f"{100 * accuracy.value:.2f} % ({100 * accuracy.low:.2f}–{100 * accuracy.high:.2f})") == 2
    told = " ".join(shown.split())
    assert "small against twin: both are right on the same images; accuracy" in told
    assert "; accuracy differs by 0.00 points (" in told.replace("\u00a0", " ")


def test_names_are_printed_as_they_are(reslab: Command) -> None:
    """Rich would read `:cat:` as the picture of a cat, and `[red]` as a colour."""
    for name in (":dog:", "[red]"):
        Path("cat", name).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(np.full((4, 4), number, np.uint8)).save(f"cat/{name}/{number}.png")
    shown = reslab("data", "show", "folder:cat", "--image-size", "4").out
    assert shown.startswith("folder:cat: images of 3x4x4")
    assert "\n:dog: " in shown
    assert "\n[red] " in shown


def test_the_pictures_own_sizes_are_shown_and_as_what_they_are_read(reslab: Command) -> None:
    for name in ("cat", "dog"):
        for number, size in enumerate([(64, 48)] * 7 + [(200, 100)]):
            path = Path("pets", name, f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size, (9 * number, 0, 0)).save(path)
    shown = reslab("data", "show", "folder:pets").out
    assert shown.startswith("folder:pets: pictures of 64x48 to 200x100 pixels, read as 3x32x32 (--image-size)\n")
    assert read_json(reslab("data", "show", "folder:pets", "--json"))["sizes"] == [[64, 48], [200, 100]]
    assert reslab("data", "show", "digits").out.startswith("digits: pictures of 8x8 pixels, read as 1x32x32 ")
    assert reslab("data", "show", "digits", "--image-size", "8").out.startswith("digits: images of 1x8x8\n")


def test_what_a_quick_check_finds_is_in_the_json_too(reslab: Command) -> None:
    for name in ("cat", "dog"):
        Path("pets", name).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(np.full((4, 4), number, np.uint8)).save(f"pets/{name}/{number}.png")
    found = read_json(reslab("data", "show", "folder:pets", "--image-size", "4", "--json"))
    assert found["findings"]["used"] == {split: sum(counts) for split, counts in found["counts"].items()}
    assert read_json(reslab("data", "show", "digits", "--json"))["findings"] is None


def test_a_terminal_without_unicode_is_no_obstacle(
    reslab: Command, finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", plain)
    assert reslab("evaluate", "small").code == 0
    plain.flush()
    assert b"macro F1" in plain.buffer.getvalue()
    assert b"\\u2013" in plain.buffer.getvalue()


def test_json_is_json_whatever_a_file_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", plain)
    names = ["é", "犬", "\udcff.png"]
    show.print_json(names)
    plain.flush()
    assert json.loads(plain.buffer.getvalue()) == names


def test_evaluate_warns_of_a_network_that_falls_short_of_its_log(reslab: Command, finished: Run) -> None:
    sound = reslab("evaluate", finished.path, "--json")
    assert (sound.code, sound.err) == (0, "")
    tensors, weights = read_weights(finished.path)
    finished.write_weights(pack_weights(tensors | {"head.weight": 0 * tensors["head.weight"]}, weights))
    outcome = reslab("evaluate", finished.path, "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["splits"]["train"]["accuracy"]["value"] < 0.5
    assert re.match(r"Training logged an accuracy of \S+\s% .* finished network has \S+\s% on its", outcome.err)


@pytest.mark.parametrize(
    ("origin", "is_advised"), [({}, True), ({"imported": Imported(file="it.pt", sha256="0" * 64, map="order")}, False)]
)
def test_calibrate_is_advised_where_it_can_be_done(
    reslab: Command, finished: Run, origin: dict[str, Any], is_advised: bool
) -> None:
    finished.write_recipe(finished.recipe.model_copy(update={"validation": 0} | origin))
    outcome = reslab("evaluate", "small", "--splits", "test")
    assert outcome.code == 0
    assert ("see reslab calibrate small" in outcome.out) == is_advised

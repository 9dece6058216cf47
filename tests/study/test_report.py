"""The report of a study, held against the files of its runs."""

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reslab.errors import UserError
from reslab.recipe.recipe import EarlyStopping, Published, derive
from reslab.records import Environment, Estimate, Segment
from reslab.runs import Predictions, Run
from reslab.study import Study, verdict
from reslab.study.charts import draw
from reslab.study.measured_images import find_measured_images, find_obstacle
from reslab.study.plan import find_missing, make_jobs
from reslab.study.report import StudyReport, write_study_report
from reslab.study.results import average_seconds, judge_row, read_results
from reslab.study.spec import pick_row
from reslab.words import NBSP

NUMBER = r"\d+\.\d\d"


@pytest.fixture
def written(study: Study, ran: Path, tmp_path: Path) -> StudyReport:
    return write_study_report(study, runs=ran, out=tmp_path / "report")


def read_csv(written: StudyReport) -> dict[tuple[str, str], dict[str, str]]:
    with written.csv.open(newline="", encoding="utf-8-sig") as file:
        return {(line["row"], line["metric"]): line for line in csv.DictReader(file)}


def error(out: Path, name: str, split: str = "test") -> float:
    return 1 - Run.open(out / name).evaluation.splits[split].accuracy.value


def scale_down(out: Path) -> None:
    """Make runs pass for those of half the epochs."""
    for path in (*out.glob("*/recipe.json"), out / "study.json"):
        content = json.loads(path.read_text())
        content |= {"epochs_scale": 0.5} if path.name == "study.json" else {"epochs": 2}
        path.write_text(json.dumps(content))


def with_other_test_images(environment: Environment) -> Environment:
    data = environment.data
    moved = tuple(each.model_copy(update={"fingerprint": "0" * 64}) if each.split == "test" else each for each in data)
    return environment.model_copy(update={"data": moved})


def test_the_table_has_the_figures_of_the_runs(ran: Path, written: StudyReport) -> None:
    lines = read_csv(written)
    assert list(lines) == [("relu", "error"), ("elu", "error"), ("taught", "macro_f1"), ("taught", "error")]
    for row in ("relu", "elu"):
        line, values = lines[row, "error"], [error(ran, f"{row}-{seed}") for seed in (0, 1)]
        mean, half = sum(values) / 2, 12.7062 * abs(values[0] - values[1]) / 2  # sd / sqrt(2) is half the distance
        assert float(line["mean"]) == pytest.approx(mean, abs=1e-6)
        assert float(line["low"]) == pytest.approx(max(mean - half, 0), abs=1e-5)
        assert float(line["high"]) == pytest.approx(min(mean + half, 1), abs=1e-5)
        trained = [error(ran, f"{row}-{seed}", "train") for seed in (0, 1)]
        assert float(line["train_mean"]) == pytest.approx(sum(trained) / 2, abs=1e-6)
        assert line["values"] == "; ".join(f"{seed}={round(value, 6)}" for seed, value in enumerate(values))
        assert line["seeds"] == "2"
        assert (line["data"], line["test_images"]) == ("digits:1,4,7@40", "108")
    macro_f1 = [Run.open(ran / f"taught-{seed}").evaluation.splits["test"].macro_f1.value for seed in (0, 1)]
    assert float(lines["taught", "macro_f1"]["mean"]) == pytest.approx(sum(macro_f1) / 2, abs=1e-6)
    assert lines["elu", "error"]["verdict"] == "nothing published"
    assert lines["elu", "error"]["published_low"] == ""
    assert lines["relu", "error"]["source"] == "the tests"


def test_an_interval_that_ends_at_0_is_printed_by_its_ends(study: Study, copied: Path) -> None:
    for seed, value in ((0, 0.99), (1, 0.97)):
        run = Run.open(copied / f"relu-{seed}")
        test = run.evaluation.splits["test"]
        better = test.model_copy(update={"accuracy": Estimate(value=value, low=value - 0.01, high=1.0)})
        splits = {**run.evaluation.splits, "test": better}
        run.write_evaluation(run.evaluation.model_copy(update={"splits": splits}))
    written = write_study_report(study, runs=copied)
    line = read_csv(written)["relu", "error"]
    assert float(line["low"]) == 0
    assert float(line["high"]) == pytest.approx(0.02 + 12.7062 * 0.01, abs=1e-5)
    assert "| error | 10.00 | 2.00 (0.00–14.71) |" in written.markdown.read_text(encoding="utf-8")


def test_contrasts_are_among_the_numbers(study: Study, ran: Path, written: StudyReport) -> None:
    assert written.contrasts_csv is not None
    with written.contrasts_csv.open(newline="", encoding="utf-8-sig") as file:
        (line,) = csv.DictReader(file)
    values = {row: [error(ran, f"{row}-{seed}") for seed in (0, 1)] for row in ("relu", "elu")}
    assert (line["first"], line["second"], line["first_seeds"], line["metric"]) == ("elu", "relu", "2", "error")
    difference = sum(values["elu"]) / 2 - sum(values["relu"]) / 2
    assert float(line["difference"]) == pytest.approx(difference, abs=1e-6)
    assert float(line["low"]) <= difference <= float(line["high"])
    assert line["train_difference"]
    assert line["better"] == line["not_comparable"] == ""
    (numbers,) = written.differences
    assert numbers["difference"] == float(line["difference"])
    assert numbers["better"] is None
    assert written.figures[0]["values"] == {"0": round(values["relu"][0], 6), "1": round(values["relu"][1], 6)}


def test_rows_with_other_test_images_or_classes_are_not_compared(
    make_study: Callable[..., Study], study: Study, copied: Path
) -> None:
    """The lesson adds a class. Then one row was tested on other images; then on the same, read at another size."""
    contrasts = ({"first": "taught", "second": "relu"}, {"first": "elu", "second": "relu"})
    asked = make_study(contrasts=contrasts)
    written = write_study_report(asked, runs=copied)
    page, markdown = written.page.read_text(encoding="utf-8"), written.markdown.read_text(encoding="utf-8")
    assert "| taught minus relu | – | – | not compared: their classes differ |" in markdown
    assert "Rows differ in their data" in page
    assert "| relu | digits:1,4,7@40 (108) | error | " in markdown
    assert re.search(r"\| taught \| digits:1,4,7@40\+digits:0@20 \(\d+\) \| ", markdown)
    assert [each["not_comparable"] for each in written.differences] == ["their classes differ", None]

    run = Run.open(copied / "elu-0")
    run.write_environment(with_other_test_images(run.environment))
    relu, elu = (find_measured_images(Run.open(copied / name)) for name in ("relu-0", "elu-0"))
    assert find_obstacle(relu, replace(elu, expression="digits:1,4,7@41")) == "their test images differ"
    assert find_obstacle(relu, replace(elu, num_images=90)) == "they have 108 and 90 test images"
    assert find_obstacle(relu, replace(elu, reading=(16, *elu.reading[1:]))) is None


def test_a_contrast_waits_for_its_rows(study: Study, copied: Path) -> None:
    for seed in (0, 1):
        shutil.rmtree(copied / f"elu-{seed}")
    written = write_study_report(study, runs=copied)
    markdown = written.markdown.read_text(encoding="utf-8")
    assert "| elu minus relu | – | – | not compared: no run yet of elu |" in markdown
    assert [each["not_comparable"] for each in written.differences] == ["no run yet of elu"]


@pytest.mark.parametrize(("changed", "obstacle"), [(None, None), ("digests", True), ("labels", True)])
def test_pictures_of_own_files_are_compared_whatever_the_size_at_which_they_were_read(
    study: Study, copied: Path, changed: str | None, obstacle: bool | None
) -> None:
    """Also in another order of the files."""
    digests = np.arange(1, 109, dtype=np.uint64)
    for name, order in (("relu-0", slice(None)), ("elu-0", slice(None, None, -1))):
        run = Run.open(copied / name)
        logits, labels = run.read_predictions("test")
        run.write_digests("test", digests[order] + np.uint64(name == "elu-0" and changed == "digests"))
        labels = labels[order] if name == "relu-0" or changed != "labels" else 2 - labels[order]
        run.write_predictions("test", Predictions(logits, labels))
    Run.open(copied / "elu-0").write_environment(with_other_test_images(Run.open(copied / "elu-0").environment))
    relu, elu = (find_measured_images(Run.open(copied / name)) for name in ("relu-0", "elu-0"))
    assert (find_obstacle(relu, elu) == "their test images or labels differ") == bool(obstacle)


def test_page_and_markdown_say_the_same(written: StudyReport) -> None:
    page, markdown = written.page.read_text(encoding="utf-8"), written.markdown.read_text(encoding="utf-8")
    for row in written.verdicts.rows:
        words = [f"{cell.text} {cell.aside}".strip().replace(NBSP, " ") for cell in row]
        assert f"| {' | '.join(words)} |" in markdown
        for cell in row:
            assert cell.text in page
    assert re.search(rf"\| relu \| .+ \| error \| 10\.00 \| {NUMBER} (± {NUMBER}|\({NUMBER}–{NUMBER}\)) \| ", markdown)
    assert re.search(rf"\| elu minus relu \| [−+]?{NUMBER} ± {NUMBER} \|", markdown)
    assert "6 finished runs of 3 rows." in page
    assert "Scaled down" not in page
    for name in ("curves", "gradients"):
        assert f"({name}.png)" in markdown
        assert (written.page.parent / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_the_page_opens_offline(written: StudyReport) -> None:
    page = written.page.read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"', page) == []
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert page.count("<img") == 2
    assert len(re.findall(r'alt="[^"]{20,}"', page)) == 2


def test_a_verdict_follows_the_figures(study: Study, ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (error(ran, f"relu-{seed}") for seed in (0, 1))
    test = read_results(study, out=ran).lines[0].test
    assert test is not None
    mean, half = (first + second) / 2, max(12.7062 * abs(first - second) / 2, test.error)
    # The error of a network that is often right has about this deviation over draws of as many images.
    images = Run.open(ran / "relu-0").evaluation.splits["test"].num_images
    assert test.error == pytest.approx((mean * (1 - mean) / images) ** 0.5, rel=0.4)
    assert read_results(study, out=ran).lines[0].verdict.further_seeds != 0
    monkeypatch.setattr(verdict, "LEAST_SEEDS", 2)
    for shift, word in ((0, "reproduced"), (-4, "worse"), (4, "better"), (-0.9, "not decided")):
        value = mean + shift * half
        figure = Published.model_construct(low=value, high=value, source="the tests")
        row = study.rows[0].model_copy(update={"published": {"error": figure}})
        judged = study.model_copy(update={"rows": (row, *study.rows[1:]), "tolerance": 1.5 * half})
        assert read_results(judged, out=ran).lines[0].verdict.word == word
    figure = Published.model_construct(low=mean, high=mean, source="the tests")
    row = study.rows[0].model_copy(update={"published": {"error": figure}})
    strict = study.model_copy(update={"rows": (row, *study.rows[1:]), "tolerance": 1e-6})
    found = read_results(strict, out=ran).lines[0].verdict
    assert found.word == "not decided"
    assert found.further_seeds is None or found.further_seeds > 0


def test_one_seed_claims_no_interval(study: Study, copied: Path) -> None:
    for path in copied.glob("*-1"):
        shutil.rmtree(path)
    written = write_study_report(study, runs=copied)
    assert written.page == copied / "report.html"
    for line in read_csv(written).values():
        assert line["mean"]
        assert line["low"] == line["high"] == line["train_low"] == ""
        assert line["verdict"] in ("not decided", "nothing published")
    table = written.markdown.read_text(encoding="utf-8").partition("\n|")[2].partition("\n\n![")[0]
    assert "not decided: one seed has no interval" in table
    assert "±" not in table


def test_scaled_runs_claim_no_verdict(study: Study, copied: Path) -> None:
    scale_down(copied)
    written = write_study_report(study.model_copy(update={"tolerance": 1.0}), runs=copied)
    words = {key: line["verdict"] for key, line in read_csv(written).items()}
    assert words["relu", "error"] == words["taught", "error"] == "scaled"
    assert "trained for 0.5 of its epochs" in written.page.read_text(encoding="utf-8")
    for line in written.markdown.read_text(encoding="utf-8").splitlines():
        assert not re.search(r"\| (reproduced|better|worse)", line)
    assert all(line["epochs_scale"] == "0.5" for line in read_csv(written).values())


def test_the_plot_and_the_table_have_the_same_intervals(
    study: Study, ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where two seeds agree: then the number of images sets the width."""
    drawn: list[Any] = []
    monkeypatch.setattr(
        Axes, "errorbar", lambda self, x, y, *, yerr, **looks: drawn.append((y - yerr[0][0], y + yerr[1][0]))
    )
    results = read_results(study, out=ran)
    runs = {label: runs[:1] * 2 for label, runs in results.runs.items()}
    draw(replace(results, runs=runs))
    for ends, (label, found) in zip(drawn, runs.items(), strict=True):
        line = judge_row(study, pick_row(study, label), "error", found, scaled=False)
        assert line.test is not None
        assert line.test.interval is not None
        assert ends == pytest.approx([100 * each for each in line.test.interval])


def test_the_legend_of_many_rows_fits_into_its_plot_and_a_plot_alone_into_its_page(
    study: Study, ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []

    def save(self: Figure, buffer: io.BytesIO, **options: Any) -> None:
        drawn.append(self)
        write(self, buffer, **options)

    write = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", save)
    results = read_results(study, out=ran)
    labels = [*results.runs, *(f"another-{number}" for number in range(40))]
    runs = {label: results.runs.get(label, results.runs["relu"]) for label in labels}
    draw(replace(results, runs=runs, gradients={}))
    (figure,) = drawn
    legend = figure.legends[0].get_window_extent()
    assert legend.y0 >= 0
    assert legend.y1 <= figure.bbox.height
    # Without gradients, nothing stands beside it, and it takes the page's whole width.
    assert "#pictures figure.wide:only-child" in write_study_report(study, runs=ran, out=tmp_path).page.read_text()


def test_whose_weights_are_measured_is_said_of_rows_that_stop_early(study: Study, ran: Path) -> None:
    results = read_results(study, out=ran)
    assert results.kept == "the weights of the last epoch"
    (run,) = results.runs["relu"][:1]
    recipe = derive(run.recipe, name="early", validation=10, early_stopping=EarlyStopping(patience=1))
    early = replace(results, runs={**results.runs, "relu": [replace(run, recipe=recipe)]})
    assert early.kept.endswith("or, with early stopping, of the best on the validation images")


def test_what_is_not_finished_is_counted_and_left_out(study: Study, copied: Path) -> None:
    (copied / "relu-1/evaluation.json").unlink()
    (copied / "elu-0/evaluation.json").unlink()
    (copied / "elu-1").rename(copied / "elu-one")
    shutil.copytree(copied / "relu-0", copied / "relu-00")  # no name that a study gives
    (copied / "relu-7").mkdir()  # no run
    results = read_results(study, out=copied)
    assert [run.seed for run in results.runs["relu"]] == [0]
    assert results.num_unfinished == 2
    assert results.lines[1].verdict.word == "no run yet"
    assert [each.obstacle for each in results.questions] == ["no run yet of elu"]
    page = write_study_report(study, runs=copied).page.read_text(encoding="utf-8")
    assert "3 finished runs of 3 rows; 2 runs begun but not finished." in page


def test_a_run_without_a_log_has_neither_a_curve_nor_a_time(study: Study, copied: Path) -> None:
    (copied / "relu-1/log.jsonl").write_text("")
    (copied / "elu-0/log.jsonl").unlink()
    (copied / "elu-1/log.jsonl").unlink()
    results = read_results(study, out=copied)
    assert list(average_seconds(results.runs["relu"]).values()) == [results.runs["relu"][0].seconds]
    assert average_seconds(results.runs["elu"]) == {}
    curves, _ = draw(results)
    assert "relu" in curves.alt
    assert "elu " not in curves.alt.replace("relu ", "")
    assert results.num_runs == 6
    for path in copied.glob("*/log.jsonl"):
        path.unlink()
    assert [each.name for each in draw(read_results(study, out=copied))] == ["gradients"]
    (copied / "gradients.json").unlink()
    page = write_study_report(study, runs=copied).page.read_text(encoding="utf-8")
    assert '<section id="pictures">' not in page


def test_neither_a_report_nor_the_next_run_needs_weights(study: Study, copied: Path) -> None:
    """A study goes on where only the measurements of its finished runs were copied; a lesson alone needs its base."""
    before = write_study_report(study, runs=copied).csv.read_text(encoding="utf-8")
    for weights in copied.glob("*/model.safetensors"):
        weights.unlink()
    assert write_study_report(study, runs=copied).csv.read_text(encoding="utf-8") == before
    jobs = make_jobs(study, out=copied, seeds=2)
    assert find_missing(jobs) == []
    (copied / "taught-1/evaluation.json").unlink()
    assert [job.out.name for job in find_missing(jobs)] == ["relu-1", "taught-1"]


def test_the_time_of_runs_on_different_machines_is_not_averaged(study: Study, copied: Path) -> None:
    run = Run(copied / "relu-1")
    run.write_environment(run.environment.model_copy(update={"processor": "another one"}))
    results = read_results(study, out=copied)
    assert {len(average_seconds(runs)) for runs in results.runs.values()} == {1, 2}
    assert list(average_seconds(results.runs["relu"]).values()) == [each.seconds for each in results.runs["relu"]]
    line = read_csv(write_study_report(study, runs=copied))["relu", "error"]
    assert re.fullmatch(r".+, cpu, 1 thread.*=\d+\.\d; another one, cpu, 1 thread.*=\d+\.\d", line["seconds"])


def test_a_run_that_moved_names_every_machine(study: Study, copied: Path) -> None:
    environment = Run(copied / "relu-1").environment
    setup = {name: value for name, value in environment.model_dump().items() if name in Segment.model_fields}
    moved = Segment(**setup | {"processor": "another one", "threads": 7, "updates": 3})
    Run(copied / "relu-1").write_environment(environment.model_copy(update={"segments": (moved,)}))
    (run,) = (each for each in read_results(study, out=copied).runs["relu"] if each.environment.segments)
    assert run.machine.startswith(f"{environment.processor} and another one, cpu, 1 thread")
    assert ", then cpu, 7 threads" in run.machine


def test_runs_on_other_test_images_have_no_table(study: Study, copied: Path) -> None:
    run = Run.open(copied / "elu-1")
    run.write_environment(with_other_test_images(run.environment))
    complaint = r"relu-0 and \S+elu-1 were tested on different images of digits\S+ \(fingerprints \w{12}… and 0{12}…\)"
    with pytest.raises(UserError, match=complaint):
        write_study_report(study, runs=copied)


def test_a_row_of_words_cannot_break_the_page(make_study: Callable[..., Study], copied: Path) -> None:
    title = 'A <b>bold</b> "study" & more'
    page = write_study_report(make_study(title=title), runs=copied).page.read_text(encoding="utf-8")
    assert "<b>bold</b>" not in page
    assert "A &lt;b&gt;bold&lt;/b&gt;" in page


def test_a_row_of_words_is_no_formula_in_a_spreadsheet(
    study: Study, make_study: Callable[..., Study], copied: Path
) -> None:
    row = next(row for row in study.rows if row.published)
    published = {name: each.model_copy(update={"source": "=HYPERLINK(0)"}) for name, each in row.published.items()}
    rows = tuple(each.model_copy(update={"published": published}) if each is row else each for each in study.rows)
    table = write_study_report(make_study(rows=rows), runs=copied).csv.read_text(encoding="utf-8")
    assert "'=HYPERLINK(0)" in table
    assert ",=HYPERLINK(0)" not in table


def test_what_cannot_be_reported_is_one_sentence(
    study: Study, make_study: Callable[..., Study], copied: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="holds no study: reslab study run begins one"):
        write_study_report(study, runs=tmp_path / "absent")
    with pytest.raises(UserError, match="holds runs of the study tiny, not of other"):
        write_study_report(make_study(name="other"), runs=copied)
    with pytest.raises(UserError, match="relu-1 is the folder of a run, not of a study: choose another --out"):
        write_study_report(study, runs=copied, out=copied / "relu-1")
    shutil.rmtree(copied / "taught-0")
    for path in copied.glob("*/evaluation.json"):
        path.unlink()
    with pytest.raises(UserError, match="has no finished run yet: go on with reslab study run STUDY --out"):
        write_study_report(study, runs=copied)
    (copied / "study.json").write_text("{")
    with pytest.raises(UserError, match=r"study\.json is damaged"):
        write_study_report(study, runs=copied)

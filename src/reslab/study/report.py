"""A study's report: one HTML page that opens offline, the same in Markdown, and the numbers as CSV."""

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import jinja2

from reslab.measure.metrics import CONFIDENCE
from reslab.report.facts import device_words
from reslab.report.pictures import Picture
from reslab.report.tables import Cell, Table, markdown_table
from reslab.runs import make_folder, write_bytes
from reslab.study.charts import PICTURES, draw
from reslab.study.folder import check_is_no_run
from reslab.study.measured_images import MeasuredImages
from reslab.study.numbers import DIFFERENCES, FIGURES, Numbers, differences_of, figures_of, write_csv
from reslab.study.results import ContrastResult, Line, Results, average_seconds, read_results
from reslab.study.spec import Metric, Study
from reslab.study.verdict import MOST_SEEDS, Difference, Sample
from reslab.words import NBSP, between, counted, duration, markdown, percent, points, spread

METRICS: dict[Metric, str] = {"error": "error", "accuracy": "accuracy", "macro_f1": "macro F1"}


class StudyReport(NamedTuple):
    """The files of a report, its two tables, and their numbers: a dictionary for each row, as in the CSV files."""

    page: Path
    markdown: Path
    csv: Path
    contrasts_csv: Path | None  # if the study has contrasts
    verdicts: Table
    contrasts: Table
    figures: list[Numbers]
    differences: list[Numbers]


def write_study_report(study: Study, *, runs: Path, out: Path | None = None) -> StudyReport:
    """Write the page, `report.md`, `report.csv`, `contrasts.csv` and the plots into `out`, by default next to the runs.

    Raises: UserError if `runs` is not the study's folder, no run is finished or `out` is a run's folder; Failure if the
    disk refuses.
    """
    results = read_results(study, out=runs)
    folder = out or runs
    check_is_no_run(folder)
    pictures = draw(results)
    make_folder(folder)
    for name in ("contrasts.csv", *(f"{name}.png" for name in PICTURES)):  # of an earlier report
        (folder / name).unlink(missing_ok=True)
    for picture in pictures:
        write_bytes(folder / f"{picture.name}.png", picture.png)
    written = StudyReport(
        folder / "report.html",
        folder / "report.md",
        folder / "report.csv",
        folder / "contrasts.csv" if study.contrasts else None,
        _verdicts(results),
        _questions(results),
        [figures_of(results, line) for line in results.lines],
        [differences_of(results, question) for question in results.questions],
    )
    write_bytes(written.page, _html(results, pictures).encode())
    write_bytes(written.markdown, _markdown(results, pictures).encode())
    write_bytes(written.csv, write_csv(FIGURES, written.figures))
    if written.contrasts_csv is not None:
        write_bytes(written.contrasts_csv, write_csv(DIFFERENCES, written.differences))
    return written


# ---- words


def _headline(results: Results) -> Iterator[str]:
    """Sum up the runs, what a verdict means, and what may not be concluded."""
    unfinished = f"; {counted(results.num_unfinished, 'run')} begun but not finished" if results.num_unfinished else ""
    yield f"{counted(results.num_runs, 'finished run')} of {counted(len(results.study.rows), 'row')}{unfinished}."
    if results.scale < 1:
        yield (
            f"Scaled down: every network was trained for {results.scale:g} of its epochs, so nothing here is a verdict "
            "on a published result. Rows may be compared with each other, at this length."
        )
    yield (
        f"Ours is the mean over seeds, with {results.kept}, ± a {percent(CONFIDENCE, decimals=0)} "
        "interval of that mean (Student's), at least the standard error due to the number of images; in parentheses "
        "if it ends at 0 or 100 %. One seed has no interval, fewer than three no verdict. Only the evaluation opened "
        "the test split."
    )
    if results.data_differ:
        yield (
            "Rows differ in their data, which the table names: a published result has to be one on the data of its "
            "row, and rows tested on different images or classes are not compared with each other."
        )
    yield (
        f"Reproduced: the whole interval is within {100 * results.study.tolerance:g} points of the published "
        "result; better or worse: all of it is outside; otherwise the seeds do not decide. Published results are taken "
        "as they are, without intervals of their own."
    )


def verdict_words(line: Line) -> str:
    """Describe a verdict, and what would decide it."""
    verdict = line.verdict
    if verdict.word != "not decided" or line.test is None:
        return verdict.word
    return f"not decided: {_seeds_needed(len(line.test.values), verdict.further_seeds)}"


def _seeds_needed(num: int, further: int | None) -> str:
    if num == 1:
        return "one seed has no interval"
    if further is None:
        return f"more than {MOST_SEEDS:,} seeds needed, or more test images"
    return f"about {counted(further, 'more seed')}"


def sample_cell(sample: Sample | None) -> Cell:
    """Write a mean in percent, without the sign, and its interval where it has one."""
    if sample is None:
        return Cell("–")
    ends = sample.interval
    return Cell(f"{100 * sample.mean:.2f}", "" if ends is None else spread(sample.mean, *ends))


def _difference_cell(difference: Difference | None) -> Cell:
    if difference is None:
        return Cell("–")
    ends = difference.interval
    return Cell(points(difference.value), "" if ends is None else spread(difference.value, *ends, unit="points"))


def question_words(question: ContrastResult, *, metric: Metric) -> str:
    """Say whether the test metrics of two rows differ, or why they cannot be compared."""
    difference = question.test
    if difference is None:
        return f"not compared: {question.obstacle}"
    better = question.better_of(metric)
    if better is not None:
        return f"{better} is better"
    needed = _seeds_needed(difference.num_seeds, difference.further_seeds)
    return f"not decided: {needed}{' of each' if difference.further_seeds else ''}"


# ---- tables


def _verdicts(results: Results) -> Table:
    rows = []
    for line in results.lines:
        runs = results.runs[line.row.label]
        cells = (
            Cell(line.row.label),
            *([_data_cell(results.tested_on.get(line.row.label))] if results.data_differ else []),
            Cell(METRICS[line.metric]),
            Cell(between(line.published.low, line.published.high).replace(f"{NBSP}%", "") if line.published else "–"),
            sample_cell(line.test),
            sample_cell(line.train),
            Cell(str(len(runs))),
            Cell("; ".join(map(duration, average_seconds(runs).values())) or "–"),
            Cell(verdict_words(line)),
        )
        rows.append(cells)
    data = ("Data (test images)",) if results.data_differ else ()
    figures = ("Published, %", "Ours, test, %", "Ours, training, %", "Seeds", "Time per run", "Verdict")
    return Table(("Row", *data, "Metric", *figures), tuple(rows), num_text_columns=2 + len(data))


def _data_cell(tested_on: MeasuredImages | None) -> Cell:
    return Cell("–") if tested_on is None else Cell(tested_on.expression, f"({tested_on.num_images:,})")


def _questions(results: Results) -> Table:
    metric = results.study.metric
    rows = tuple(
        (
            Cell(f"{each.contrast.first} minus {each.contrast.second}"),
            _difference_cell(each.test),
            _difference_cell(each.train),
            Cell(question_words(each, metric=metric)),
        )
        for each in results.questions
    )
    name = METRICS[metric]
    return Table(("Rows", f"Test {name}, points", f"Training {name}, points", "Which is better"), rows)


def _sources(results: Results) -> list[tuple[str, str]]:
    """List each source with the rows that it belongs to."""
    found: dict[str, list[str]] = {}
    for line in results.lines:
        if line.published:
            found.setdefault(line.published.source, []).append(line.row.label)
    return [(source, ", ".join(dict.fromkeys(labels))) for source, labels in found.items()]


def _machines(results: Results) -> list[str]:
    """List the kinds of machines that made the runs."""
    environments = [run.environment for runs in results.runs.values() for run in runs]
    words = {
        f"{device_words(each)}; {each.processor}; PyTorch {each.torch}; reslab {each.reslab}, commit "
        f"{each.commit or 'not known'}"
        for each in environments
    }
    return sorted(words)


# ---- the three formats


def _html(results: Results, pictures: list[Picture]) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = resources.files("reslab.study").joinpath("page.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        study=results.study,
        style=resources.files("reslab.report").joinpath("page.css").read_text(encoding="utf-8"),
        headline=list(_headline(results)),
        verdicts=_verdicts(results),
        questions=_questions(results),
        sources=_sources(results),
        machines=_machines(results),
        pictures=pictures,
    )


def _markdown(results: Results, pictures: list[Picture]) -> str:
    parts = [f"# {markdown(results.study.title)}", *map(markdown, _headline(results))]
    parts.append("\n".join(markdown_table(_verdicts(results))))
    if results.questions:
        parts += ["## Rows against each other", "\n".join(markdown_table(_questions(results)))]
    for picture in pictures:
        parts += [f"![{markdown(picture.alt)}]({picture.name}.png)"]
        parts.append(f"**{markdown(picture.title)}** {markdown(picture.caption)}")
    if sources := _sources(results):
        parts += ["## Sources", "\n".join(f"- {markdown(source)}: {markdown(labels)}" for source, labels in sources)]
    parts += ["## Machines", "\n".join(f"- {markdown(machine)}" for machine in _machines(results))]
    return "\n\n".join(parts) + "\n"

"""The numbers of a study's report, one dictionary for each row of a table, for programs: as JSON and as CSV.

Metrics are fractions. Several values of one cell are a dictionary; CSV writes it as `name=value; name=value`.
"""

from collections.abc import Sequence
from typing import Final

from reslab.runs.files import to_csv
from reslab.study.results import ContrastResult, Line, Results, average_seconds
from reslab.study.verdict import Difference, Sample

Numbers = dict[str, object]

FIGURES: Final = (
    *("study", "epochs_scale", "row", "data", "test_images", "metric", "published_low", "published_high", "source"),
    *("seeds", "mean", "low", "high", "train_mean", "train_low", "train_high", "verdict", "further_seeds", "values"),
    *("seconds",),
)
DIFFERENCES: Final = (
    *("study", "epochs_scale", "first", "second", "metric", "first_seeds", "second_seeds", "difference", "low", "high"),
    *("train_difference", "train_low", "train_high", "better", "further_seeds", "not_comparable"),
)


def figures_of(results: Results, line: Line) -> Numbers:
    """List the numbers of one metric of a row; `values` are those of the test split by seed, `seconds` by machine."""
    runs, tested_on = results.runs[line.row.label], results.tested_on.get(line.row.label)
    found: Numbers = {
        "study": results.study.name,
        "epochs_scale": results.scale,
        "row": line.row.label,
        "data": tested_on and tested_on.expression,
        "test_images": tested_on and tested_on.num_images,
        "metric": line.metric,
        "seeds": len(runs),
        "verdict": line.verdict.word,
        "further_seeds": line.verdict.further_seeds,
    }
    if line.published:
        low, high, source = line.published.low, line.published.high, line.published.source
        found |= {"published_low": low, "published_high": high, "source": source}
    if line.test and line.train:
        found |= _ends("", line.test, "mean") | _ends("train_", line.train, "mean")
        found["values"] = {str(run.seed): round(run.value(line.metric), 6) for run in runs}
        found["seconds"] = {machine: round(mean, 1) for machine, mean in average_seconds(runs).items()}
    return {name: found.get(name) for name in FIGURES}


def differences_of(results: Results, question: ContrastResult) -> Numbers:
    """List the numbers of a contrast: the first row's mean minus the second's, and which is better if it is decided."""
    first, second = question.contrast.first, question.contrast.second
    found: Numbers = {
        "study": results.study.name,
        "epochs_scale": results.scale,
        "first": first,
        "second": second,
        "metric": results.study.metric,
        "first_seeds": len(results.runs[first]),
        "second_seeds": len(results.runs[second]),
        "better": question.better_of(results.study.metric),
        "not_comparable": question.obstacle,
    }
    if question.test and question.train:
        found |= _ends("", question.test, "difference") | _ends("train_", question.train, "difference")
        found["further_seeds"] = question.test.further_seeds
    return {name: found.get(name) for name in DIFFERENCES}


def _ends(prefix: str, found: Sample | Difference, name: str) -> Numbers:
    middle = found.mean if isinstance(found, Sample) else found.value
    low, high = found.interval or (None, None)
    ends = {name: middle, "low": low, "high": high}
    return {f"{prefix}{key}": None if value is None else round(value, 6) for key, value in ends.items()}


def write_csv(columns: Sequence[str], rows: Sequence[Numbers]) -> bytes:
    """Write rows as a spreadsheet reads them; unknown values are empty."""
    return to_csv(columns, ([_cell(row[name]) for name in columns] for row in rows))


def _cell(value: object) -> str | float:
    match value:
        case None:
            return ""
        case int() | float():
            return value
        case dict():
            return "; ".join(f"{name}={each}" for name, each in value.items())
    return str(value)

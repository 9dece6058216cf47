"""Keep the finished runs of the ledger in the repository; docs/ledger.md takes its tables from what is kept.

python tools/ledger.py              copies from runs/ledger to results/ledger
python tools/ledger.py --runs DIR   copies from another folder
"""

import argparse
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from reslab.recipe.recipe import Published
from reslab.runs import Run
from reslab.runs.files import write_npz
from reslab.study import STUDIES
from reslab.study.plan import Job
from reslab.study.report import METRICS, sample_cell, verdict_words
from reslab.study.results import MeasuredRun, average_seconds, find_jobs, judge_row, read_runs
from reslab.study.spec import Metric, Row
from reslab.study.verdict import Sample
from reslab.words import counted

ROOT: Final = Path(__file__).parents[1]
KEPT: Final = ROOT / "results/ledger"
LEDGER: Final = STUDIES["ledger"]
FILES: Final = ("recipe.json", "environment.json", "log.jsonl", "evaluation.json", "prior.json")
STEP: Final = 1 / 8  # between logits that are kept
MOST_BYTES: Final = 200_000


# ---- from runs/ to results/


def keep(job: Job, *, into: Path) -> None:
    """Copy what is worth keeping of a finished run: no weights, and of the predictions those of the test split."""
    folder = into / job.out.name
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (job.out / name).exists():
            shutil.copy(job.out / name, folder)
    found = Run(job.out).read_predictions("test")
    path = folder / "predictions-test.npz"
    write_npz(path, {"logits": compress(found.logits), "labels": found.labels.astype(np.int16)})
    assert path.stat().st_size < MOST_BYTES, f"{path} has {path.stat().st_size:,} bytes"
    check(Run(folder))


def compress(logits: NDArray[np.float32]) -> NDArray[np.float16]:
    """Count logits (N, K) from each image's largest and round them to steps, so that the largest stays alone there."""
    gaps = np.round((logits - logits.max(axis=1, keepdims=True)) / STEP)
    largest = np.arange(logits.shape[1]) == logits.argmax(axis=1)[:, None]
    return (np.where(largest, 0, np.minimum(gaps, -1)) * STEP).astype(np.float16)


def check(run: Run) -> None:
    """Hold kept predictions against the evaluation: they give its confusion matrix of the test split."""
    logits, labels = run.read_predictions("test")
    matrix = np.zeros((logits.shape[1],) * 2, dtype=int)
    np.add.at(matrix, (labels, logits.argmax(axis=1)), 1)
    assert matrix.tolist() == [list(row) for row in run.evaluation.splits["test"].confusion_matrix], run.path


# ---- the page


def published_for(row: Row) -> Iterator[tuple[Metric, Published]]:
    """Give every figure that a table has published for what a row trains, each once, the row's own first."""
    known: set[tuple[Metric, float, float]] = set()
    for other in (row, *(each for study in STUDIES.values() for each in study.rows if each.job == row.job)):
        for metric, figure in other.published.items():
            if (metric, figure.low, figure.high) not in known:
                known.add((metric, figure.low, figure.high))
                yield metric, figure


def percents(*values: float) -> str:
    """Write a figure, or the ends of a range, without the sign."""
    return "–".join(f"{100 * value:.2f}" for value in dict.fromkeys(values))


def write_sample(sample: Sample | None) -> str:
    """Write a mean with its interval, as a study's report does."""
    cell = sample_cell(sample)
    return f"{cell.text} {cell.aside}".strip()


def write_row(row: Row, runs: Sequence[MeasuredRun], sources: list[str]) -> Iterator[str]:
    """Write a line for every figure published for a row, with its source's number."""
    missing = ", ".join(str(seed) for seed in range(LEDGER.seeds) if seed not in {run.seed for run in runs})
    seconds = average_seconds(runs)
    minutes = "; ".join(f"{mean / 60:.0f} ({machine})" for machine, mean in seconds.items()) or "–"
    for metric, figure in published_for(row):
        line = judge_row(LEDGER, row.model_copy(update={"published": {metric: figure}}), metric, runs, scaled=False)
        if figure.source not in sources:
            sources.append(figure.source)
        published = f"{percents(figure.low, figure.high)} [{sources.index(figure.source) + 1}]"
        ours = (write_sample(line.test), write_sample(line.train))
        cells = (f"`{row.label}`", METRICS[metric], published, *ours, verdict_words(line), minutes, missing or "none")
        yield f"| {' | '.join(cells)} |\n"


def write_run(job: Job, run: MeasuredRun) -> str:
    """Write the line of one run."""
    test, train = (percents(run.value("accuracy", split)) for split in ("test", "train"))
    name, commit = job.out.name, (run.environment.commit or "not known")[:10]
    link = f"[`{name}`](../results/ledger/{name})"
    return f"| {link} | {test} | {train} | {run.seconds / 60:.0f} | {run.machine} | {commit} |\n"


def write_progress(kept: Path = KEPT) -> str:
    """Say how much is done."""
    runs = read_kept(kept)[1].values()
    planned = f"{len(LEDGER.rows)} rows, {LEDGER.seeds} seeds each"
    begun, done = sum(map(bool, runs)), sum(map(len, runs))
    if not done:
        return f"No run is done yet ({planned})."
    return (
        f"Done: {done} of {len(LEDGER.rows) * LEDGER.seeds} runs ({planned}), at least one of {counted(begun, 'row')}."
    )


def write_rows(kept: Path = KEPT) -> str:
    """Write the table of all rows, and the sources of their published figures."""
    runs = read_kept(kept)[1]
    sources: list[str] = []
    rows = "".join(line for row in LEDGER.rows for line in write_row(row, runs[row.label], sources))
    listed = "\n".join(f"{number}. {source}" for number, source in enumerate(sources, 1))
    return f"""| row | metric | published, % | ours, test, % | ours, training, % | verdict | minutes | missing seeds |
|---|---|---|---|---|---|---|---|
{rows}
Sources of the published figures:

{listed}"""


def write_runs(kept: Path = KEPT) -> str:
    """Write the table of every run that is kept."""
    jobs, runs = read_kept(kept)
    lines = [write_run(job, run) for label in jobs for job, run in zip(jobs[label], runs[label], strict=True)]
    header = (
        "| run | test accuracy, % | training accuracy, % | minutes | machine | commit |\n|---|---|---|---|---|---|\n"
    )
    return header + "".join(lines).rstrip() if lines else "None yet."


def read_kept(kept: Path) -> tuple[dict[str, list[Job]], dict[str, list[MeasuredRun]]]:
    """Read the runs that are kept, by row."""
    jobs = find_jobs(LEDGER, out=kept) if kept.is_dir() else {row.label: [] for row in LEDGER.rows}
    return jobs, read_runs(jobs)


def main() -> None:
    """Keep what is finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/ledger")
    runs = parser.parse_args().runs
    jobs = find_jobs(LEDGER, out=runs).values() if runs.is_dir() else ()
    done = [job for own in jobs for job in own if job.is_measured]
    for job in done:
        keep(job, into=KEPT)
    print(f"copied {counted(len(done), 'finished run')} from {runs} to {KEPT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

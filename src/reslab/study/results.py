"""The results of a study, read from its run folders: the metrics of every seed by row, and the verdicts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, fmean

from reslab.errors import UserError, in_shell
from reslab.measure.metrics import CONFIDENCE
from reslab.recipe.recipe import Published, Recipe
from reslab.records import Environment, Epoch, Estimate, Figures, SplitName
from reslab.report.facts import device_words
from reslab.runs import Run
from reslab.study.folder import read_begun, read_gradients
from reslab.study.measured_images import MeasuredImages, check_same_images, find_measured_images, find_obstacle
from reslab.study.plan import Job, check_folder, make_job, recipe_of
from reslab.study.spec import LOWER_IS_BETTER, Contrast, Metric, Row, Study, Teaching
from reslab.study.verdict import Difference, RowVerdict, Sample, judge, subtract


@dataclass(frozen=True)
class MeasuredRun:
    """One finished run of a row."""

    seed: int
    path: Path
    recipe: Recipe
    log: list[Epoch]
    environment: Environment
    figures: dict[SplitName, Figures]
    tested_on: MeasuredImages

    @property
    def seconds(self) -> float:
        return sum(epoch.seconds for epoch in self.log)

    @property
    def machine(self) -> str:
        """What it was made on, as far as its training time depends on that."""
        processors = (setup.processor for setup in (self.environment, *self.environment.segments))
        return f"{' and '.join(dict.fromkeys(processors))}, {device_words(self.environment)}"

    def value(self, metric: Metric, split: SplitName = "test") -> float:
        """Return a metric of a split, in [0, 1]."""
        value = self._estimate(metric, split).value
        return 1 - value if metric == "error" else value

    def error(self, metric: Metric, split: SplitName = "test") -> float:
        """Return the standard error of a metric that is due to the number of images."""
        estimate = self._estimate(metric, split)
        return (estimate.high - estimate.low) / 2 / NormalDist().inv_cdf((1 + CONFIDENCE) / 2)

    def _estimate(self, metric: Metric, split: SplitName) -> Estimate:
        figures = self.figures[split]
        return figures.macro_f1 if metric == "macro_f1" else figures.accuracy


@dataclass(frozen=True)
class Line:
    """One metric of one row: published, ours on both splits, and the verdict."""

    row: Row
    metric: Metric
    published: Published | None
    test: Sample | None  # None before the first run
    train: Sample | None
    verdict: RowVerdict


@dataclass(frozen=True)
class ContrastResult:
    """A contrast: the differences of its rows' means on both splits, or why there are none."""

    contrast: Contrast
    test: Difference | None
    train: Difference | None
    obstacle: str | None = None

    def better_of(self, metric: Metric) -> str | None:
        """Return the row whose test metric is better; None if that is not decided."""
        if self.test is None or not self.test.is_decided:
            return None
        first_is_better = (self.test.value < 0) == (metric in LOWER_IS_BETTER)
        return self.contrast.first if first_is_better else self.contrast.second


@dataclass(frozen=True)
class Results:
    """Everything that a study's report shows. Runs are those that are finished and evaluated."""

    study: Study
    scale: float
    runs: dict[str, list[MeasuredRun]]  # by row, the rows in the study's order
    num_unfinished: int
    lines: list[Line]
    questions: list[ContrastResult]
    gradients: dict[str, dict[str, float]]

    @property
    def num_runs(self) -> int:
        return sum(map(len, self.runs.values()))

    @property
    def tested_on(self) -> dict[str, MeasuredImages]:
        """What the rows that have run were tested on."""
        return {label: runs[0].tested_on for label, runs in self.runs.items() if runs}

    @property
    def data_differ(self) -> bool:
        """Whether rows were trained and tested on different data."""
        return len({each.expression for each in self.tested_on.values()}) > 1

    @property
    def kept(self) -> str:
        """Which weights the runs have kept."""
        stops_early = any(run.recipe.early_stopping for runs in self.runs.values() for run in runs)
        best = " or, with early stopping, of the best on the validation images" if stops_early else ""
        return f"the weights of the last epoch{best}"


def read_results(study: Study, *, out: Path) -> Results:
    """Read the runs of a study from its folder.

    Raises: UserError if the folder is not the study's, a run is not the planned one, or none is finished.
    """
    begun = read_begun(out)
    if begun.study != study.name:
        raise UserError(f"{out} holds runs of the study {begun.study}, not of {study.name}")
    jobs = find_jobs(study, out=out, scale=begun.epochs_scale)
    runs = read_runs(jobs)
    num_unfinished = sum(map(len, jobs.values())) - sum(map(len, runs.values()))
    if not any(runs.values()):
        scale = f" --epochs-scale {begun.epochs_scale:g}" if begun.epochs_scale != 1 else ""
        command = f"reslab study run STUDY --out {in_shell(out)}{scale}"
        raise UserError(f"{out} has no finished run yet: go on with {command}")
    check_same_images([run.tested_on for row in runs.values() for run in row])
    lines = [
        judge_row(study, row, metric, runs[row.label], scaled=begun.epochs_scale < 1)
        for row in study.rows
        for metric in row.published or (study.metric,)
    ]
    questions = [_question(study, each, runs) for each in study.contrasts]
    norms = {label: norm for label, norm in read_gradients(out).norms.items() if label in study.gradients}
    return Results(study, begun.epochs_scale, runs, num_unfinished, lines, questions, norms)


def find_jobs(study: Study, *, out: Path, scale: float = 1.0) -> dict[str, list[Job]]:
    """Find the runs of every row that are begun in a folder, whatever their seeds.

    Raises: UserError if one is not the planned one.
    """
    found = {row.label: _find_jobs(row, out=out, scale=scale) for row in study.rows}
    for job in (job for jobs in found.values() for job in jobs):
        check_folder(job)
    return found


def _find_jobs(row: Row, *, out: Path, scale: float) -> list[Job]:
    pattern = re.compile(re.escape(row.label) + r"-(0|[1-9]\d{0,8})")
    places = (found for path in out.iterdir() if (found := pattern.fullmatch(path.name)) and Run.is_at(path))
    seeds = sorted(int(found[1]) for found in places)
    recipe = None if isinstance(row.job, Teaching) else recipe_of(row.job, label=row.label, scale=scale)
    return [make_job(row, seed=seed, out=out, recipe=recipe) for seed in seeds]


def read_runs(jobs: Mapping[str, Sequence[Job]]) -> dict[str, list[MeasuredRun]]:
    """Read the jobs that are measured, by row."""
    return {
        label: [_read_run(job.seed, Run.open(job.out)) for job in own if job.is_measured] for label, own in jobs.items()
    }


def average_seconds(runs: Sequence[MeasuredRun]) -> dict[str, float]:
    """Average the logged time of runs by kind of machine, since a mean over several kinds would say nothing."""
    logged = [run for run in runs if run.log]
    machines = dict.fromkeys(run.machine for run in logged)
    return {each: fmean(run.seconds for run in logged if run.machine == each) for each in machines}


def _read_run(seed: int, run: Run) -> MeasuredRun:
    figures: dict[SplitName, Figures] = dict(run.evaluation.splits)
    return MeasuredRun(seed, run.path, run.recipe, run.log, run.environment, figures, find_measured_images(run))


def judge_row(study: Study, row: Row, metric: Metric, runs: Sequence[MeasuredRun], *, scaled: bool) -> Line:
    """Compare the runs of a row with what was published for it."""
    published = row.published.get(metric)
    if not runs:
        return Line(row, metric, published, None, None, RowVerdict("no run yet"))
    test, train = sample_of(runs, metric, "test"), sample_of(runs, metric, "train")
    if published is None:
        verdict = RowVerdict("nothing published")
    elif scaled:
        verdict = RowVerdict("scaled")
    else:
        lower = metric in LOWER_IS_BETTER
        verdict = judge(test, published, tolerance=study.tolerance, lower_is_better=lower)
    return Line(row, metric, published, test, train, verdict)


def sample_of(runs: Sequence[MeasuredRun], metric: Metric, split: SplitName) -> Sample:
    """Collect a metric of a row's seeds, with the standard error due to the number of images."""
    return Sample(tuple(run.value(metric, split) for run in runs), fmean(run.error(metric, split) for run in runs))


def _question(study: Study, contrast: Contrast, runs: dict[str, list[MeasuredRun]]) -> ContrastResult:
    def difference(split: SplitName) -> Difference:
        first, second = (sample_of(runs[label], study.metric, split) for label in (contrast.first, contrast.second))
        return subtract(first, second)

    missing = [label for label in (contrast.first, contrast.second) if not runs[label]]
    if missing:
        return ContrastResult(contrast, None, None, f"no run yet of {' and '.join(missing)}")
    obstacle = find_obstacle(runs[contrast.first][0].tested_on, runs[contrast.second][0].tested_on)
    if obstacle is not None:
        return ContrastResult(contrast, None, None, obstacle)
    return ContrastResult(contrast, difference("test"), difference("train"))

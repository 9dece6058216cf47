"""Which runs a study consists of, and which of them exist already."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypedDict, assert_never

from pydantic import TypeAdapter

from reslab.data.expression import split_sources
from reslab.errors import Failure, UserError
from reslab.recipe.recipe import NAMES, LinearHead, Method, Recipe, derive
from reslab.recipe.settings import with_settings
from reslab.recipe.shipped import find_recipe
from reslab.runs import Run
from reslab.study.spec import Row, Study, Teaching, Training, pick_row

Say = Callable[[str], None]
Saved = Callable[[Path], None]
# What ends a run and not its study; PyTorch raises a RuntimeError if a GPU's memory is full.
FAILURES: Final = (UserError, Failure, OSError, RuntimeError, MemoryError)
REFUSED: Final = 2  # the exit status of a worker whose run was refused


class Reading(TypedDict):
    """Where a run's data is read."""

    device: str
    data_dir: Path | None
    allow_remote: bool


@dataclass(frozen=True)
class Machine:
    """Where runs are done, with which data, and what is shown."""

    device: str = "auto"
    data_dir: Path | None = None
    allow_remote: bool = False
    silent: bool = True
    threads: int | None = None  # for a resumed run, instead of as many as before

    @property
    def reading(self) -> Reading:
        """The arguments of every function that reads a run's data."""
        return {"device": self.device, "data_dir": self.data_dir, "allow_remote": self.allow_remote}


@dataclass(frozen=True)
class Lesson:
    """New classes for a finished run."""

    base: Path
    data: str
    method: Method


@dataclass(frozen=True)
class Job:
    """One run of a study. It can be pickled, so that another process or machine can do it."""

    label: str
    seed: int
    out: Path
    task: Recipe | Lesson

    @property
    def is_begun(self) -> bool:
        return Run.is_at(self.out)

    @property
    def is_measured(self) -> bool:
        """Evaluated on both splits, which is all that a table needs; the weights need not exist any more."""
        run = Run(self.out)
        return self.is_begun and run.is_evaluated and {"train", "test"} <= set(run.evaluation.splits)


@dataclass(frozen=True)
class StudyOutcome:
    """The runs that were done now, those that the budget left out, and those left to another process."""

    done: tuple[Job, ...]
    left: tuple[Job, ...]
    elsewhere: tuple[Job, ...] = ()


@dataclass(frozen=True)
class Assignment:
    """A job for another process of this machine, in JSON; `command` is what `environment.json` records."""

    job: Job
    machine: Machine
    command: tuple[str, ...]

    def dump(self) -> bytes:
        """Write it as one line."""
        return TypeAdapter(Assignment).dump_json(self) + b"\n"

    @staticmethod
    def load(line: bytes) -> "Assignment":
        """Read what `dump` has written."""
        return TypeAdapter(Assignment).validate_json(line)


@dataclass(frozen=True)
class Ended:
    """How a run has ended here; `elsewhere` if another process does it, or has done it."""

    word: Literal["done", "left", "failed", "elsewhere"]
    reason: str = ""
    is_refused: bool = False  # it has failed by a user's error, which the same command would repeat

    @staticmethod
    def by(error: BaseException) -> "Ended":
        """Return that it has failed by an error; PyTorch's go on for lines."""
        words = str(error).strip().partition("\n")[0]
        return Ended("failed", words or type(error).__name__, is_refused=isinstance(error, UserError))


def find_elsewhere(job: Job) -> Ended | None:
    """Say if another process does a job that was missing, or has done it; None if it does not, or that is unknown."""
    run = Run(job.out)
    if job.is_measured and run.is_finished:
        return Ended("elsewhere", "another process has done it")
    if run.is_locked:
        return Ended("elsewhere", "another process is doing it, so it is left to that one")
    base = Run(job.task.base) if isinstance(job.task, Lesson) else None
    if base is not None and not base.is_finished and base.is_locked:
        return Ended("elsewhere", f"another process is training {base.name}, so it is left to that one")
    return None


def conclude(jobs: Sequence[Job], ended: Mapping[Path, Ended]) -> StudyOutcome:
    """Sum up how jobs have ended, by their absolute folders; missing ones count as left.

    Raises: Failure naming the first that failed; UserError if every one that failed was refused.
    """
    results = [(job, ended.get(job.out.resolve(), Ended("left"))) for job in jobs]
    failed = [(job, result) for job, result in results if result.word == "failed"]
    if failed:
        job, result = failed[0]
        others = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        words = f"{job.out.name}: {result.reason}{others}"
        if all(result.is_refused for _, result in failed):
            raise UserError(words)
        raise Failure(f"{words}; the same command resumes the study")
    done, left, elsewhere = (
        tuple(job for job, result in results if result.word == word) for word in ("done", "left", "elsewhere")
    )
    return StudyOutcome(done, left, elsewhere)


def choose_rows(study: Study, labels: tuple[str, ...]) -> tuple[Row, ...]:
    """Return the named rows, or all, in the study's order and with the rows that they build on. Raises: UserError."""
    wanted = {pick_row(study, label).label for label in labels} or {row.label for row in study.rows}
    for row in reversed(study.rows):
        if row.label in wanted and isinstance(row.job, Teaching):
            wanted.add(row.job.base)
    return tuple(row for row in study.rows if row.label in wanted)


def make_jobs(study: Study, *, out: Path, seeds: int, labels: tuple[str, ...] = (), scale: float = 1.0) -> list[Job]:
    """List the runs of a study: those that its order names, then seed by seed, so that all rows advance alike.

    Raises: UserError if a row, its recipe or the scale is not allowed.
    """
    rows = choose_rows(study, labels)
    tasks = {row.label: recipe_of(row.job, label=row.label, scale=scale) for row in rows if row.job.kind == "training"}
    jobs = [make_job(row, seed=seed, out=out, recipe=tasks.get(row.label)) for seed in range(seeds) for row in rows]
    places = {turn: place for place, turn in enumerate(study.order)}
    _bring_bases_forward(places, rows)
    return sorted(jobs, key=lambda job: places.get((job.label, job.seed), len(places)))


def find_missing(jobs: Sequence[Job]) -> list[Job]:
    """Find those that are not measured, and the bases without weights that missing lessons extend."""
    missing = {job.out: job for job in jobs if not job.is_measured}
    bases = {job.task.base for job in missing.values() if isinstance(job.task, Lesson)}
    return [job for job in jobs if job.out in missing or (job.out in bases and not Run(job.out).is_finished)]


def _bring_bases_forward(places: dict[tuple[str, int], int], rows: Sequence[Row]) -> None:
    """Give each base the place of its earliest lesson, unless its own is earlier; rows come after their bases."""
    for row in reversed(rows):
        for (label, seed), place in list(places.items()):
            if label == row.label and isinstance(row.job, Teaching):
                base = row.job.base, seed
                places[base] = min(place, places.get(base, place))


@contextmanager
def naming_row(label: str) -> Iterator[None]:
    """Let an error name the row that it is about."""
    try:
        yield
    except (UserError, Failure) as error:
        raise type(error)(f"row {label}: {error}") from None


def recipe_of(job: Training, *, label: str, scale: float) -> Recipe:
    """Resolve what a row trains; a recipe that the row changes takes its label as its name. Raises: UserError."""
    with naming_row(label):
        recipe = with_settings(find_recipe(job.recipe), job.settings)
    if recipe.trial:
        raise UserError(f"row {label} trains a trial, whose test split stays closed: set trial to false for a study")
    if isinstance(recipe.optimizer, LinearHead) or recipe.extension is not None or recipe.start is not None:
        raise UserError(
            f"row {label} names a recipe of reslab fit, reslab extend or train --from, which no row trains: "
            "choose another recipe, or teach new classes with a row of the kind teaching"
        )
    if recipe.imported is not None:  # training records it without, since the weights are its own
        recipe = derive(recipe, name=recipe.name, imported=None)
    if not 0 < scale <= 1:
        raise UserError(f"--epochs-scale {scale:g}: give a share of the epochs above 0 and at most 1")
    return (derive(recipe, name=label) if job.settings else recipe).shortened(scale)


def make_job(row: Row, *, seed: int, out: Path, recipe: Recipe | None) -> Job:
    """Make the job of one seed of a row; `recipe` is that of a row that trains."""
    match row.job:
        case Training():
            assert recipe is not None
            return Job(row.label, seed, _folder(out, row.label, seed), recipe)
        case Teaching(base=base, data=data, method=method):
            data = "+".join(split_sources(data))  # as an extension records it
            return Job(row.label, seed, _folder(out, row.label, seed), Lesson(_folder(out, base, seed), data, method))
        case _:
            assert_never(row.job)


def _folder(out: Path, label: str, seed: int) -> Path:
    return out / f"{label}-{seed}"


def check_folder(job: Job) -> None:
    """Check the folder of a job that is begun. Raises: UserError if it holds another run."""
    if holds_another(job):
        raise UserError(
            f"{job.out} does not hold row {job.label} with seed {job.seed} as planned now: choose another "
            "folder, or remove it"
        )


def holds_another(job: Job) -> bool:
    """Return whether the folder of a job holds another run than the planned one."""
    return job.is_begun and not _is_of(job, Run.open(job.out))


def _is_of(job: Job, run: Run) -> bool:
    if run.environment.seed != job.seed:
        return False
    recipe = run.recipe
    if isinstance(job.task, Recipe):
        planned = job.task.model_copy(update={"white": job.task.white or recipe.white})  # which a run finds and records
        return recipe.model_dump(exclude=NAMES) == planned.model_dump(exclude=NAMES)
    extension, base = recipe.extension, Run(job.task.base)
    return (
        extension is not None
        and extension.method == job.task.method
        and recipe.data.endswith(f"+{job.task.data}")
        and (job.is_measured or not base.is_finished or base.weights_digest == extension.base)
    )

"""Do the missing runs of a study, in order; interrupted ones are resumed."""

import hashlib
import re
import time
from collections.abc import Sequence
from pathlib import Path

from reslab.data.recipe_data import check_remote
from reslab.errors import Failure, Stopped, UserError
from reslab.machine.device import pick_device
from reslab.recipe.recipe import NAMES, Recipe
from reslab.runs import Run
from reslab.study.cluster import Cluster
from reslab.study.cluster import do_all as do_on_cluster
from reslab.study.cost import estimate
from reslab.study.folder import claim, read_gradients, write_gradients
from reslab.study.gradients import gradient_norms
from reslab.study.job import do
from reslab.study.plan import (
    FAILURES,
    Ended,
    Job,
    Lesson,
    Machine,
    Say,
    StudyOutcome,
    check_folder,
    conclude,
    find_elsewhere,
    find_missing,
    make_jobs,
    naming_row,
)
from reslab.study.processes import Workers
from reslab.study.processes import do_all as do_by_workers
from reslab.study.spec import Gradients, Study
from reslab.words import named

SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def run_study(
    study: Study,
    *,
    out: Path,
    seeds: int | None = None,
    rows: Sequence[str] = (),
    scale: float = 1.0,
    budget: float | None = None,
    machine: Machine | None = None,
    workers: Workers | None = None,
    cluster: Cluster | None = None,
    say: Say = lambda line: None,
) -> StudyOutcome:
    """Report what the missing runs of a study cost, then do them; with a `budget` in seconds, those that fit into it.

    Runs that another process is doing are left to it. With `workers` or a `cluster`, several are done at a time.
    Raises: UserError if the study, its recipes or `out` do not allow it, or once all others are done if runs were
    refused; Failure naming the runs that failed once all others are done, or if interrupted; the same call then
    resumes.
    """
    machine = machine or Machine()
    pick_device(machine.device)  # refuses a wrong one before anything is written
    jobs = make_jobs(study, out=out, seeds=seeds or study.seeds, labels=tuple(rows), scale=scale)
    for job in jobs:
        check_remote(job.task.data, of=f"the row {job.label}", allow_remote=machine.allow_remote)
    claim(out, study, scale=scale)
    for job in jobs:
        check_folder(job)
    missing = find_missing(jobs)
    say(f"{study.name}: {len(jobs) - len(missing) or 'none'} of {len(jobs)} runs done")
    _write_gradients(study, jobs, out=out, machine=machine, say=say)
    if not missing:
        return StudyOutcome((), ())
    costs = estimate(missing, machine=machine, num_workers=workers.num if workers else 1, say=say)
    claim(out, study, scale=scale)  # again: until its first run begins, another process may have claimed it
    if workers is not None:
        return do_by_workers(missing, costs, workers=workers, budget=budget, machine=machine, say=say)
    if cluster is not None:
        return do_on_cluster(missing, costs, action=do, cluster=cluster, budget=budget, machine=machine, say=say)
    return _do_all(missing, costs, budget=budget, machine=machine, say=say)


def _do_all(
    jobs: Sequence[Job], costs: Sequence[float], *, budget: float | None, machine: Machine, say: Say
) -> StudyOutcome:
    began = time.monotonic()
    ended: dict[Path, Ended] = {}
    for job, cost in zip(jobs, costs, strict=True):
        if (other := find_elsewhere(job)) is not None:
            ended[job.out.resolve()] = other
            say(f"{job.out.name}: {other.reason}")
            continue
        fits = budget is None or time.monotonic() - began + cost <= budget
        if not fits or (isinstance(job.task, Lesson) and not Run(job.task.base).is_finished):
            continue
        say(f"{job.out.name}: {'resumes' if job.is_begun else 'begins'}, run {len(ended) + 1} of {len(jobs)}")
        try:
            do(job, machine)
        except Stopped as error:
            raise Failure(f"{job.out.name}: {error}; the same command resumes the study") from None
        except FAILURES as error:
            # It may have begun the run at the same moment.
            ended[job.out.resolve()] = result = find_elsewhere(job) or Ended.by(error)
            say(f"{job.out.name}: {'failed, ' if result.word == 'failed' else ''}{result.reason}")
        else:
            ended[job.out.resolve()] = Ended("done")
    return conclude(jobs, ended)


def _write_gradients(study: Study, jobs: Sequence[Job], *, out: Path, machine: Machine, say: Say) -> None:
    """Measure, once per recipe, the gradients of the rows for which the study wants them and that run here."""
    recipes = {job.label: job.task for job in jobs if job.label in study.gradients and isinstance(job.task, Recipe)}
    known, digests = read_gradients(out), {label: _digest(recipe) for label, recipe in recipes.items()}
    new = [label for label in recipes if known.recipes.get(label) != digests[label]]
    if not new:
        return
    say(f"measuring the gradients of {named(new)}")
    norms = {label: norm for label, norm in known.norms.items() if label in study.gradients}
    for label in new:
        with naming_row(label):
            norms[label] = gradient_norms(recipes[label], **machine.reading)
    write_gradients(
        out,
        Gradients(
            norms=norms, recipes={label: known.recipes[label] for label in norms if label in known.recipes} | digests
        ),
    )


def _digest(recipe: Recipe) -> str:
    return hashlib.sha256(recipe.model_dump_json(exclude=NAMES).encode()).hexdigest()


def read_budget(text: str) -> float:
    """Turn a time such as 90m, 2h or 1.5d into seconds. Raises: UserError."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?) ?(s|m|min|h|d)", text)
    if found is None:
        raise UserError(f"--budget {text}: write a number and s, m, h or d, as in 90m or 2h")
    return float(found[1]) * SECONDS[found[2]]

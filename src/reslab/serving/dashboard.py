"""The dashboard of the runs below a folder: progress, learning curves and comparison. Read-only."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, FastAPI, HTTPException, Query
from fastapi.responses import FileResponse
from pydantic import BaseModel

from reslab.errors import UserError
from reslab.records import Epoch, Estimate, Progress
from reslab.report.comparison import compare, differing_fields
from reslab.runs import Run
from reslab.serving.app import PROBLEMS, Access, build_app
from reslab.serving.metrics import Metrics
from reslab.words import printable

# The files that a run's row in the list is made from.
FILES = ("recipe.json", "log.jsonl", "model.safetensors", "evaluation.json")
# Without locks, a run counts as stopped once an epoch takes this many times its mean, and at least so many seconds.
PATIENCE, LEAST_SECONDS = 5.0, 120.0
PAGE: dict[str, Any] = {"schema": {"type": "string"}}  # what a page is in openapi.json

ResultT = TypeVar("ResultT")
State = Literal["running", "stopped", "finished", "evaluated", "damaged"]


class Listed(BaseModel):
    """A run in the list; accuracies are those of its last epoch, `test` that of its evaluation."""

    name: str = ""
    state: State
    problem: str = ""
    recipe: str = ""
    data: str = ""
    network: str = ""
    began: float = 0.0  # when its recipe was written: another run of the same name began at another time
    epochs: int = 0
    num_epochs: int = 0
    changed: float = 0.0
    seconds: float = 0.0
    seconds_left: float | None = None
    train_accuracy: float | None = None
    validation_accuracy: float | None = None
    test: Estimate | None = None
    has_report: bool = False
    progress: Progress | None = None  # of the epoch under way


class Runs(BaseModel):
    """All runs, the most recently changed first."""

    folder: str
    runs: list[Listed]


def dashboard_app(folder: Path, *, access: Access) -> FastAPI:
    """Build the app. Raises: UserError if `folder` is not a folder."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: name one that holds runs")
    return build_app("dashboard", router=_make_router(folder), access=access, metrics=Metrics())


def _make_router(folder: Path) -> APIRouter:
    router = APIRouter(prefix="/v1", responses=PROBLEMS)

    @router.get("/runs")
    def runs() -> Runs:
        """List the runs below the folder."""
        listed = [_list(name, run) for name, run in find_runs(folder).items()]
        return Runs(folder=str(folder), runs=sorted(listed, key=lambda each: -each.changed))

    @router.get("/report", response_class=FileResponse, responses={200: {"content": {"text/html": PAGE}}})
    def report(run: Annotated[str, Query(description="The run's name in the list.")]) -> FileResponse:
        """Return the report of a run, sandboxed so that it cannot query this server."""
        path = _find(folder, run).path / "report.html"
        if not path.is_file():
            raise HTTPException(404, f"The run {run!r} has no report: reslab report writes one")
        return FileResponse(path, media_type="text/html", headers={"Content-Security-Policy": "sandbox allow-scripts"})

    @router.get("/log")
    def log(
        run: Annotated[str, Query(description="The run's name in the list.")],
        after: Annotated[int, Query(ge=0, description="Skip this many epochs that are already known.")] = 0,
    ) -> list[Epoch]:
        """Return the epochs that a run has logged."""
        return _answer(lambda: _find(folder, run).log[after:])

    @router.get("/compare")
    def beside(run: Annotated[list[str], Query(description="Two to eight runs' names.")]) -> dict[str, Any]:
        """Compare evaluated runs on their test images."""
        if not 2 <= len(run) <= 8:
            raise HTTPException(422, f"Choose 2 to 8 runs to compare, not {len(run)}")
        return _answer(lambda: asdict(compare([_find(folder, name) for name in run])))

    @router.get("/differences")
    def differences(run: Annotated[list[str], Query(description="Two to eight runs' names.")]) -> dict[str, list[str]]:
        """List the fields of the runs' recipes that differ, with the value of each run."""
        if not 2 <= len(run) <= 8:
            raise HTTPException(422, f"Choose 2 to 8 runs to compare, not {len(run)}")
        return _answer(lambda: differing_fields([_find(folder, name) for name in run]))

    return router


def _answer(read: Callable[[], ResultT]) -> ResultT:
    """Read from runs. Raises: HTTPException instead of UserError."""
    try:
        return read()
    except UserError as error:
        raise HTTPException(422, str(error)) from None


def find_runs(folder: Path) -> dict[str, Run]:
    """Find the run folders at or below `folder`, named by their path relative to it."""
    found = sorted(_walk(folder))
    names = [str(path.relative_to(folder)) if path != folder else Run(path).name for path in found]
    return {printable(name): Run(path) for name, path in zip(names, found, strict=True)}


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the folder and those below it that hold a recipe, each once; links are followed after all else."""
    waiting, links, seen = [folder], list[Path](), set[str]()
    while waiting or links:
        path = waiting.pop() if waiting else links.pop(0)
        with suppress(OSError):  # unreadable, gone meanwhile, or a link to nowhere
            if (real := os.path.realpath(path)) in seen or not path.is_dir():
                continue
            seen.add(real)
            inside = list(os.scandir(path))
            if any(entry.name == "recipe.json" for entry in inside):
                yield path
            links += sorted(path / entry.name for entry in inside if entry.is_symlink())
            waiting += [path / entry.name for entry in inside if entry.is_dir(follow_symlinks=False)]


def _find(folder: Path, name: str) -> Run:
    runs = find_runs(folder)
    if name not in runs:  # never open a path that the client made up
        raise HTTPException(404, f"There is no run {name!r} here")
    return runs[name]


def _list(name: str, run: Run) -> Listed:
    try:
        stamps = tuple(_changed(run.path / file) for file in FILES)
        listed = _describe(run.path, stamps)
    except (UserError, OSError) as error:  # a damaged or deleted run must not hide the others
        return Listed(name=name, state="damaged", problem=str(error))
    listed = listed.model_copy(update={"has_report": (run.path / "report.html").is_file()})
    if listed.state == "running" and not _is_running(run, listed):
        return listed.model_copy(update={"name": name, "state": "stopped", "seconds_left": None})
    progress = run.progress if listed.state == "running" else None
    if progress is not None and progress.epoch != listed.epochs + 1:  # left by an earlier process
        progress = None
    return listed.model_copy(update={"name": name, "progress": progress})


def _is_running(run: Run, listed: Listed) -> bool:
    """Tell whether a process is training the run: by its lock, or without locks, by how long it has been silent."""
    is_locked = run.is_locked
    silence = time.time() - listed.changed
    is_silent = silence > max(LEAST_SECONDS, PATIENCE * listed.seconds / max(1, listed.epochs))
    return not is_silent if is_locked is None else is_locked


def _changed(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


@lru_cache(maxsize=4096)
def _describe(path: Path, stamps: tuple[float, ...]) -> Listed:
    """Read the row of a run whose files changed at `stamps`; a run without a network counts as running."""
    run = Run(path)
    recipe, log = run.recipe, run.log
    last = log[-1] if log else None
    seconds = sum(epoch.seconds for epoch in log)
    state: State = "evaluated" if run.is_evaluated else "finished" if run.is_finished else "running"
    figures = run.evaluation.splits if run.is_evaluated else {}
    return Listed(
        state=state,
        recipe=recipe.name,
        data=recipe.data,
        network=recipe.model.label,
        epochs=len(log),
        num_epochs=recipe.epochs,
        began=stamps[0],
        changed=stamps[1] or stamps[0],
        seconds=seconds,
        seconds_left=seconds / len(log) * max(0, recipe.epochs - len(log)) if log and state == "running" else None,
        train_accuracy=last.train_accuracy if last else None,
        validation_accuracy=last.validation_accuracy if last else None,
        test=figures["test"].accuracy if "test" in figures else None,
    )

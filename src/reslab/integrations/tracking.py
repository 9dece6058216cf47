"""Send a run's log to TensorBoard, MLflow or Weights & Biases, also during training.

This reads the log in the run folder, so training knows nothing of trackers, and a tracker that fails does not stop it.
"""

import hashlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from reslab.errors import Failure, UserError, extra
from reslab.recipe.settings import name_values
from reslab.records import Epoch, Evaluation
from reslab.runs import Run, make_folder
from reslab.runs.files import writing

SECONDS_BETWEEN_LOOKS = 2.0
SUFFIX = ".reslab"  # of the TensorBoard files written here
FOLDER = "mlruns"  # MLflow's, unless it is set to another place


class Tracker(Protocol):
    """A destination for metrics."""

    def log(self, figures: dict[str, float], *, step: int, seconds: float) -> None:
        """Record metrics of the epoch `step`, which ended at `seconds` since 1970."""

    def close(self, *, failed: bool) -> None:
        """Write what is still pending, and record whether something could not be sent."""


def track(run: Run, *, to: str, follow: bool = False) -> int:
    """Send a run's log to TensorBoard, MLflow or Weights & Biases.

    In TensorBoard, a second call replaces the points of the first; in the others, each call makes a new run.

    Parameters
    ----------
    run : Run
        The run; if it is evaluated, the metrics of its splits follow the epochs.
    to : str
        `tensorboard:DIR`; `mlflow:URI`, or `mlflow` for MLflow's own setting, else the folder `mlruns`; or `wandb:DIR`
        for Weights & Biases in offline mode, which `wandb sync` uploads.
    follow : bool, default False
        Whether to wait for more epochs until the run is finished or Ctrl-C is pressed.

    Returns
    -------
    int
        The number of epochs that were sent.

    Raises
    ------
    UserError
        If there is no such tracker or it is not installed.
    Failure
        If the tracker refuses.

    Examples
    --------
    >>> import reslab
    >>> reslab.track(reslab.Run.open("runs/digits"), to="tensorboard:boards")
    4
    """
    ended, num_epochs = datetime.fromisoformat(run.environment.started).timestamp(), 0
    try:
        with _closing(_open(to, run)) as tracker:
            for epoch in _epochs(run, follow=follow):
                ended, num_epochs = ended + epoch.seconds, epoch.epoch
                tracker.log(_figures_of(epoch), step=epoch.epoch, seconds=ended)
            if run.is_evaluated:
                tracker.log(_final_figures(run.evaluation), step=num_epochs, seconds=ended)
    except (UserError, Failure):
        raise
    except Exception as error:  # MLflow's servers and stores raise anything
        raise Failure(f"sending the log of {run.path} to {to} failed: {error}") from None
    return num_epochs


@contextmanager
def _closing(tracker: Tracker) -> Iterator[Tracker]:
    try:
        yield tracker
    except BaseException:
        with suppress(Exception):  # what failed first is what to tell
            tracker.close(failed=True)
        raise
    tracker.close(failed=False)


def _epochs(run: Run, *, follow: bool) -> Iterator[Epoch]:
    """Yield the epochs logged so far, then those that are added until the run is finished or somebody interrupts."""
    num_seen = 0
    try:
        while True:
            last_look = run.is_finished or not follow
            log = run.log
            yield from log[num_seen:]
            num_seen = max(num_seen, len(log))
            if last_look:
                return
            time.sleep(SECONDS_BETWEEN_LOOKS)
    except KeyboardInterrupt:
        return


def _figures_of(epoch: Epoch) -> dict[str, float]:
    figures = epoch.model_dump(exclude={"epoch"}, exclude_none=True)
    return {_place(name): float(value) for name, value in figures.items()}


def _place(name: str) -> str:
    """Put loss and accuracy of a split into one group: train_loss is train/loss."""
    split, _, figure = name.partition("_")
    return f"{split}/{figure}" if split in ("train", "validation") else name


def _final_figures(evaluation: Evaluation) -> dict[str, float]:
    return {
        f"evaluation/{split}_{name}": getattr(figures, name).value
        for split, figures in evaluation.splits.items()
        for name in ("accuracy", "macro_f1", "log_loss")
    }


# ---- the trackers


def _open(to: str, run: Run) -> Tracker:
    kind, _, place = to.partition(":")
    if kind == "tensorboard" and place:
        return _TensorBoard(Path(place), run)
    if kind == "mlflow":
        return _MLflow(place or None, run)
    if kind == "wandb" and place:
        return _WeightsAndBiases(Path(place), run)
    raise UserError(f"--to {to}: write tensorboard:DIR, mlflow, mlflow:URI, or wandb:DIR")


class _TensorBoard:
    """A file of events, written at once: TensorBoard's own writer uses a thread, whose errors go unnoticed."""

    def __init__(self, folder: Path, run: Run) -> None:
        with extra("track"):
            import tensorboard  # noqa: F401 - by this name it is missed
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.summary.writer.record_writer import RecordWriter
        from torch.utils.tensorboard import summary

        digest = hashlib.sha256(os.fsencode(os.path.realpath(run.path))).hexdigest()[:8]
        ending = f".{digest}{SUFFIX}"
        self._event, self._summary, place = Event, summary, folder / run.name
        if any(not each.name.endswith(ending) for each in place.glob(f"*{SUFFIX}")):  # of another run of this name
            place = folder / f"{run.name}-{digest}"
        make_folder(place)
        for earlier in place.glob(f"*{ending}"):  # else the page would show its points beside the new ones
            writing(earlier, earlier.unlink)
        self._path = place / f"events.out.tfevents.{int(time.time())}{ending}"
        self._records = RecordWriter(writing(self._path, lambda: self._path.open("wb")))
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))
        recipe = run.recipe.model_dump_json(indent=1)
        shown = summary.text("recipe", f"```\n{recipe}\n```")
        self._add(Event(wall_time=time.time(), summary=shown))

    def log(self, figures: dict[str, float], *, step: int, seconds: float) -> None:
        for name, value in figures.items():
            shown = self._summary.scalar(name, value)
            self._add(self._event(wall_time=seconds, step=step, summary=shown))

    def _add(self, event: Any) -> None:
        def add() -> None:
            self._records.write(event.SerializeToString())
            self._records.flush()

        writing(self._path, add)

    def close(self, *, failed: bool) -> None:
        writing(self._path, self._records.close)


class _MLflow:
    def __init__(self, uri: str | None, run: Run) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # metrics go where they are sent, and nowhere else
        with extra("track"):
            from mlflow.entities import Metric, Param
            from mlflow.tracking import MlflowClient, is_tracking_uri_set

        logging.getLogger("mlflow").setLevel(logging.ERROR)  # it prints tracebacks about things that it can do without
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # folders must be allowed
        # MLflow's own default is a database, which its small package lacks.
        uri = uri or (None if is_tracking_uri_set() else Path(FOLDER).absolute().as_uri())
        self._metric, self._client = Metric, MlflowClient(tracking_uri=uri)
        experiment = self._client.get_experiment_by_name("reslab")
        number = experiment.experiment_id if experiment else self._client.create_experiment("reslab")
        self._run = self._client.create_run(number, run_name=run.name).info.run_id
        self._client.log_batch(self._run, params=[Param(name, str(value)) for name, value in _settings_of(run).items()])

    def log(self, figures: dict[str, float], *, step: int, seconds: float) -> None:
        metrics = [self._metric(name, value, int(1000 * seconds), step) for name, value in figures.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self, *, failed: bool) -> None:
        self._client.set_terminated(self._run, status="FAILED" if failed else "FINISHED")


class _WeightsAndBiases:
    """A run in offline mode: nothing is sent, `wandb sync` uploads the folder."""

    def __init__(self, folder: Path, run: Run) -> None:
        with extra("wandb"):
            import wandb

        make_folder(folder)
        figures_alone = wandb.Settings(console="off", silent=True, disable_git=True, save_code=False)
        self._run = wandb.init(
            project="reslab",
            name=run.name,
            dir=str(folder),
            mode="offline",
            config=_settings_of(run),
            settings=figures_alone,
        )

    def log(self, figures: dict[str, float], *, step: int, seconds: float) -> None:
        self._run.log(figures | {"_timestamp": seconds}, step=step)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


def _settings_of(run: Run) -> dict[str, Any]:
    return dict(name_values(run.recipe.model_dump(mode="json"))) | {"seed": run.environment.seed}

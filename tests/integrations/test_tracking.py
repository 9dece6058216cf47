"""The log of a run in TensorBoard, MLflow and a stand-in for Weights & Biases, read back; followed while it grows."""

import json
import shutil
import sys
from collections.abc import Callable
from datetime import datetime
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from reslab.errors import Failure, UserError
from reslab.integrations import tracking
from reslab.integrations.tracking import track
from reslab.runs import Run

FINAL = {f"evaluation/{split}_{name}" for split in ("train", "test") for name in ("accuracy", "macro_f1", "log_loss")}


def expected(run: Run) -> dict[str, list[float]]:
    """The figures of the log by the names that a tracker shows them under."""
    groups = {
        "train_loss": "train/loss",
        "train_accuracy": "train/accuracy",
        "validation_loss": "validation/loss",
        "validation_accuracy": "validation/accuracy",
    }
    lines = [json.loads(line) for line in (run.path / "log.jsonl").read_text().splitlines()]
    names = [name for name, value in lines[0].items() if name != "epoch" and value is not None]
    return {groups.get(name, name): [line[name] for line in lines] for name in names}


def end_of_epochs(run: Run) -> list[float]:
    started = datetime.fromisoformat(run.environment.started).timestamp()
    seconds = [epoch.seconds for epoch in run.log]
    return [started + sum(seconds[: place + 1]) for place in range(len(seconds))]


def test_tensorboard_shows_the_log(finished: Run, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert track(finished, to=f"tensorboard:{tmp_path}/logs") == 3
    shown = EventAccumulator(str(tmp_path / "logs/small"))
    shown.Reload()
    assert set(shown.Tags()["scalars"]) == set(expected(finished)) | FINAL
    for name, values in expected(finished).items():
        events = shown.Scalars(name)
        assert [event.step for event in events] == [1, 2, 3]
        assert [event.value for event in events] == pytest.approx(values)
        assert [event.wall_time for event in events] == pytest.approx(end_of_epochs(finished), abs=0.01)
    (last,) = shown.Scalars("evaluation/test_accuracy")
    assert last.value == pytest.approx(finished.evaluation.splits["test"].accuracy.value)
    (text,) = shown.Tensors("recipe/text_summary")
    assert b'"name": "small"' in text.tensor_proto.string_val[0]


def test_a_second_call_replaces_the_points_of_the_first(finished: Run, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    other = tmp_path / "logs/small/events.out.tfevents.1.somebody"
    track(finished, to=f"tensorboard:{tmp_path}/logs")
    (first,) = other.parent.iterdir()
    _, _, ending = first.name.partition("tfevents.")[2].partition(".")
    first.rename(other.with_name(f"events.out.tfevents.1.{ending}"))  # else both could have the name of one second
    other.touch()
    track(finished, to=f"tensorboard:{tmp_path}/logs")
    shown = EventAccumulator(str(tmp_path / "logs/small"))
    shown.Reload()
    assert [event.step for event in shown.Scalars("train/loss")] == [1, 2, 3]
    assert other.exists()
    assert len(list(other.parent.iterdir())) == 2


def test_runs_of_one_name_are_shown_beside_each_other(finished: Run, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    other = Run(shutil.copytree(finished.path, tmp_path / "elsewhere/small"))
    other.cut_log(2)
    for run in (finished, other, finished, other):
        track(run, to=f"tensorboard:{tmp_path}/logs")
    steps = []
    for folder in sorted((tmp_path / "logs").iterdir()):
        (file,) = folder.iterdir()
        shown = EventAccumulator(str(file))
        shown.Reload()
        steps.append([event.step for event in shown.Scalars("train/loss")])
    assert steps == [[1, 2, 3], [1, 2]]


@pytest.mark.parametrize("to", ["mlflow", "mlflow:file:mlruns"])
def test_mlflow_shows_the_log(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    """By what the extra brings alone: the small package, without a database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from mlflow.tracking import MlflowClient

    assert track(finished, to=to) == 3
    client = MlflowClient(tracking_uri=f"file://{tmp_path}/mlruns")
    (found,) = client.search_runs([client.get_experiment_by_name("reslab").experiment_id])
    assert (found.info.run_name, found.info.status) == ("small", "FINISHED")
    assert set(found.data.metrics) == set(expected(finished)) | FINAL
    history = client.get_metric_history(found.info.run_id, "train/accuracy")
    assert [point.value for point in history] == expected(finished)["train/accuracy"]
    assert [point.step for point in history] == [1, 2, 3]
    assert [point.timestamp / 1000 for point in history] == pytest.approx(end_of_epochs(finished), abs=0.01)
    wanted = {
        "seed": "0",
        "model.depth": "8",
        "optimizer.peak_lr": "0.1",
        "augment.0.kind": "shift",
        "data": "digits:1,4,7@40",
    }
    assert wanted.items() <= found.data.params.items()
    assert "published" not in found.data.params


def test_mlflow_alone_writes_a_folder_also_where_there_is_a_database(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    installed = ModuleType("sqlalchemy")
    installed.__spec__ = ModuleSpec("sqlalchemy", None)
    monkeypatch.setitem(sys.modules, "sqlalchemy", installed)
    track(finished, to="mlflow")
    assert [path.name for path in tmp_path.iterdir() if "ml" in path.name] == ["mlruns"]


def test_mlflow_marks_a_run_whose_log_was_not_sent_whole(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(tracking, "_final_figures", fail)
    with pytest.raises(Failure, match="failed: no space left"):
        track(finished, to=f"mlflow:file://{tmp_path}/mlruns")
    client = MlflowClient(tracking_uri=f"file://{tmp_path}/mlruns")
    (found,) = client.search_runs([client.get_experiment_by_name("reslab").experiment_id])
    assert found.info.status == "FAILED"


class FakeRun:
    """What Weights & Biases documents of a run: `log` gathers the figures of a step, `finish` ends it."""

    def __init__(self) -> None:
        self.steps: dict[int, dict[str, float]] = {}
        self.is_finished = False

    def log(self, data: dict[str, float], step: int) -> None:
        self.steps.setdefault(step, {}).update(data)

    def finish(self, exit_code: int) -> None:
        self.is_finished = exit_code == 0


def test_weights_and_biases_gets_the_log_offline(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, asked = FakeRun(), {}

    def init(*, project: str, name: str, dir: str, mode: str, config: dict[str, Any], settings: Any) -> FakeRun:
        asked.update(locals())
        return shown

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Settings=lambda **given: given))
    assert track(finished, to=f"wandb:{tmp_path}/boards") == 3
    assert (asked["mode"], asked["project"], asked["name"]) == ("offline", "reslab", "small")
    assert Path(asked["dir"]).is_dir()
    assert {"seed": 0, "model.depth": 8, "optimizer.peak_lr": 0.1}.items() <= asked["config"].items()
    assert asked["settings"]["save_code"] is False
    assert list(shown.steps) == [1, 2, 3]
    for name, values in (expected(finished) | {"_timestamp": end_of_epochs(finished)}).items():
        assert [figures[name] for figures in shown.steps.values()] == pytest.approx(values)
    assert set(shown.steps[3]) >= FINAL
    assert shown.is_finished


class Memory:
    """A tracker that only remembers."""

    def __init__(self, *_: Any) -> None:
        self.steps: list[int] = []
        self.is_open = True

    def log(self, figures: dict[str, float], *, step: int, seconds: float) -> None:
        self.steps.append(step)

    def close(self, *, failed: bool) -> None:
        self.is_open = False


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    tracker = Memory()
    monkeypatch.setattr(tracking, "_open", lambda *_: tracker)
    return tracker


def wait_by(monkeypatch: pytest.MonkeyPatch, *actions: Callable[[], object]) -> None:
    """Do one thing each time that the follower waits."""
    steps = iter(actions)
    monkeypatch.setattr("reslab.integrations.tracking.time.sleep", lambda seconds: next(steps)())


def test_following_takes_each_epoch_once_until_the_run_is_finished(
    finished: Run, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (finished.path / "log.jsonl").read_bytes().splitlines(keepends=True)
    weights = finished.weights_path.read_bytes()
    finished.weights_path.unlink()
    (finished.path / "evaluation.json").unlink()
    (finished.path / "log.jsonl").write_bytes(lines[0] + lines[1][:9])

    def add(*parts: bytes) -> None:
        (finished.path / "log.jsonl").write_bytes(b"".join(parts))

    def finish() -> None:
        add(*lines)
        finished.weights_path.write_bytes(weights)

    # A resumed run cuts its log back to the checkpoint and logs the same again.
    wait_by(monkeypatch, lambda: add(*lines[:2]), lambda: add(lines[0]), lambda: add(*lines[:2]), finish)
    assert track(finished, to="memory", follow=True) == 3
    assert memory.steps == [1, 2, 3]
    assert not memory.is_open


def test_an_interrupt_ends_following_in_order(finished: Run, memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    finished.weights_path.unlink()

    def interrupt() -> None:
        raise KeyboardInterrupt

    wait_by(monkeypatch, interrupt)
    assert track(finished, to="memory", follow=True) == 3
    assert memory.steps == [1, 2, 3, 3]  # and the evaluation
    assert not memory.is_open


@pytest.mark.parametrize("to", ["tensorboard", "tensorboard:", "wandb", "neptune:x", ""])
def test_an_unknown_tracker_is_refused(finished: Run, to: str) -> None:
    with pytest.raises(UserError, match="write tensorboard:DIR, mlflow, mlflow:URI, or wandb:DIR"):
        track(finished, to=to)


def test_a_tracker_that_refuses_is_a_failure(finished: Run) -> None:
    with pytest.raises(Failure, match=r"sending the log of \S+small to mlflow:wrong://place failed: "):
        track(finished, to="mlflow:wrong://place")


@pytest.mark.parametrize(
    ("to", "module", "extra"),
    [("tensorboard:x", "tensorboard", "track"), ("mlflow", "mlflow.entities", "track"), ("wandb:x", "wandb", "wandb")],
)
def test_without_the_package_the_extra_is_named(
    finished: Run, monkeypatch: pytest.MonkeyPatch, to: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"{module} is not installed: pip install 'reslab\[{extra}\]'"):
        track(finished, to=to)


def test_the_command(finished: Run, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    from reslab.cli import main

    monkeypatch.setattr("sys.argv", ["reslab", "track", str(finished.path), "--to", f"tensorboard:{tmp_path}/logs"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("Written to tensorboard:")


def test_training_loads_no_tracker() -> None:
    source = Path(tracking.__file__).parent / "training"
    assert not [path for path in source.glob("*.py") if "track" in path.read_text().lower()]

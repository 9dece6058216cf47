"""Whole small runs: what they leave, that they repeat and resume to the byte, and how they stop."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reslab import data
from reslab.errors import Failure, UserError
from reslab.recipe import Growth, Recipe, Steps, WarmUntil, derive
from reslab.runs import Run, read_weights
from reslab.settings import with_settings
from reslab.training import loop, resume, train

PER_EPOCH = 6


def weights_of(run: Run) -> bytes:
    return run.weights_path.read_bytes()


def test_a_run_leaves_recipe_environment_log_checkpoint_and_weights(recipe: Recipe, tmp_path: Path) -> None:
    run = train(recipe, out=tmp_path / "run", seed=5)
    assert run.recipe == recipe
    assert run.environment.seed == 5
    assert [used.split for used in run.environment.data] == ["train", "validation"]
    assert [epoch.updates for epoch in run.log] == [PER_EPOCH, 2 * PER_EPOCH, 3 * PER_EPOCH]
    assert all(epoch.validation_accuracy is not None for epoch in run.log)
    assert run.log[-1].train_loss < run.log[0].train_loss
    _, weights = read_weights(run.path)
    assert weights.classes == ("1", "4", "7")
    assert (weights.channels, weights.image_size) == (1, 8)
    assert sorted(path.name for path in run.path.iterdir()) == [
        "checkpoint",
        "environment.json",
        "log.jsonl",
        "model.safetensors",
        "recipe.json",
    ]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(recipe: Recipe, tmp_path: Path) -> None:
    first, second, other = (
        train(recipe, out=tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert weights_of(first) == weights_of(second)
    assert weights_of(first) != weights_of(other)


class StoppedAfter:
    """A stop request that comes with a given update of the whole run."""

    def __init__(self, update: int) -> None:
        self.left = update

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left == 0

    def __enter__(self) -> "StoppedAfter":
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.mark.parametrize("update", [1, PER_EPOCH - 1, PER_EPOCH, PER_EPOCH + 3, 3 * PER_EPOCH])
def test_a_stopped_run_goes_on_to_the_same_bytes(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: int
) -> None:
    whole = train(recipe, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "listen_for_stop", lambda: StoppedAfter(update))
        with pytest.raises(Failure, match=rf"stopped after {update} updates.*--resume"):
            train(recipe, out=tmp_path / "stopped")
    stopped = Run.open(tmp_path / "stopped")
    assert not stopped.is_finished
    resume(stopped.path)
    assert weights_of(stopped) == weights_of(whole)
    timeless = {"seconds", "images_per_second"}
    assert [e.model_dump(exclude=timeless) for e in stopped.log] == [e.model_dump(exclude=timeless) for e in whole.log]


def test_a_killed_run_goes_on_from_its_last_epoch_to_the_same_bytes(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(recipe, out=tmp_path / "whole")

    class Killed(BaseException):
        pass

    save = Run.write_checkpoint

    def die_in_the_second_epoch(run: Run, tensors: object, state: dict[str, int]) -> None:
        """After the epoch's line is logged and before it is saved."""
        if state["epochs"] == 2:
            raise Killed
        save(run, tensors, state)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "write_checkpoint", die_in_the_second_epoch)
        with pytest.raises(Killed):
            train(recipe, out=tmp_path / "killed")
    killed = Run.open(tmp_path / "killed")
    assert len(killed.log) == 2
    assert killed.read_checkpoint().state["epochs"] == 1
    resume(killed.path)
    assert weights_of(killed) == weights_of(whole)
    assert [epoch.epoch for epoch in killed.log] == [1, 2, 3]


def test_resuming_a_finished_run_changes_nothing(recipe: Recipe, tmp_path: Path) -> None:
    run = train(recipe, out=tmp_path / "run")
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    resume(run.path)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_resuming_on_changed_data_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    run = train(recipe, out=tmp_path / "run")
    run.weights_path.unlink()
    environment = json.loads((run.path / "environment.json").read_text())
    environment["data"][0]["fingerprint"] = "0" * 64
    (run.path / "environment.json").write_text(json.dumps(environment))
    with pytest.raises(UserError, match="has changed"):
        resume(run.path)


def test_training_never_reads_the_test_split(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    read = loop.read_split

    def watch(recipe: Recipe, split: str, **options: object) -> data.ImageSet:
        asked.append(split)
        return read(recipe, split, **options)

    monkeypatch.setattr(loop, "read_split", watch)
    train(recipe, out=tmp_path / "run")
    assert asked == ["train", "validation"]


def test_a_loss_that_is_not_finite_stops_with_epoch_and_batch(recipe: Recipe, tmp_path: Path) -> None:
    diverging = with_settings(recipe, ["optimizer.peak_lr=1e30", "schedule.warmup=0"])
    with pytest.raises(Failure, match=r"not finite in epoch 1, batch \d of 6"):
        train(diverging, out=tmp_path / "run")


def test_the_warm_up_rate_holds_until_an_epoch_ends_below_the_error(recipe: Recipe, tmp_path: Path) -> None:
    cold = derive(recipe, name="cold", schedule=Steps(at=(100,)), warm_until=WarmUntil(factor=0.1, training_error=1.0))
    assert [epoch.learning_rate for epoch in train(cold, out=tmp_path / "a").log] == pytest.approx([0.01, 0.1, 0.1])
    never = derive(cold, name="never", warm_until=WarmUntil(factor=0.1, training_error=0.0))
    assert [epoch.learning_rate for epoch in train(never, out=tmp_path / "b").log] == pytest.approx([0.01] * 3)


def test_updates_end_a_run_inside_an_epoch(recipe: Recipe, tmp_path: Path) -> None:
    run = train(derive(recipe, name="cut", updates=PER_EPOCH + 2), out=tmp_path / "run")
    assert [epoch.updates for epoch in run.log] == [PER_EPOCH, PER_EPOCH + 2]


def test_growth_changes_the_size_that_the_network_sees(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    take_step = loop.update

    def watch(*args: object, images: torch.Tensor, **options: object) -> object:
        seen.append(images.shape[2])
        return take_step(*args, images=images, **options)

    monkeypatch.setattr(loop, "update", watch)
    growing = derive(recipe, name="growing", growth=(Growth(epoch=0, image_size=4), Growth(epoch=2, image_size=8)))
    train(growing, out=tmp_path / "run")
    assert seen == [4] * 2 * PER_EPOCH + [8] * PER_EPOCH


def test_a_folder_that_is_taken_is_refused_and_left_alone(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="not empty"):
        train(recipe, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_constants_for_three_channels_are_refused_for_one(recipe: Recipe, tmp_path: Path) -> None:
    wrong = derive(recipe, name="wrong", standardize={"mean": (1, 2, 3), "deviation": (1, 1, 1)})
    with pytest.raises(UserError, match="standardize=null"):
        train(wrong, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_interrupt_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    """A real process and a real signal, sent once the first epoch is in the log."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "reslab", "train", "digits-quick", "--set", "epochs=1000", "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"go on with reslab train --resume {out}" in errors
    assert "Traceback" not in errors
    assert Run.open(out).read_checkpoint().state["updates"] > 0

"""Runs that are stopped, killed or interrupted go on to the same bytes."""

import json
from pathlib import Path
from typing import Any

import pytest

from reslab.errors import Failure, UserError
from reslab.recipe.networks import FastConv
from reslab.recipe.recipe import (
    AdamW,
    ColorJitter,
    Crop,
    CutMix,
    EarlyStopping,
    Flip,
    Freeze,
    Mixup,
    Muon,
    RandomErasing,
    Recipe,
    Resize,
    Sampling,
    TrivialAugment,
    derive,
)
from reslab.runs import Run
from reslab.training import graphs, loop, resume, train
from reslab.training.step import update as take_step

PER_EPOCH = 6


def weights_of(run: Run) -> bytes:
    return run.weights_path.read_bytes()


@pytest.fixture(scope="module", params=["plain", "everything", "fine-tuning"])
def recipe(request: pytest.FixtureRequest, small_recipe: Recipe) -> Recipe:
    """The small recipe, and one with all that could keep a state of its own: 110 images are 6 batches as well."""
    if request.param == "plain":
        return small_recipe
    if request.param == "fine-tuning":
        return derive(
            small_recipe,
            name="fine-tuning",
            augment=(RandomErasing(), ColorJitter(), TrivialAugment()),
            mixing=(Mixup(), CutMix()),
            optimizer=AdamW(layer_decay=0.7),
            class_weights="balanced",
            early_stopping=EarlyStopping(),
        )
    return derive(
        small_recipe,
        name="everything",
        image_size=12,
        augment=(Flip(alternate=True), Crop(pixels=1, fill="reflect")),
        progressive_resizing=(Resize(epoch=0, image_size=9), Resize(epoch=2, image_size=12)),
        model=FastConv(widths=(8, 16, 8)),
        optimizer=Muon(peak_lr=0.1, head_lr=1.0, bias_lr=1.0),
        freeze=(Freeze(parameters="stem", epoch=1), Freeze(parameters="groups.0", epoch=2)),
        sampling=Sampling(images_per_epoch=110, balance=0.5),
        logit_adjustment=0.5,
        label_smoothing=0.1,
        micro_batch_size=8,
    )


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that nobody stops."""
    return train(recipe, out=tmp_path_factory.mktemp("whole") / "run")


class StoppedAfter:
    """A stop request that comes with a given update of the whole run."""

    requested = False

    def __init__(self, update: int, patch: pytest.MonkeyPatch) -> None:
        self.left = update

        def count(*arguments: Any, **options: Any) -> object:
            self.left -= 1
            self.requested = self.left == 0
            return take_step(*arguments, **options)

        patch.setattr(graphs, "update", count)

    def __enter__(self) -> "StoppedAfter":
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.mark.parametrize("update", [1, PER_EPOCH - 1, PER_EPOCH, PER_EPOCH + 3, 2 * PER_EPOCH + 2, 3 * PER_EPOCH])
def test_a_stopped_run_goes_on_to_the_same_bytes(
    recipe: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loop, "listen_for_stop", lambda: StoppedAfter(update, patch))
        with pytest.raises(Failure, match=rf"stopped after {update} updates.*--resume"):
            train(recipe, out=tmp_path / "stopped")
    stopped = Run.open(tmp_path / "stopped")
    assert not stopped.is_finished
    assert stopped.read_checkpoint().state["updates"] == update
    resume(stopped.path)
    assert weights_of(stopped) == weights_of(whole)
    timeless = {"seconds", "images_per_second"}
    assert [e.model_dump(exclude=timeless) for e in stopped.log] == [e.model_dump(exclude=timeless) for e in whole.log]


def test_a_killed_run_goes_on_from_its_last_epoch_to_the_same_bytes(
    recipe: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    class Killed(BaseException):
        pass

    save = Run.write_checkpoint

    def die_in_the_second_epoch(run: Run, tensors: Any, state: dict[str, int]) -> None:
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


def test_resuming_a_finished_run_changes_nothing(small_recipe: Recipe, tmp_path: Path) -> None:
    run = train(small_recipe, out=tmp_path / "run")
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    resume(run.path)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_resuming_on_changed_data_is_refused(small_recipe: Recipe, tmp_path: Path) -> None:
    run = train(small_recipe, out=tmp_path / "run")
    run.weights_path.unlink()
    environment = json.loads((run.path / "environment.json").read_text())
    environment["data"][0]["fingerprint"] = "0" * 64
    (run.path / "environment.json").write_text(json.dumps(environment))
    with pytest.raises(UserError, match="has changed"):
        resume(run.path)

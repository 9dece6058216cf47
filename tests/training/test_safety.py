"""How often a run saves, and what follows a loss that is not finite."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from reslab.errors import Failure, UserError
from reslab.models.layers import ImageClassifier
from reslab.recipe.recipe import Freeze, Recipe, derive
from reslab.runs import Run, read_weights
from reslab.training import Safety, graphs, loop, resume, train
from reslab.training import safety as safety_module
from reslab.training.step import update as take_step

PER_EPOCH = 6


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2epochs", (2, "epochs")),
        ("1epoch", (1, "epochs")),
        ("500updates", (500, "updates")),
        ("10 minutes", (10, "minutes")),
    ],
)
def test_what_a_person_writes_is_read(written: str, expected: tuple[int, str]) -> None:
    safety = Safety.parse(written, on_nonfinite="stop")
    assert (safety.every, safety.unit, safety.on_nonfinite) == (*expected, "stop")


@pytest.mark.parametrize("written", ["", "epochs", "0epochs", "-1epochs", "2", "1.5minutes", "2hours", "١epochs"])
def test_anything_else_is_refused_with_examples(written: str) -> None:
    with pytest.raises(UserError, match=r"--checkpoint-every .*: write .* as in 2epochs, 500updates or 10minutes"):
        Safety.parse(written, on_nonfinite="retry")
    with pytest.raises(UserError, match="--on-nonfinite never: choose retry or stop"):
        Safety.parse("1epoch", on_nonfinite="never")


@pytest.mark.parametrize(
    ("safety", "expected"),
    [
        (Safety(), [6, 12, 18]),
        (Safety(2), [12, 18]),
        (Safety(5, "updates"), [5, 10, 15, 18]),
        (Safety(60, "minutes"), [18]),
    ],
)
def test_a_run_saves_as_often_as_it_is_told(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, safety: Safety, expected: list[int]
) -> None:
    saved, write = [], Run.write_checkpoint

    def watch(run: Run, tensors: Any, state: dict[str, int]) -> None:
        saved.append(state["updates"])
        write(run, tensors, state)

    monkeypatch.setattr(Run, "write_checkpoint", watch)
    train(small_recipe, out=tmp_path / "run", safety=safety)
    assert saved == expected


def test_the_minutes_count_from_the_newest_checkpoint(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count(step=30)  # each look at the clock takes half a minute
    monkeypatch.setattr(safety_module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    saved: list[int] = []
    monkeypatch.setattr(Run, "write_checkpoint", lambda _run, _tensors, state: saved.append(state["updates"]))
    train(small_recipe, out=tmp_path / "run", safety=Safety(1, "minutes"))
    assert saved[:4] == [2, 4, 6, 8]


def test_a_run_whose_time_is_over_ends_as_it_is(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ticks = itertools.count()  # each update takes a second
    monkeypatch.setattr(safety_module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    run = train(small_recipe, out=tmp_path / "run", safety=Safety(until=8), silent=False)
    assert run.is_finished
    assert [epoch.updates for epoch in run.log] == [6, 7]
    assert "time ran out after 7 of 18 updates" in " ".join(capsys.readouterr().err.split())
    written = run.weights_path.read_bytes()
    run.weights_path.unlink()  # as if it had been killed before it wrote them
    assert resume(run.path).weights_path.read_bytes() == written


def test_a_network_that_falls_short_of_its_log_is_told_when_training_ends(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(small_recipe, out=tmp_path / "sound", silent=False)
    assert "do not rely on it" not in capsys.readouterr().err

    def renew(model: ImageClassifier, batches: object) -> None:
        torch.nn.init.zeros_(model.head.weight)

    monkeypatch.setattr(loop, "renew_statistics", renew)
    train(small_recipe, out=tmp_path / "short", silent=False)
    assert "do not rely on it" in capsys.readouterr().err


def diverge_at(patch: pytest.MonkeyPatch, *, rate: float, after: int) -> list[float]:
    """Let every update of at least `rate` give a loss that is not finite once `after` updates are done."""
    rates = []

    def step(*arguments: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        loss, hits = take_step(*arguments, **options)
        rates.append(options["rate"])
        return (loss * float("nan") if options["rate"] >= rate and len(rates) > after else loss), hits

    patch.setattr(graphs, "update", step)
    return rates


@pytest.fixture
def flat(small_recipe: Recipe) -> Recipe:
    steps = {"kind": "steps", "at": [100]}
    return derive(small_recipe, name="flat", schedule=steps, freeze=(Freeze(parameters="stem", epoch=1),))


@pytest.mark.parametrize("safety", [Safety(), Safety(10), Safety(5, "updates")])
def test_the_epoch_is_trained_again_at_a_tenth_wherever_the_checkpoints_lie(
    flat: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, safety: Safety
) -> None:
    """The loss fails in the second epoch, at its third update; the network ends as if the rate had a step there."""
    with monkeypatch.context() as patch:
        rates = diverge_at(patch, rate=1.0, after=PER_EPOCH + 2)
        run = train(flat, out=tmp_path / "run", safety=safety)
    assert rates == pytest.approx([1.0] * (PER_EPOCH + 3) + [0.1] * 2 * PER_EPOCH)
    assert [(epoch.rate_factor, epoch.updates) for epoch in run.log] == [(1.0, 6), (0.1, 12), (0.1, 18)]
    step = derive(flat, name="step", schedule={"kind": "steps", "at": [1], "factor": 0.1})
    expected = train(step, out=tmp_path / "step")
    assert run.weights_path.read_bytes() == expected.weights_path.read_bytes()


def test_a_loss_that_nobody_has_looked_at_yet_is_not_saved(
    flat: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "UPDATES_BETWEEN_CHECKS", {"cpu": 4})  # as on a GPU, which would have to wait
    diverge_at(monkeypatch, rate=1.0, after=2)
    with pytest.raises(Failure, match="the loss is not finite in epoch 1, batch 3 of 6"):
        train(flat, out=tmp_path / "run", safety=Safety(3, "updates", "stop"))
    assert not Run(tmp_path / "run").has_checkpoint


def test_the_lower_rate_outlives_a_resume(flat: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        diverge_at(patch, rate=1.0, after=2)
        run = train(flat, out=tmp_path / "run")
    whole = run.weights_path.read_bytes()
    run.weights_path.unlink()
    (run.path / "checkpoint/newest.safetensors").unlink()
    resume(run.path)
    assert run.weights_path.read_bytes() == whole
    assert [epoch.rate_factor for epoch in run.log] == [0.1] * 3


def test_a_second_one_stops_and_so_does_the_first_where_that_is_asked(
    flat: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverge_at(monkeypatch, rate=0, after=0)
    with pytest.raises(
        Failure, match=r"not finite in epoch 1, batch 1 of 6 again, at a lower rate: .*nothing to resume"
    ):
        train(flat, out=tmp_path / "twice")
    with pytest.raises(Failure, match=r"not finite in epoch 1, batch 1 of 6: lower optimizer\.peak_lr \(now 0\.1\)"):
        train(flat, out=tmp_path / "once", safety=Safety(on_nonfinite="stop"))


@pytest.mark.parametrize(
    ("held_out", "told"), [(9, "the validation loss is not finite"), (0, "the weights are not finite")]
)
def test_an_epoch_whose_last_update_ruins_the_network_is_trained_again(
    flat: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    held_out: int,
    told: str,
) -> None:
    """No training loss shows it, since the update after it would be the first to."""
    recipe, rates = derive(flat, name="ruined", validation=held_out, epochs=2), []

    def step(forward: Any, optimizer: torch.optim.Optimizer, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        done = take_step(forward, optimizer, **options)
        rates.append(options["rate"])
        if len(rates) == 2 * PER_EPOCH:
            optimizer.param_groups[-1]["params"][-1].data.fill_(float("nan"))
        return done

    monkeypatch.setattr(graphs, "update", step)
    run = train(recipe, out=tmp_path / "run", silent=False)
    assert f"{told} after epoch 2: returning to the start of the epoch" in " ".join(capsys.readouterr().err.split())
    assert rates == pytest.approx([1.0] * 2 * PER_EPOCH + [0.1] * PER_EPOCH)
    assert [epoch.updates for epoch in run.log] == [6, 12]
    assert all(np.isfinite(value).all() for value in read_weights(run.path)[0].values())


def test_a_heartbeat_comes_with_losses_that_nobody_has_looked_at_yet(
    flat: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "UPDATES_BETWEEN_CHECKS", {"cpu": 4})  # as on a GPU
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_BEATS", 0.0)
    diverge_at(monkeypatch, rate=1.0, after=1)
    assert train(flat, out=tmp_path / "run").is_finished


def test_a_run_whose_time_is_over_before_anything_was_learned_fails(
    flat: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "UPDATES_BETWEEN_CHECKS", {"cpu": 4})
    diverge_at(monkeypatch, rate=1.0, after=1)
    ticks = itertools.count()
    monkeypatch.setattr(safety_module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    with pytest.raises(Failure, match="the loss is not finite in epoch 1, batch 2 of 6: lower optimizer"):
        train(flat, out=tmp_path / "run", safety=Safety(until=3))


def test_a_run_whose_time_is_over_ends_with_the_epoch_before_a_loss_that_is_not_finite(
    flat: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its weights get the statistics of a finished network, and are saved as such."""
    whole = train(derive(flat, name="one", epochs=1), out=tmp_path / "whole")
    monkeypatch.setattr(loop, "UPDATES_BETWEEN_CHECKS", {"cpu": 4})
    diverge_at(monkeypatch, rate=1.0, after=PER_EPOCH + 1)
    ticks = itertools.count()
    monkeypatch.setattr(safety_module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    run = train(flat, out=tmp_path / "run", safety=Safety(until=PER_EPOCH + 3), silent=False)
    said = " ".join(capsys.readouterr().err.split())
    assert "in epoch 2, batch 2 of 6: returning to the start of the epoch, which ends the run" in said
    assert [epoch.updates for epoch in run.log] == [PER_EPOCH]
    expected, written = (read_weights(each.path)[0] for each in (whole, run))
    saved = run.read_checkpoint().tensors
    for name, value in expected.items():
        np.testing.assert_array_equal(written[name], value, err_msg=name)
        if not name.startswith("head."):  # which is calibrated later
            np.testing.assert_array_equal(saved[f"model.{name}"], value, err_msg=name)

"""What a run multiplies with: chosen when it begins, recorded, and kept when it goes on."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from reslab.recipe.recipe import Recipe
from reslab.runs import Run
from reslab.training import loop, resume, train
from reslab.training.step import make_forward


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The precision of every forward pass that is made."""
    seen: list[str] = []

    def noting(network: nn.Module, *, precision: Any, **options: Any) -> object:
        seen.append(precision)
        return make_forward(network, precision=precision, **options)

    monkeypatch.setattr(loop, "make_forward", noting)
    return seen


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_resumed_run_takes_the_precision_that_was_recorded(
    small_recipe: Recipe, tmp_path: Path, used: list[str], precision: str
) -> None:
    run = train(small_recipe, out=tmp_path / "run", precision=precision)
    assert run.environment.precision == precision
    run.weights_path.unlink()
    assert resume(run.path).environment.precision == precision
    assert used == [precision, precision]


def test_a_run_from_before_it_was_recorded_goes_on_with_float32(finished: Run, used: list[str]) -> None:
    finished.write_environment(finished.environment.model_copy(update={"precision": None}))
    finished.weights_path.unlink()
    resume(finished.path)
    assert used == ["float32"]


def test_weights_are_rounded_otherwise_and_repeat_to_the_bit(small_recipe: Recipe, tmp_path: Path) -> None:
    """Both learn about equally well."""
    wanted = {"halves": "bfloat16", "again": "bfloat16", "whole": "float32"}
    runs = {name: train(small_recipe, out=tmp_path / name, precision=each) for name, each in wanted.items()}
    weights = {name: run.weights_path.read_bytes() for name, run in runs.items()}
    assert weights["halves"] == weights["again"] != weights["whole"]
    assert abs(runs["halves"].log[-1].train_accuracy - runs["whole"].log[-1].train_accuracy) < 0.1

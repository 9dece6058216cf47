"""The strict mode: what it switches on, that it repeats, what it records and refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch

from reslab.errors import UserError
from reslab.machine import kernels
from reslab.recipe.recipe import Recipe, derive
from reslab.runs import Run
from reslab.training import graphs, resume, train
from reslab.training.determinism import strictly
from reslab.training.step import update as take_step


def test_a_strict_run_is_strict_until_it_ends_records_it_and_gives_the_usual_bytes_on_a_processor(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def watch(*arguments: Any, **options: Any) -> object:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return take_step(*arguments, **options)

    monkeypatch.setattr(graphs, "update", watch)
    recipe = derive(small_recipe, name="short", epochs=1)
    strict = train(recipe, out=tmp_path / "strict", deterministic=True)
    assert seen == [True] * 6
    assert not torch.are_deterministic_algorithms_enabled()
    assert (strict.environment.deterministic, strict.environment.compiled) == (True, "no")
    usual = train(recipe, out=tmp_path / "usual")
    assert not usual.environment.deterministic
    assert strict.weights_path.read_bytes() == usual.weights_path.read_bytes()
    strict.weights_path.unlink()
    (strict.path / "checkpoint/newest.safetensors").unlink()
    seen.clear()
    resume(strict.path)
    assert seen == [True] * 6
    assert strict.weights_path.read_bytes() == usual.weights_path.read_bytes()


@pytest.mark.parametrize("wanted", [True, False])
def test_the_choice_of_algorithms_by_timing_ends_with_the_run(monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    with strictly(wanted):
        torch.backends.cudnn.benchmark = True  # as updates on a GPU do
    assert not torch.backends.cudnn.benchmark


def fail(message: str) -> None:
    with strictly(True):
        raise RuntimeError(message)


def test_an_operation_without_such_an_algorithm_is_named() -> None:
    with pytest.raises(UserError, match=r"is not possible here: put_ does not have a deterministic impl.*; omit it"):
        fail("put_ does not have a deterministic implementation, but you set ...")
    with pytest.raises(RuntimeError, match="something else"):
        fail("something else")
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("name", "value"), [("threads", 63), ("torch", "1.0"), ("processor", "another"), ("kernels", "on")]
)
def test_a_strict_run_does_not_go_on_elsewhere(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    monkeypatch.setattr(kernels, "_load", lambda: None)
    run = train(derive(small_recipe, name="short", epochs=1), out=tmp_path / "run", deterministic=True)
    run.weights_path.unlink()
    run.write_environment(run.environment.model_copy(update={name: value}))
    with pytest.raises(UserError, match=f"--deterministic and {name} {value}, which is .* here: resume as it was"):
        resume(run.path, threads=1)
    assert not Run.open(run.path).is_finished

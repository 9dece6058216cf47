"""Frozen parameters stand still from their epoch on, the others do not; what cannot be frozen is said."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reslab.errors import UserError
from reslab.recipe.recipe import Freeze, Muon, Recipe, derive
from reslab.runs import Run
from reslab.runs.files import read_safetensors
from reslab.training import train


def weights_after_each_epoch(
    recipe: Recipe, out: Path, monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, NDArray[np.float32]]]:
    seen = []
    save = Run.write_checkpoint

    def watch(run: Run, tensors: dict[str, NDArray[np.float32]], state: dict[str, int]) -> None:
        seen.append({name: value.copy() for name, value in tensors.items() if name.startswith("model.")})
        save(run, tensors, state)

    monkeypatch.setattr(Run, "write_checkpoint", watch)
    train(recipe, out=out)
    return seen


def moved(one: dict[str, NDArray[np.float32]], other: dict[str, NDArray[np.float32]]) -> set[str]:
    return {name.removeprefix("model.") for name in one if not np.array_equal(one[name], other[name])}


@pytest.mark.parametrize("optimizer", [None, Muon(peak_lr=0.1, head_lr=1.0, bias_lr=1.0)], ids=["sgd", "muon"])
def test_frozen_parameters_stand_still_from_their_epoch_on(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: Muon | None
) -> None:
    """Neither momentum nor decay moves them, and under Muon their norm stays too."""
    recipe = derive(
        small_recipe,
        name="frozen",
        optimizer=optimizer or small_recipe.optimizer,
        freeze=(Freeze(parameters="stem", epoch=0), Freeze(parameters="blocks.1", epoch=1)),
    )
    first, second, third = weights_after_each_epoch(recipe, tmp_path / "run", monkeypatch)
    parameters = {name.removeprefix("model.") for name in first if "running" not in name and "batches" not in name}
    stem = {name for name in parameters if name.startswith("stem")}
    block = {name for name in parameters if name.startswith("blocks.1")}
    assert stem
    assert len(block) > 5
    for before, after in ((first, second), (second, third)):
        # A convolution's bias in front of a norm has no gradient but for rounding, and need not move.
        still = {name for name in parameters - moved(before, after) if not name.endswith("bias")}
        assert still == {name for name in stem | block if not name.endswith("bias")}
        assert not moved(before, after) & (stem | block)
    statistics = {name for name in moved(second, third) if "running" in name}
    assert any(name.startswith("blocks.1") for name in statistics)  # they are no parameters


def test_frozen_norms_keep_the_statistics_that_they_start_with(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = derive(small_recipe, name="norms", freeze_norms=True)
    seen = weights_after_each_epoch(recipe, tmp_path / "run", monkeypatch)
    for weights in seen:
        means = {name: value for name, value in weights.items() if name.endswith("running_mean")}
        assert means
        assert not any(value.any() for value in means.values())  # as they are built
    written = read_safetensors(tmp_path / "run" / "model.safetensors")[0]
    assert not any(value.any() for name, value in written.items() if name.endswith("running_mean"))
    assert any(name.endswith("weight") for name in moved(seen[0], seen[-1]))


def test_a_parameter_moves_until_it_is_frozen(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = derive(small_recipe, name="late", freeze=(Freeze(parameters="head", epoch=2),))
    first, second, third = weights_after_each_epoch(recipe, tmp_path / "run", monkeypatch)
    assert {"head.weight", "head.bias"} <= moved(first, second)
    assert not {"head.weight", "head.bias"} & moved(second, third)


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        (Freeze(parameters="stm", epoch=1), r"freeze: no parameter's name begins with 'stm'; they begin with stem, "),
        (Freeze(parameters="", epoch=2), "freeze leaves nothing to train in the last of 3 epochs"),
    ],
)
def test_what_cannot_be_frozen_is_said_before_the_first_update(
    small_recipe: Recipe, tmp_path: Path, part: Freeze, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        train(derive(small_recipe, name="wrong", freeze=(part,)), out=tmp_path / "run")
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_a_freeze_that_never_comes_is_no_mistake(small_recipe: Recipe, tmp_path: Path) -> None:
    recipe = derive(small_recipe, name="never", epochs=1, freeze=(Freeze(parameters="", epoch=1),))
    assert train(recipe, out=tmp_path / "run").is_finished

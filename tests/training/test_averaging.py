"""The average is that of a naive loop; it is what is handed over; it goes back, goes on and ends like the network."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from reslab.data.batches import standardize
from reslab.data.recipe_data import read_split
from reslab.evaluation import evaluate
from reslab.extension import extend
from reslab.models import restore
from reslab.recipe.recipe import Average, Freeze, Recipe, Steps, derive, parse_recipe
from reslab.runs import Run, read_weights
from reslab.training import graphs, loop, resume, train
from reslab.training.averaging import take_in

PER_EPOCH = 6
DECAY = 0.8
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
Weights = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def averaged(small_recipe: Recipe) -> Recipe:
    return derive(small_recipe, name="averaged", average=Average(decay=DECAY, epoch=1))


@pytest.fixture
def after_updates(monkeypatch: pytest.MonkeyPatch) -> list[Weights]:
    """Collects the network after every update."""
    seen: list[Weights] = []

    def watch(average: object, model: torch.nn.Module, **options: Any) -> object:
        seen.append({name: value.numpy().copy() for name, value in model.state_dict().items()})
        return take_in(average, model, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "take_in", watch)
    return seen


def naive_average(seen: list[Weights], *, decay: float) -> Weights:
    """From the first of them on, in double precision; without batch norm's statistics, which are renewed."""
    seen = [{name: value for name, value in weights.items() if not name.endswith(STATISTICS)} for weights in seen]
    average = {name: value.astype(np.float64) for name, value in seen[0].items()}
    for weights in seen[1:]:
        average = {name: decay * average[name] + (1 - decay) * weights[name] for name in average}
    return average


def test_what_is_written_is_the_average_of_the_weights(
    averaged: Recipe, tmp_path: Path, after_updates: list[Weights]
) -> None:
    run = train(averaged, out=tmp_path / "run")
    written = read_weights(run.path)[0]
    assert len(after_updates) == 3 * PER_EPOCH
    expected = naive_average(after_updates[PER_EPOCH:], decay=DECAY)
    assert written.keys() == after_updates[-1].keys()
    for name, value in expected.items():
        np.testing.assert_allclose(written[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    apart = {name for name, value in written.items() if np.abs(value - after_updates[-1][name]).max() > 1e-5}
    assert {"head.weight", "head.bias", "stem.weight"} <= apart


def test_the_network_trains_as_if_there_were_no_average(
    averaged: Recipe, small_recipe: Recipe, tmp_path: Path, after_updates: list[Weights]
) -> None:
    run = train(averaged, out=tmp_path / "averaged")
    plain = read_weights(train(small_recipe, out=tmp_path / "plain").path)[0]
    for name, value in plain.items():
        if name.endswith(STATISTICS):  # which are renewed at the end
            continue
        np.testing.assert_array_equal(after_updates[3 * PER_EPOCH - 1][name], value, err_msg=name)
    checkpoint = run.read_checkpoint().tensors
    assert {name for name in checkpoint if name.startswith("average.")} == {f"average.{name}" for name in plain}


@pytest.mark.parametrize("average", [Average(decay=0), Average(decay=DECAY, epoch=3)], ids=["no memory", "never"])
def test_an_average_of_one_or_of_none_is_the_network(small_recipe: Recipe, tmp_path: Path, average: Average) -> None:
    run = train(derive(small_recipe, name="other", average=average), out=tmp_path / "run")
    plain = train(small_recipe, out=tmp_path / "plain")
    assert run.weights_path.read_bytes() == plain.weights_path.read_bytes()


def test_what_is_validated_and_evaluated_is_what_is_written(averaged: Recipe, tmp_path: Path) -> None:
    run = train(averaged, out=tmp_path / "run")
    tensors, weights = read_weights(run.path)
    model = restore(weights.model, tensors, num_classes=3, channels=1).eval()

    def logits(split: str) -> tuple[Tensor, Tensor]:
        images = read_split(averaged, split)  # type: ignore[arg-type]
        with torch.no_grad():
            return model(standardize(images.images, by=weights.standardize)), images.labels

    held_out, labels = logits("validation")
    expected = torch.nn.functional.cross_entropy(held_out, labels)
    assert run.log[-1].validation_loss == pytest.approx(float(expected), rel=1e-4)
    tested, labels = logits("test")
    found = evaluate(run, splits=("test",)).splits["test"].accuracy.value
    assert found == pytest.approx(float((tested.argmax(1) == labels).float().mean()))


def test_what_is_frozen_is_not_moved_by_averaging(averaged: Recipe, tmp_path: Path) -> None:
    frozen = derive(averaged, name="frozen", freeze=(Freeze(parameters="stem", epoch=1),))
    checkpoint = train(frozen, out=tmp_path / "run").read_checkpoint().tensors
    np.testing.assert_array_equal(checkpoint["average.stem.weight"], checkpoint["model.stem.weight"])


def fail_once(patch: pytest.MonkeyPatch, *, after: int) -> None:
    """Let the loss that follows `after` updates not be finite."""
    left, take_step = iter(range(after, -1, -1)), graphs.update

    def step(*arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        loss, hits = take_step(*arguments, **options)
        return (loss * float("nan") if next(left, None) == 0 else loss), hits

    patch.setattr(graphs, "update", step)


@pytest.mark.parametrize("epoch", [1, 2], ids=["as it begins", "later"])
def test_after_a_loss_that_is_not_finite_the_average_goes_back_too(
    averaged: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    flat = derive(averaged, name="flat", schedule=Steps(at=(100,)))
    with monkeypatch.context() as patch:
        fail_once(patch, after=epoch * PER_EPOCH + 2)
        run = train(flat, out=tmp_path / "run")
    expected = train(derive(flat, name="stepped", schedule=Steps(at=(epoch,))), out=tmp_path / "expected")
    assert run.weights_path.read_bytes() == expected.weights_path.read_bytes()


def test_a_checkpoint_and_a_recipe_from_before_there_were_averages_are_read(
    small_recipe: Recipe, tmp_path: Path
) -> None:
    old = small_recipe.model_dump(mode="json", exclude={"average"})
    assert parse_recipe(old, where="an old file") == small_recipe
    run = train(small_recipe, out=tmp_path / "run")
    whole = run.weights_path.read_bytes()
    assert not [name for name in run.read_checkpoint().tensors if name.startswith("average.")]
    run.weights_path.unlink()
    (run.path / "checkpoint/newest.safetensors").unlink()
    assert resume(run.path).weights_path.read_bytes() == whole


@pytest.mark.parametrize(
    ("method", "average"),
    [("frozen", None), ("finetune", Average(decay=DECAY, epoch=4)), ("joint", Average(decay=DECAY, epoch=5))],
)
def test_an_extension_averages_where_it_trains_the_network(
    averaged: Recipe, tmp_path: Path, method: str, average: Average | None
) -> None:
    """From the same share of its run on: 5 of 10 epochs are 4 of 8. It begins with the base's average."""
    recipe = derive(averaged, name="base", epochs=10, average=Average(decay=DECAY, epoch=5))
    base = train(recipe, out=tmp_path / "base")
    made = extend(base.path, data="digits:0,8@20", out=tmp_path / "more", method=method)
    assert made.recipe.average == average
    assert made.base_path.read_bytes() == base.weights_path.read_bytes()
    if average is None:
        before, after = read_weights(base.path)[0], read_weights(made.path)[0]
        np.testing.assert_array_equal(before["stem.weight"], after["stem.weight"])
        return
    checkpoint, written = made.read_checkpoint().tensors, read_weights(made.path)[0]
    np.testing.assert_array_equal(written["stem.weight"], checkpoint["average.stem.weight"])
    assert (written["stem.weight"] != checkpoint["model.stem.weight"]).any()
    assert Run.open(made.path).is_finished

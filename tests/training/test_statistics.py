"""Batch norm's statistics at the end of a run fit the weights, however short it was; and all else stays."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from reslab.errors import Failure
from reslab.evaluation import evaluate
from reslab.models.layers import ImageClassifier
from reslab.recipe.networks import LeNet, PreActResNet, ResNet
from reslab.recipe.recipe import Freeze, Recipe, derive
from reslab.recipe.shipped import find_recipe
from reslab.runs import Run, read_weights
from reslab.training import loop, resume, train
from reslab.training.statistics import renew_statistics

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three easy classes of 20 pictures each: a noisy colour."""
    generator = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(20):
            pixels = generator.normal(colour, 40, (32, 32, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"pictures/{name}/{number}.png")
    return tmp_path / "pictures"


def shorten(pictures: Path, **changes: Any) -> Recipe:
    """The recipe of README for a person's own pictures, with a small network."""
    changes = {"data": f"folder:{pictures}", "standardize": None, "model": PreActResNet(depth=20, width=8)} | changes
    return derive(find_recipe("lab-resnet32-short"), name="mine", **changes)


@pytest.mark.parametrize(
    "changes",
    [{}, {"model": ResNet(depth=20, width=8)}],
)
def test_after_few_updates_the_network_has_the_training_accuracy_that_was_logged(
    pictures: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    run = train(shorten(pictures, **changes), out=tmp_path / "run")
    figures = evaluate(run, splits=("train",)).splits["train"]
    assert run.log[-1].train_accuracy > 0.9
    assert figures.accuracy.value >= run.log[-1].train_accuracy - 0.02
    assert figures.log_loss.value < 1


def test_the_last_validation_is_of_the_network_that_is_written(pictures: Path, tmp_path: Path) -> None:
    run = train(shorten(pictures, validation=12), out=tmp_path / "run")
    found = evaluate(run, splits=("validation",)).splits["validation"]
    assert run.log[-1].validation_accuracy == found.accuracy.value == 1.0
    assert run.log[-1].validation_loss == pytest.approx(found.log_loss.value, rel=1e-4)


class Net(nn.Module):
    """Two norms with dropout between them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(2, momentum=0.3), nn.BatchNorm2d(2)
        self.conv, self.drop = nn.Conv2d(2, 2, 1, bias=False), nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        moved: Tensor = self.norm2(self.drop(self.conv(self.norm1(images))))
        return moved


def test_statistics_are_the_mean_of_those_of_the_batches_and_all_else_stays() -> None:
    torch.manual_seed(0)
    net, batches = Net().train(), [torch.randn(8, 2, 3, 3) * 4 + 2 for _ in range(3)]
    net(batches[0])  # which leaves some
    before, state = copy.deepcopy(net), torch.get_rng_state()
    renew_statistics(net, batches)
    assert torch.equal(torch.get_rng_state(), state)  # nothing was dropped
    assert net.training
    assert (net.norm1.momentum, net.norm2.momentum) == (0.3, 0.1)
    assert all(map(torch.equal, net.parameters(), before.parameters()))

    def naive(batches: list[Tensor]) -> tuple[Tensor, Tensor]:
        means, variances = ([getattr(batch, name)((0, 2, 3)) for batch in batches] for name in ("mean", "var"))
        return torch.stack(means).mean(0), torch.stack(variances).mean(0)

    normed = [nn.functional.batch_norm(batch, None, None, training=True) for batch in batches]
    for norm, seen in ((net.norm1, batches), (net.norm2, [net.conv(batch) for batch in normed])):
        mean, variance = naive(seen)
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var, variance, rtol=1e-4, atol=1e-5)


def test_without_running_statistics_no_image_is_read(small_recipe: Recipe, tmp_path: Path) -> None:
    def fail() -> Iterator[Tensor]:
        raise AssertionError
        yield

    renew_statistics(nn.Linear(2, 2), fail())
    recipe = derive(small_recipe, name="plain", image_size=16, model=LeNet(), epochs=1)
    assert train(recipe, out=tmp_path / "run").is_finished


def test_what_is_frozen_is_still_frozen(small_recipe: Recipe, tmp_path: Path) -> None:
    frozen = derive(small_recipe, name="frozen", freeze=(Freeze(parameters="stem", epoch=1),))
    run = train(frozen, out=tmp_path / "run")
    checkpoint, (written, _) = run.read_checkpoint().tensors, read_weights(run.path)
    assert {f"model.{name}" for name in written} <= set(checkpoint)
    for name, value in written.items():
        np.testing.assert_array_equal(checkpoint[f"model.{name}"], value, err_msg=name)


def test_a_run_that_is_killed_between_the_renewal_and_the_end_ends_with_the_same_bytes(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    whole = train(small_recipe, out=tmp_path / "whole").weights_path.read_bytes()

    def stop_within(model: ImageClassifier, batches: Iterator[Tensor]) -> None:
        """As a signal does that comes after the first batch."""
        trainer = trainers[-1]
        trainer.stop.requested = True
        renew_statistics(model, batches)

    trainers: list[loop.Trainer] = []
    monkeypatch.setattr(loop.Trainer, "run_epochs", lambda self: (trainers.append(self), run_epochs(self))[1])
    with monkeypatch.context() as patch:
        patch.setattr(loop, "renew_statistics", stop_within)
        with pytest.raises(Failure, match="stopped after 18 updates"):
            train(small_recipe, out=tmp_path / "run")
    assert Run.open(tmp_path / "run").read_checkpoint().state["epochs"] == 2
    assert resume(tmp_path / "run").weights_path.read_bytes() == whole


run_epochs = loop.Trainer.run_epochs

"""The hardest images of a batch are those of a naive pass, they alone are learned from, and the log is of all."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reslab import models
from reslab.data.images import ImageSet
from reslab.errors import Failure
from reslab.recipe.networks import PreActResNet
from reslab.recipe.recipe import Recipe, Selection, derive
from reslab.training import Safety, graphs, loop, train
from reslab.training.distributed import Share
from reslab.training.objective import Objective, make_objective
from reslab.training.selection import choose

PER_EPOCH = 6


@pytest.fixture
def network() -> models.Classifier:
    torch.manual_seed(0)
    model = models.build(PreActResNet(depth=8, width=8), num_classes=3)
    model.train()
    with torch.no_grad():  # statistics of its own
        model(torch.randn(50, 3, 8, 8))
    return model


@pytest.fixture
def objective(small_recipe: Recipe) -> Objective:
    images = ImageSet(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.arange(3), ("a", "b", "c"), "none", "train")
    smoothed = derive(small_recipe, name="smoothed", label_smoothing=0.1)
    return make_objective(smoothed, images=images, teacher=None, device=torch.device("cpu"))


@pytest.fixture
def part() -> Share:
    """Thirty images at half a weight; some other process has 29."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(30, 3, 8, 8, generator=generator)
    return Share(images, torch.randint(0, 3, (30,), generator=generator), 0.5, 29)


def test_the_hardest_images_are_those_of_a_naive_pass(
    network: models.Classifier, objective: Objective, part: Share
) -> None:
    before = copy.deepcopy(network.state_dict())
    choice = choose(part, network, by=Selection(share=0.4), objective=objective)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        logits = copy.deepcopy(network).eval()(part.images)
    losses = [float(F.cross_entropy(logits[i], part.labels[i])) for i in range(30)]
    hardest = sorted(sorted(range(30), key=lambda place: losses[place])[-12:])
    assert hardest != sorted(range(30))[-12:]
    assert torch.equal(choice.share.images, part.images[hardest])
    assert torch.equal(choice.share.labels, part.labels[hardest])
    assert (choice.share.weight, choice.share.smallest) == (0.5, 12)
    assert not choice.share.images.is_inference()  # they are learned from
    smoothed = F.cross_entropy(logits, part.labels, label_smoothing=0.1)
    assert float(choice.loss) == pytest.approx(float(smoothed) / 2, rel=1e-5)
    assert int(choice.hits) == int((logits.argmax(1) == part.labels).sum())


@pytest.mark.parametrize(("num", "kept"), [(2, 2), (3, 2), (19, 2), (30, 3)])
def test_batch_norm_always_has_two_images(
    network: models.Classifier, objective: Objective, part: Share, num: int, kept: int
) -> None:
    few = part._replace(images=part.images[:num], labels=part.labels[:num], smallest=num)
    share = choose(few, network, by=Selection(share=0.1), objective=objective).share
    assert (len(share.images), len(share.labels), share.smallest) == (kept, kept, kept)


@pytest.fixture
def selecting(small_recipe: Recipe) -> Recipe:
    return derive(small_recipe, name="selecting", selection=Selection(share=0.4, epoch=1), chunk_size=5)


def test_from_its_epoch_on_the_chosen_images_alone_are_learned_from_and_the_log_is_of_all(
    selecting: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, seen, take_step = [], [], graphs.update

    def step(*arguments: Any, chunks: list[tuple[Tensor, Tensor]], **options: Any) -> tuple[Tensor, Tensor]:
        sizes.append([len(labels) for _, labels in chunks])
        return take_step(*arguments, chunks=chunks, **options)

    def watch(*arguments: Any, **options: Any) -> object:
        seen.append(choose(*arguments, **options))
        return seen[-1]

    monkeypatch.setattr(graphs, "update", step)
    monkeypatch.setattr(loop, "choose", watch)
    run = train(selecting, out=tmp_path / "run")
    assert sizes[:PER_EPOCH] == [[5] * 4] * 5 + [[4, 4, 3]]
    assert sizes[PER_EPOCH:] == ([[4, 4]] * 5 + [[4]]) * 2  # two fifths of 20 and of 11
    for number, epoch in enumerate(run.log[1:]):
        choices = seen[number * PER_EPOCH : (number + 1) * PER_EPOCH]
        assert epoch.train_accuracy == pytest.approx(sum(int(each.hits) for each in choices) / 111)
        losses = [float(each.loss) * size for each, size in zip(choices, [20] * 5 + [11], strict=True)]
        assert epoch.train_loss == pytest.approx(sum(losses) / 111, rel=1e-5)
    assert run.log[-1].train_accuracy > 0.6  # by chance 0.33


def test_a_loss_of_the_chosen_that_is_not_finite_is_seen(
    selecting: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, take_step = [], graphs.update

    def step(*arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        taken.append(options["rate"])
        loss, hits = take_step(*arguments, **options)
        return (loss * float("nan") if len(taken) == 3 * PER_EPOCH else loss), hits

    monkeypatch.setattr(graphs, "update", step)
    with pytest.raises(Failure, match="the loss is not finite in epoch 3, batch 6 of 6"):
        train(selecting, out=tmp_path / "run", safety=Safety(on_nonfinite="stop"))

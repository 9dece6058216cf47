"""The update against the steps that a person would write, on whole batches and in chunks."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reslab import models
from reslab.network.inference import place_on
from reslab.recipe.networks import PreActResNet
from reslab.recipe.recipe import Sgd
from reslab.training.optim import make_optimizer
from reslab.training.step import make_forward, update

OPTIONS = PreActResNet(depth=8, width=8)
CPU = torch.device("cpu")


def smoothed(logits: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, label_smoothing=0.1)


def make_batch(num: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num, 3, 8, 8, generator=generator), torch.randint(0, 7, (num,), generator=generator)


def cut(images: Tensor, labels: Tensor, sizes: list[int]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(images.split(sizes), labels.split(sizes), strict=True))


def test_an_update_equals_the_one_written_by_hand() -> None:
    torch.manual_seed(0)
    ours = place_on(models.build(OPTIONS, num_classes=7), torch.device("cpu"))
    theirs: Any = copy.deepcopy(ours).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    images, labels = torch.randn(16, 3, 8, 8), torch.randint(0, 7, (16,))
    optimizer = make_optimizer(ours, settings=Sgd(peak_lr=1.0))
    by_hand = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    for _ in range(2):
        loss, hits = update(
            make_forward(ours, device=CPU, precision="float32"),
            optimizer,
            objective=smoothed,
            chunks=[(images, labels)],
            rate=0.05,
        )
        logits = theirs(images)
        expected = F.cross_entropy(logits, labels, label_smoothing=0.1)
        by_hand.zero_grad()
        expected.backward()
        by_hand.step()
        torch.testing.assert_close(loss, expected.detach(), rtol=1e-4, atol=1e-5)
        assert int(hits) == int((logits.argmax(1) == labels).sum())
    for mine, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)


def test_no_gradient_is_left_behind() -> None:
    model = models.build(OPTIONS, num_classes=7)
    update(
        make_forward(model, device=CPU, precision="float32"),
        make_optimizer(model, settings=Sgd(peak_lr=0.1)),
        objective=smoothed,
        chunks=[(torch.randn(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64))],
        rate=1.0,
    )
    assert all(parameter.grad is None for parameter in model.parameters())


# ---- a batch in chunks


def gradients_of(model: nn.Module, chunks: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], float, int]:
    """Read the gradients off a step of rate 1 without momentum; also the loss and the hits."""
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD([{"params": list(model.parameters()), "peak_lr": 1.0}])
    loss, hits = update(model, optimizer, objective=smoothed, chunks=chunks, rate=1.0)
    return [old - new.detach() for old, new in zip(before, model.parameters(), strict=True)], float(loss), int(hits)


def without_batch_norm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(128, 7))


@pytest.mark.parametrize("sizes", [[8, 8], [5, 5, 6], [15, 1], [1] * 16])
def test_chunks_without_batch_norm_give_the_gradient_of_the_whole_batch(sizes: list[int]) -> None:
    images, labels = make_batch()
    whole, loss, hits = gradients_of(without_batch_norm(), [(images, labels)])
    parts, same_loss, same_hits = gradients_of(without_batch_norm(), cut(images, labels, sizes))
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)
    assert (same_loss, same_hits) == (pytest.approx(loss, rel=1e-5), hits)
    assert max(gradient.abs().max().item() for gradient in whole) > 0.01


def test_loss_and_hits_are_those_of_the_whole_batch() -> None:
    model, (images, labels) = without_batch_norm(), make_batch()
    with torch.no_grad():
        logits = model(images)
    labels = torch.where(torch.arange(16) % 3 == 0, logits.argmax(1), labels)
    expected = F.cross_entropy(logits, labels, label_smoothing=0.1)
    _, loss, hits = gradients_of(model, cut(images, labels, [7, 9]))
    assert loss == pytest.approx(float(expected), rel=1e-5)
    assert hits == int((logits.argmax(1) == labels).sum()) >= 6


def test_chunks_with_batch_norm_are_normalised_each_by_itself() -> None:
    """The gradient is the weighted mean of the chunks' own, not that of the batch; running statistics move twice."""
    torch.manual_seed(0)
    model = models.build(OPTIONS, num_classes=7).train()
    images, labels = make_batch()
    chunks = cut(images, labels, [12, 4])
    whole, *_ = gradients_of(copy.deepcopy(model), [(images, labels)])
    first, second = (gradients_of(copy.deepcopy(model), [chunk])[0] for chunk in chunks)
    parts, *_ = gradients_of(model, chunks)
    expected = [0.75 * one + 0.25 * other for one, other in zip(first, second, strict=True)]
    torch.testing.assert_close(parts, expected, rtol=1e-3, atol=1e-5)
    apart = max((part - one).abs().max().item() for part, one in zip(parts, whole, strict=True))
    assert apart > 0.01
    counts = {int(value) for name, value in model.state_dict().items() if name.endswith("num_batches_tracked")}
    assert counts == {2}


def test_the_rate_is_a_share_of_each_groups_own_peak() -> None:
    images, labels = make_batch()
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Linear(5, 7))
    before = copy.deepcopy(model)
    groups = [{"params": model[1].parameters(), "peak_lr": 0.5}, {"params": model[2].parameters(), "peak_lr": 0.02}]
    optimizer = torch.optim.SGD(groups)
    update(model, optimizer, objective=smoothed, chunks=[(images, labels)], rate=0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.005]
    smoothed(before(images), images, labels).backward()
    for layer, rate in ((1, 0.125), (2, 0.005)):
        expected = before[layer].weight - rate * before[layer].weight.grad
        torch.testing.assert_close(model[layer].weight, expected, rtol=1e-5, atol=1e-7)

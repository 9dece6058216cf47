"""The update against the steps that a person would write."""

import copy

import torch
import torch.nn.functional as F

from reslab import models
from reslab.recipe import Sgd
from reslab.training.optim import make_optimizer
from reslab.training.step import make_forward, update

DESCRIPTION = {"kind": "preact_resnet", "depth": 8, "width": 8}


def test_an_update_equals_the_one_written_by_hand() -> None:
    torch.manual_seed(0)
    ours = models.build(DESCRIPTION, num_classes=7).to(memory_format=torch.channels_last)
    theirs = copy.deepcopy(ours).to(memory_format=torch.contiguous_format)
    images, labels = torch.randn(16, 3, 8, 8), torch.randint(0, 7, (16,))
    optimizer = make_optimizer(ours, settings=Sgd(peak_lr=1.0))
    by_hand = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    for _ in range(2):
        loss, hits = update(
            make_forward(ours, device=torch.device("cpu")),
            optimizer,
            images=images,
            labels=labels,
            learning_rate=0.05,
            label_smoothing=0.1,
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
    model = models.build(DESCRIPTION, num_classes=7)
    update(
        make_forward(model, device=torch.device("cpu")),
        make_optimizer(model, settings=Sgd(peak_lr=0.1)),
        images=torch.randn(4, 3, 8, 8),
        labels=torch.zeros(4, dtype=torch.int64),
        learning_rate=0.1,
        label_smoothing=0.0,
    )
    assert all(parameter.grad is None for parameter in model.parameters())

"""Heads against what each method's source says of them, computed in another way."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reslab import models
from reslab.extension import heads
from reslab.recipe.networks import FastConv, PreActResNet

OPTIONS = PreActResNet(depth=8, width=8)


@pytest.fixture
def clouds() -> tuple[torch.Tensor, torch.Tensor]:
    """Features (60, 5) of three classes around three centres, and their labels."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(60) % 3
    centres = 3 * torch.randn(3, 5, generator=generator)
    return centres[labels] + torch.randn(60, 5, generator=generator), labels


def test_a_grown_head_says_of_the_old_classes_what_it_said() -> None:
    torch.manual_seed(0)
    model = models.build(OPTIONS, num_classes=4)
    nn.init.normal_(model.head.bias)
    images = torch.randn(6, 3, 8, 8)
    before = model.eval()(images)
    heads.grow(model, num_new=3)
    after = model(images)
    assert after.shape == (6, 7)
    torch.testing.assert_close(after[:, :4], before)
    assert not after[:, 4:].any()
    assert model.head.weight.requires_grad


def test_a_bias_that_is_not_trained_stays_so() -> None:
    model = models.build(FastConv(), num_classes=4)
    heads.grow(model, num_new=1)
    assert not model.head.bias.requires_grad


def test_the_nearest_mean_is_chosen(clouds: tuple[torch.Tensor, torch.Tensor]) -> None:
    features, labels = clouds
    head = nn.Linear(5, 3)
    heads.set_nearest_mean(head, features=features, labels=labels)
    means = np.stack([features.numpy()[labels.numpy() == label].mean(0) for label in range(3)])
    probes = 4 * torch.randn(200, 5, generator=torch.Generator().manual_seed(2))
    distances = ((probes.numpy()[:, None] - means) ** 2).sum(2)
    assert (head(probes).argmax(1).numpy() == distances.argmin(1)).all()
    logits = head(probes).detach().numpy()
    ratio = (logits - logits[:, :1])[:, 1:] / (distances[:, :1] - distances)[:, 1:]
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=1e-2)
    with torch.no_grad():
        losses = [float(F.cross_entropy(factor * head(features), labels)) for factor in (0.5, 1, 2)]
    assert losses[1] == min(losses)


def test_imprinted_rows_point_at_their_class_and_are_as_long_as_the_old_ones(
    clouds: tuple[torch.Tensor, torch.Tensor],
) -> None:
    features, labels = clouds
    head = nn.Linear(5, 6)
    old = head.weight[:3].detach().clone()
    heads.imprint(head, features=features, labels=labels + 3, num_old=3)
    torch.testing.assert_close(head.weight[:3], old)
    torch.testing.assert_close(head.weight[3:].norm(dim=1), old.norm(dim=1).mean().expand(3))
    for label in range(3):
        own = features[labels == label].mean(0) - features.mean(0)
        assert torch.cosine_similarity(head.weight[3 + label], own, dim=0) > 0.9999


@pytest.mark.parametrize("has_old", [True, False])
def test_the_row_of_a_single_new_class_is_imprinted_too(
    clouds: tuple[torch.Tensor, torch.Tensor], has_old: bool
) -> None:
    features, labels = clouds
    head = nn.Linear(5, 4)
    new, old = features[labels == 0], features[labels > 0]
    heads.imprint(head, features=new, labels=torch.full((20,), 3), num_old=3, old_features=old if has_old else None)
    torch.testing.assert_close(head.weight[3].norm(), head.weight[:3].norm(dim=1).mean())
    direction = new.mean(0) - (old.mean(0) if has_old else 0)
    assert torch.cosine_similarity(head.weight[3], direction, dim=0) > 0.9999


def test_aligned_rows_have_the_mean_length_of_the_old_ones_and_keep_their_direction() -> None:
    head = nn.Linear(5, 6)
    before = head.weight.detach().clone()
    with torch.no_grad():
        head.weight[4:] *= 7
    heads.align_norms(head, num_old=4)
    torch.testing.assert_close(head.weight[:4], before[:4])
    torch.testing.assert_close(head.weight[4:].norm(dim=1).mean(), before[:4].norm(dim=1).mean())
    assert torch.cosine_similarity(head.weight[4:], before[4:]).min() > 0.9999

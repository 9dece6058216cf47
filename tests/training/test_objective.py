"""The loss against its terms written out in NumPy."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from reslab.data.images import ImageSet
from reslab.errors import UserError
from reslab.models import build
from reslab.models.layers import ImageClassifier
from reslab.recipe.networks import ResNet
from reslab.recipe.recipe import Extension, Recipe, Sampling, derive
from reslab.training.objective import distillation, log_prior, make_objective

CPU = torch.device("cpu")
COUNTS = [90, 9, 1]
NUM, SIDE = 12, 8

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def images() -> ImageSet:
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(COUNTS))
    pixels = torch.zeros(len(labels), 1, SIDE, SIDE, dtype=torch.uint8)
    return ImageSet(pixels, labels, ("a", "b", "c"), "made", "train")


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Logits of three classes, images, labels."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(NUM, 3, generator=generator)
    return logits, torch.randn(NUM, 1, SIDE, SIDE, generator=generator), torch.arange(NUM) % 3


def log_softmax(logits: Array) -> Array:
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def naive_cross_entropy(logits: Array, labels: Array, smoothing: float) -> float:
    """The target is 1 - smoothing for the label, and smoothing spread over all classes."""
    num, classes = logits.shape
    target = np.full((num, classes), smoothing / classes)
    target[np.arange(num), labels] += 1 - smoothing
    return float(-(target * log_softmax(logits)).sum(axis=1).mean())


def naive_distillation(ours: Array, theirs: Array, temperature: float) -> float:
    ours, theirs = log_softmax(ours / temperature), log_softmax(theirs / temperature)
    return float((np.exp(theirs) * (theirs - ours)).sum(axis=1).mean() * temperature**2)


# ---- logit adjustment


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("adjustment", [0.0, 0.5, 1.0])
def test_loss_is_the_cross_entropy_of_logits_and_log_prior(
    small_recipe: Recipe, images: ImageSet, batch: tuple[Tensor, ...], adjustment: float, smoothing: float
) -> None:
    recipe = derive(small_recipe, name="r", logit_adjustment=adjustment, label_smoothing=smoothing)
    logits, chunk, labels = batch
    loss = make_objective(recipe, images=images, teacher=None, device=CPU)(logits, chunk, labels)
    prior = np.log(np.array([0.9, 0.09, 0.01]))
    expected = naive_cross_entropy(logits.double().numpy() + adjustment * prior, labels.numpy(), smoothing)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("balance", "shares"),
    [
        (None, [0.9, 0.09, 0.01]),
        (0.0, [0.9, 0.09, 0.01]),
        (0.5, [90**0.5 / (90**0.5 + 3 + 1), 3 / (90**0.5 + 3 + 1), 1 / (90**0.5 + 3 + 1)]),
        (1.0, [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_the_prior_is_that_of_the_images_that_are_drawn(small_recipe: Recipe, balance: float, shares: list) -> None:
    sampling = None if balance is None else Sampling(images_per_epoch=50, balance=balance)
    found = log_prior(COUNTS, recipe=derive(small_recipe, name="r", sampling=sampling))
    np.testing.assert_allclose(found.exp().numpy(), shares, rtol=1e-5)


def test_a_class_without_images_is_rare_rather_than_impossible(small_recipe: Recipe) -> None:
    found = log_prior([98, 0, 1], recipe=small_recipe)
    np.testing.assert_allclose(found.exp().numpy(), [0.98, 0.01, 0.01], rtol=1e-5)


# ---- distillation


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_distillation_is_the_divergence_from_the_teacher(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = 3 * torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    found = float(distillation(ours, theirs, temperature=temperature))
    assert found == pytest.approx(naive_distillation(ours.numpy(), theirs.numpy(), temperature))
    assert float(distillation(theirs + 7, theirs, temperature=temperature)) == pytest.approx(0, abs=1e-12)


def make_teacher() -> ImageClassifier:
    torch.manual_seed(0)
    return build(ResNet(depth=8, width=8), num_classes=2, channels=1)


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_the_old_classes_logits_are_held_to_the_teachers(
    small_recipe: Recipe, images: ImageSet, batch: tuple[Tensor, ...], weight: float
) -> None:
    extension = Extension(method="finetune-distill", base="0" * 64, num_old=2, distill=weight, temperature=3)
    recipe = derive(small_recipe, name="r", extension=extension, logit_adjustment=1.0)
    logits, chunk, labels = batch
    teacher = make_teacher()
    with torch.no_grad():
        opinion = teacher.eval()(chunk).double().numpy()
    loss = make_objective(recipe, images=images, teacher=teacher, device=CPU)(logits, chunk, labels)
    mine = logits.double().numpy()
    expected = naive_cross_entropy(mine + np.log([0.9, 0.09, 0.01]), labels.numpy(), 0.0)
    assert float(loss) == pytest.approx(expected + weight * naive_distillation(mine[:, :2], opinion, 3), rel=1e-4)


def test_the_teacher_is_left_alone(small_recipe: Recipe, images: ImageSet, batch: tuple[Tensor, ...]) -> None:
    """No gradient and no new statistics; its pupil does get a gradient."""
    extension = Extension(method="finetune-distill", base="0" * 64, num_old=2, distill=1.0)
    teacher = make_teacher().eval()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    logits, chunk, labels = batch
    logits.requires_grad_()
    recipe = derive(small_recipe, name="r", extension=extension)
    make_objective(recipe, images=images, teacher=teacher, device=CPU)(logits, chunk, labels).backward()
    assert logits.grad is not None
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


# ---- class weights and mixed labels


def test_weighted_loss_of_mixed_labels_is_the_plain_one_weighted(
    images: ImageSet, batch: tuple[Tensor, Tensor, Tensor], small_recipe: Recipe
) -> None:
    logits, chunk, labels = batch
    recipe = derive(small_recipe, name="weighted", class_weights="balanced", label_smoothing=0.0)
    objective = make_objective(recipe, images=images, teacher=None, device=CPU)
    weights = np.array([100 / (3 * count) for count in COUNTS])
    nll = -log_softmax(logits.double().numpy())
    expected = (weights[labels] * nll[np.arange(NUM), labels]).mean()
    assert float(objective(logits, chunk, labels)) == pytest.approx(expected)
    shares = torch.full((NUM, 3), 1 / 3)
    assert float(objective(logits, chunk, shares)) == pytest.approx((nll * weights / 3).sum(axis=1).mean())


def test_loss_of_a_weighted_image_is_the_plain_one_times_its_weight(
    images: ImageSet, batch: tuple[Tensor, Tensor, Tensor], small_recipe: Recipe
) -> None:
    logits, chunk, labels = batch
    objective = make_objective(
        derive(small_recipe, name="smooth", label_smoothing=0.2), images=images, teacher=None, device=CPU
    )
    weights = torch.arange(NUM) / 4
    alone = [float(objective(logits[[place]], chunk[[place]], labels[[place]])) for place in range(NUM)]
    shares = torch.eye(3)[labels] * weights[:, None]
    assert float(objective(logits, chunk, shares)) == pytest.approx(np.mean(weights.numpy() * alone))


def test_one_weight_for_each_class(images: ImageSet, small_recipe: Recipe) -> None:
    recipe = derive(small_recipe, name="weighted", class_weights=(1.0, 2.0))
    with pytest.raises(UserError, match=r"class_weights has 2 numbers for 3 classes: give one for each.* a, b, c"):
        make_objective(recipe, images=images, teacher=None, device=CPU)

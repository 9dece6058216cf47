"""The prior that is taken out of the logits: by hand, and where the right answer is known."""

import numpy as np
import pytest
import sklearn.metrics
import torch

from reslab.extension.prior import TAUS, Priors, choose_prior, priors_of
from reslab.recipe.recipe import Extension, Recipe, Sampling, derive

COUNTS = [90, 9, 1]
SHARES = np.log(np.array(COUNTS) / 100)


def extended(recipe: Recipe, method: str = "finetune", **changes: object) -> Recipe:
    extension = Extension(method=method, base="", num_old=2)  # type: ignore[arg-type]
    return derive(recipe, name="x", extension=extension, **changes)


def test_plain_cross_entropy_carries_the_prior_of_its_data(small_recipe: Recipe) -> None:
    priors = priors_of(extended(small_recipe), counts=COUNTS)
    np.testing.assert_allclose(priors.carried, SHARES, rtol=1e-6)
    np.testing.assert_allclose(priors.offset(0.0), 0, atol=1e-6)
    np.testing.assert_allclose(priors.offset(1.0), -SHARES, rtol=1e-6)
    np.testing.assert_allclose(priors.offset(0.3), -0.3 * SHARES, rtol=1e-5)


def test_logit_adjustment_leaves_no_prior_in_the_logits(small_recipe: Recipe) -> None:
    priors = priors_of(extended(small_recipe, logit_adjustment=1.0), counts=COUNTS)
    np.testing.assert_allclose(priors.offset(1.0), 0, atol=1e-6)
    np.testing.assert_allclose(priors.offset(0.0), SHARES, rtol=1e-6)


def test_a_nearest_mean_carries_none(small_recipe: Recipe) -> None:
    priors = priors_of(extended(small_recipe, "nearest-mean"), counts=COUNTS)
    np.testing.assert_allclose(priors.offset(0.0), SHARES, rtol=1e-6)


def test_what_is_carried_is_the_prior_of_the_drawn_images(small_recipe: Recipe) -> None:
    priors = priors_of(extended(small_recipe, sampling=Sampling(images_per_epoch=10, balance=0.5)), counts=COUNTS)
    roots = np.sqrt(COUNTS)
    np.testing.assert_allclose(priors.carried, np.log(roots / roots.sum()), rtol=1e-6)
    np.testing.assert_allclose(priors.coming, SHARES, rtol=1e-6)
    equal = priors_of(extended(small_recipe, sampling=Sampling(images_per_epoch=10, balance=1)), counts=COUNTS)
    np.testing.assert_allclose(equal.carried, np.log([1 / 3] * 3), rtol=1e-6)


def test_weights_of_classes_act_like_more_images(small_recipe: Recipe) -> None:
    priors = priors_of(extended(small_recipe, class_weights="balanced"), counts=COUNTS)
    np.testing.assert_allclose(priors.carried.softmax(0), [1 / 3] * 3, rtol=1e-5)
    np.testing.assert_allclose(priors.offset(0.0).softmax(0), np.array(COUNTS) / 100, rtol=1e-5)  # what is missing
    weighted = priors_of(extended(small_recipe, class_weights=(1.0, 2.0, 9.0)), counts=COUNTS)
    np.testing.assert_allclose(weighted.carried.softmax(0), np.array([90, 18, 9]) / 117, rtol=1e-5)


def test_pictures_to_come_are_as_frequent_as_the_extension_says(small_recipe: Recipe) -> None:
    recipe = extended(small_recipe)
    assert recipe.extension is not None
    recipe = derive(recipe, name="x", extension=recipe.extension.model_copy(update={"coming": (900, 90, 10)}))
    priors = priors_of(recipe, counts=[10, 10, 10])  # balanced by --old-data
    np.testing.assert_allclose(priors.coming, SHARES, rtol=1e-5)
    np.testing.assert_allclose(priors.carried, np.log([1 / 3] * 3), rtol=1e-6)


def evidence_of_two(coming: list[float]) -> tuple[torch.Tensor, torch.Tensor, Priors]:
    """As many validation images of each of two classes, whose logits carry no prior, and the prior of what comes."""
    generator = np.random.default_rng(0)
    labels = np.arange(2000) % 2
    evidence = generator.normal(2 * labels - 1, 1.5)
    logits = torch.from_numpy(np.stack([-evidence, evidence], axis=1))
    return logits, torch.from_numpy(labels), Priors(torch.zeros(2, dtype=torch.float64), torch.tensor(np.log(coming)))


def test_the_curve_is_that_of_the_pictures_to_come_and_its_best_macro_f1_is_chosen() -> None:
    logits, labels, priors = evidence_of_two([0.95, 0.05])
    choice = choose_prior(logits, labels, priors=priors)
    assert [point.tau for point in choice.curve] == list(TAUS)
    weights = np.where(labels == 0, 0.95, 0.05)
    best = next(point for point in choice.curve if point.tau == choice.tau)
    for point in choice.curve:
        predicted = (logits + (1 - point.tau) * priors.coming).argmax(1)
        settings = {"sample_weight": weights, "average": "macro"}
        assert point.macro_f1.value == pytest.approx(sklearn.metrics.f1_score(labels, predicted, **settings))
        assert point.accuracy.value == pytest.approx(np.average(predicted == labels, weights=weights))
        assert point.accuracy.low < point.accuracy.value < point.accuracy.high
        assert point.macro_f1.value <= best.macro_f1.value
    # Rare pictures are named too often by a network that takes all classes for equally frequent.
    assert choice.tau < 0.5
    assert best.macro_f1.value > choice.curve[-1].macro_f1.value + 0.03
    assert not choice.is_flat


def test_a_curve_is_flat_where_all_classes_will_be_equally_frequent() -> None:
    logits, labels, priors = evidence_of_two([0.5, 0.5])
    choice = choose_prior(logits, labels, priors=priors)
    assert (choice.tau, choice.is_flat) == (0.5, True)


def test_of_equals_the_middle_one_is_chosen() -> None:
    labels = torch.arange(20) % 2
    logits = 100 * torch.nn.functional.one_hot(labels).float()
    prior = torch.log(torch.tensor([0.9, 0.1]))
    assert choose_prior(logits, labels, priors=Priors(carried=prior, coming=prior)).tau == 0.5

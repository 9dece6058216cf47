"""The prior that is taken out of the logits: by hand, and where the right answer is known."""

import numpy as np
import pytest
import torch

from reslab.extension.prior import TAUS, Priors, choose_prior, priors_of
from reslab.metrics import log_softmax
from reslab.recipe import Extension, Recipe, Sampling, derive

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
    np.testing.assert_allclose(priors.data, SHARES, rtol=1e-6)
    equal = priors_of(extended(small_recipe, sampling=Sampling(images_per_epoch=10, balance=1)), counts=COUNTS)
    np.testing.assert_allclose(equal.carried, np.log([1 / 3] * 3), rtol=1e-6)


def test_the_curve_is_measured_at_every_tau_and_its_best_macro_f1_is_chosen() -> None:
    """Logits that are wrong by nothing but a prior of 9 to 1, on images without one: all of it must go."""
    generator = np.random.default_rng(0)
    labels = np.arange(400) % 2
    evidence = generator.normal(2 * labels - 1, 1)  # log odds are twice the evidence
    prior = torch.tensor(np.log([0.9, 0.1]))
    logits = torch.from_numpy(np.stack([-evidence, evidence], axis=1)) + prior
    choice = choose_prior(logits, torch.from_numpy(labels), priors=Priors(carried=prior, data=prior))
    assert [point.tau for point in choice.curve] == list(TAUS)
    assert choice.tau >= 0.8
    for point in choice.curve:
        predicted = log_softmax((logits - point.tau * prior).numpy()).argmax(1)
        assert point.accuracy.value == pytest.approx((predicted == labels).mean())
        assert point.accuracy.low <= point.accuracy.value <= point.accuracy.high
        assert point.macro_f1.value <= next(p for p in choice.curve if p.tau == choice.tau).macro_f1.value


def test_of_equals_the_middle_one_is_chosen() -> None:
    labels = torch.arange(20) % 2
    logits = 100 * torch.nn.functional.one_hot(labels).float()
    prior = torch.log(torch.tensor([0.9, 0.1]))
    assert choose_prior(logits, labels, priors=Priors(carried=prior, data=prior)).tau == 0.5

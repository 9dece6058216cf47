"""scikit-learn's own checks, and images in every layout."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import check_estimator

from reslab.errors import UserError
from reslab.integrations.scikit_learn import Classifier
from reslab.network.network import Network
from reslab.recipe.networks import PreActResNet
from reslab.recipe.recipe import Cosine, EarlyStopping, Flip, Linear, Recipe, Resize, Sgd, Standardize, derive
from reslab.runs import Run

# What images do not allow, and why.
EXCEPTIONS = {
    "check_methods_subset_invariance": "in float32 the last bits of a probability depend on the images beside it",
    "check_sample_weight_equivalence_on_dense_data": "weights multiply the loss, repeated images make longer epochs",
}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe(
        name="quick",
        source="the tests",
        data="digits",
        image_size=8,
        model=PreActResNet(depth=8, width=8),
        optimizer=Sgd(peak_lr=0.1),
        schedule=Linear(warmup=0.2),
        epochs=4,
        batch_size=20,
    )


@pytest.fixture(scope="module")
def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Grey pixels (N, 8, 8) uint8 of the digits 3, 4 and 5, and their labels."""
    bunch = load_digits()
    chosen = np.isin(bunch.target, (3, 4, 5))
    return np.rint(bunch.images[chosen] * 15.9375).astype(np.uint8), bunch.target[chosen]


@pytest.fixture(scope="module")
def fitted(recipe: Recipe, digits: tuple[NDArray[Any], NDArray[Any]]) -> Classifier:
    return Classifier(recipe).fit(digits[0][:150], digits[1][:150])


def test_a_recipe_that_holds_images_out_trains_on_a_fraction(recipe: Recipe, digits: Any) -> None:
    held = derive(recipe, name="held", early_stopping=EarlyStopping(patience=2), validation=100, trial=True)
    classifier = Classifier(held, validation_fraction=0.2).fit(digits[0][:100], digits[1][:100])
    assert classifier.predict(digits[0][:5]).shape == (5,)
    with pytest.raises(ValueError, match="stops early by validation images: set validation_fraction"):
        Classifier(held).fit(digits[0][:100], digits[1][:100])


def test_the_checks_of_scikit_learn(recipe: Recipe) -> None:
    results = check_estimator(Classifier(recipe), on_fail=None, on_skip=None)
    assert len(results) > 50
    failed = {each["check_name"]: each["exception"] for each in results if each["status"] == "failed"}
    assert set(failed) <= set(EXCEPTIONS), failed


def test_probabilities_classes_and_score(fitted: Classifier, digits: tuple[NDArray[Any], NDArray[Any]]) -> None:
    images, labels = digits[0][150:], digits[1][150:]
    probabilities = fitted.predict_proba(images)
    assert probabilities.shape == (len(images), 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    predicted = fitted.predict(images)
    assert list(fitted.classes_) == [3, 4, 5]
    np.testing.assert_array_equal(predicted, np.array([3, 4, 5])[probabilities.argmax(axis=1)])
    assert fitted.score(images, labels) == (predicted == labels).mean() > 0.8


def test_every_layout_of_the_same_images_is_the_same(
    recipe: Recipe, fitted: Classifier, digits: tuple[NDArray[Any], NDArray[Any]]
) -> None:
    images, labels = digits[0][:150], digits[1][:150]
    wanted = fitted.predict_proba(images)
    layouts = [images.reshape(-1, 64), images[..., None], images[:, None], images.astype(np.float64) / 255]
    for layout in layouts:
        np.testing.assert_allclose(Classifier(recipe).fit(layout, labels).predict_proba(layout), wanted)


def test_colour_is_told_from_rows_by_its_place(recipe: Recipe) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 6, 10, 3), dtype=np.uint8)
    labels = np.arange(20) % 2
    one = recipe.model_copy(update={"epochs": 1})
    wanted = Classifier(one).fit(images, labels)
    assert wanted.network_.channels == 3
    first = images.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(Classifier(one).fit(first, labels).predict_proba(first), wanted.predict_proba(images))
    flat = images.reshape(20, -1)
    by_shape = Classifier(one, image_shape=(6, 10, 3)).fit(flat, labels)
    np.testing.assert_array_equal(by_shape.predict_proba(flat), wanted.predict_proba(images))


def test_a_row_is_read_as_the_training_images_were(recipe: Recipe) -> None:
    steps = np.arange(8)[:, None, None] * 12 + np.arange(8)[:, None] * 9 + np.arange(3) * 17
    images = (steps + np.random.default_rng(0).integers(0, 8, (20, 8, 8, 3))).astype(np.uint8)
    one, labels = recipe.model_copy(update={"epochs": 1}), np.arange(20) % 2
    wanted = Classifier(one).fit(images, labels).predict_proba(images[:1])
    for rows in (images, images.transpose(0, 3, 1, 2)):
        flat = rows.reshape(20, -1)
        fitted = Classifier(one).fit(flat, labels)
        np.testing.assert_array_equal(fitted.predict_proba(flat[:1]), wanted)
        assert fitted.predict_proba(np.zeros((1, 192))).shape == (1, 2)


def test_other_numbers_are_mapped_by_the_range_of_the_training_images(
    fitted: Classifier, recipe: Recipe, digits: Any
) -> None:
    images, labels = digits[0][:150], digits[1][:150]
    least, greatest = images.min(), images.max()
    assert (least, greatest) == (0, 255)
    shifted = Classifier(recipe).fit(images / 100 - 7, labels)
    np.testing.assert_allclose(shifted.predict_proba(images / 100 - 7), fitted.predict_proba(images))
    beyond = np.where(images == 255, 1e9, np.where(images == 0, -1e9, images / 100 - 7))
    np.testing.assert_allclose(shifted.predict_proba(beyond), fitted.predict_proba(images))
    np.testing.assert_allclose(fitted.predict_proba(images.astype(float)), fitted.predict_proba(images))


def test_names_of_any_kind_are_given_back(recipe: Recipe, digits: Any, tmp_path: Path) -> None:
    names = np.array(["drei", "vier", "fünf"])[digits[1][:60] - 3]
    kept = Classifier(recipe, epochs=1, out=tmp_path / "run").fit(digits[0][:60], names)
    assert set(kept.predict(digits[0])) <= set(names)
    run = Run.open(tmp_path / "run")
    assert (run.recipe.epochs, run.recipe.data, run.recipe.validation) == (1, "arrays", 0)
    assert Network.load(run.path).classes == ("drei", "fünf", "vier")
    with pytest.raises(UserError, match="exists and is not empty"):
        kept.fit(digits[0][:60], names)


def test_a_shorter_training_is_scaled_as_a_whole(recipe: Recipe, digits: Any, tmp_path: Path) -> None:
    growing = (Resize(epoch=0, image_size=8), Resize(epoch=2, image_size=16))
    long = derive(recipe, name="growing", epochs=4, image_size=16, progressive_resizing=growing, augment=())
    number: Any = np.int64(2)  # as a search gives it
    Classifier(long, epochs=number, out=tmp_path / "run").fit(digits[0][:60], digits[1][:60])
    assert [each.epoch for each in Run.open(tmp_path / "run").recipe.progressive_resizing] == [0, 1]


def test_a_recipe_for_other_images_is_fitted_to_these(digits: Any, recipe: Recipe) -> None:
    for_colour = derive(
        recipe,
        name="colour",
        validation=5000,
        augment=(Flip(),),
        standardize=Standardize(mean=(1, 2, 3), std=(1, 2, 3)),
        epochs=1,
    )
    fitted = Classifier(for_colour).fit(digits[0][:60], digits[1][:60])
    assert fitted.network_.metadata.standardize.mean == (pytest.approx(digits[0][:60].mean()),)


def test_it_is_pickled_and_cross_validated(fitted: Classifier, recipe: Recipe, digits: Any) -> None:
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(digits[0]), fitted.predict_proba(digits[0]))
    scores = cross_val_score(Classifier(recipe), digits[0][:120], digits[1][:120], cv=2)
    assert scores.min() > 0.5


# ---- weights, and fields of the recipe


def test_weights_decide_between_two_labels_of_the_same_images(recipe: Recipe, digits: Any) -> None:
    images, labels = digits[0][:60], digits[1][:60]
    doubled, named = np.concatenate([images, images]), np.concatenate([labels, 3 + (labels - 2) % 3])
    for weight, wanted in ((1e-6, labels), (1e6, named[60:])):
        weights = np.repeat([1, weight], 60)
        found = Classifier(recipe).fit(doubled, named, sample_weight=weights).predict(images)
        assert (found == wanted).mean() > 0.8


def test_images_of_weight_zero_are_left_out_and_only_ratios_count(recipe: Recipe, digits: Any) -> None:
    images, labels = digits[0][:60], digits[1][:60]
    short = Classifier(recipe, epochs=1)
    weights = np.where(np.arange(60) < 40, 5.0, 0.0)
    weighted = clone(short).fit(images, labels, sample_weight=weights).predict_proba(images)
    np.testing.assert_allclose(weighted, clone(short).fit(images[:40], labels[:40]).predict_proba(images), rtol=1e-4)
    for wrong in (np.zeros(60), -weights):
        with pytest.raises(ValueError, match=r"negative weights, or none above 0|at least one non-zero"):
            short.fit(images, labels, sample_weight=wrong)


def test_weights_of_classes_are_those_of_the_recipe(recipe: Recipe, digits: Any) -> None:
    images, labels = digits[0][:60], digits[1][:60]

    def fit(weights: Any, **fields: Any) -> NDArray[Any]:
        own = derive(recipe, name="own", epochs=1, **fields)
        return Classifier(own, class_weight=weights).fit(images, labels).predict_proba(images)

    np.testing.assert_array_equal(fit({4: 3.0}), fit(None, class_weights=(1.0, 3.0, 1.0)))
    np.testing.assert_array_equal(fit("balanced"), fit(None, class_weights="balanced"))
    assert (fit({4: 3.0}) != fit(None)).any()


def test_fields_of_the_recipe_are_parameters_of_a_search(recipe: Recipe, digits: Any) -> None:
    grid = {"epochs": [1, 2], "recipe__optimizer__peak_lr": np.array([0.1, 1e-9])}
    search = GridSearchCV(Classifier(recipe), grid, cv=2).fit(digits[0][:80], digits[1][:80])
    best = search.best_estimator_
    assert (best.recipe.optimizer.peak_lr, recipe.optimizer.peak_lr) == (0.1, 0.1)
    assert {each["recipe__optimizer__peak_lr"] for each in search.cv_results_["params"]} == {0.1, 1e-9}
    assert clone(best).recipe == best.recipe
    scheduled = Classifier().set_params(recipe__schedule__kind="cosine", recipe__schedule__warmup=0.25)
    assert scheduled.recipe.schedule == Cosine(warmup=0.25, final=scheduled.recipe.schedule.final)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"recipe__optimizer__peek_lr": 1},
            "recipe optimizer.peek_lr: unknown field 'peek_lr'; did you mean 'peak_lr'",
        ),
        ({"recipe__epochs": -1}, "recipe: epochs should be greater than 0, not -1"),
        ({"epoch": 1}, "Invalid parameter 'epoch'"),
    ],
)
def test_fields_that_a_recipe_does_not_have_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Classifier().set_params(**params)


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({}, (4, 5, 5, 5), r"X has shape \(4, 5, 5, 5\): images are \(N, H, W\)"),
        ({}, (4, 2, 2, 2, 2), r"images are \(N, H, W\)"),
        ({"image_shape": (3, 3)}, (4, 8), r"rows of 8 numbers, which are not images of image_shape \(3, 3\)"),
        ({"recipe": "digits-quik"}, (4, 8, 8), "digits-quick"),
        ({"epochs": 0}, (4, 8, 8), "epochs should be .*, not 0"),
        ({"device": "tpu"}, (4, 8, 8), "unknown device 'tpu'"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Classifier(**options).fit(np.zeros(shape), [0, 1, 0, 1])


def test_one_class_is_named_plainly(recipe: Recipe, digits: Any) -> None:
    with pytest.raises(ValueError, match=r"y has one class, 1: a classifier"):
        Classifier(recipe).fit(digits[0], np.ones(len(digits[1]), dtype=int))


def test_images_of_another_shape_are_refused(fitted: Classifier) -> None:
    with pytest.raises(ValueError, match=r"X has images of shape \(8, 9\), the classifier was fitted to \(8, 8\)"):
        fitted.predict(np.zeros((2, 8, 9)))


def test_a_seed_is_drawn_as_scikit_learn_does_and_the_callers_generators_stay(recipe: Recipe) -> None:
    images, labels = load_digits(return_X_y=True)

    def fit(state: Any) -> NDArray[Any]:
        short = Classifier(recipe, epochs=1, random_state=state)
        return short.fit(images[:60], labels[:60]).predict_proba(images[:5])

    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state()
    np.testing.assert_array_equal(fit(np.random.RandomState(3)), fit(np.random.RandomState(3)))
    generator = np.random.RandomState(3)
    assert (fit(generator) != fit(generator)).any()
    assert (fit(None) != fit(None)).any()
    np.testing.assert_array_equal(fit(np.int64(5)), fit(5))
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ValueError, match="cannot be used to seed"):
        fit("five")


def test_held_out_images_calibrate_probabilities(digits, recipe):
    labels = digits[1][:200].copy()
    labels[::3] = 3 + (labels[::3] - 2) % 3  # mistakes, without which nothing is fitted
    fitted = Classifier(recipe, validation_fraction=0.3).fit(digits[0][:200], labels)
    known = fitted.network_.metadata
    assert known.calibration.num_images == known.class_sets.num_images == 60
    assert (
        Classifier(recipe, validation_fraction=0).fit(digits[0][:40], digits[1][:40]).network_.metadata.class_sets
        is None
    )
    with pytest.raises(
        ValueError, match=r"holds out 1 of 40 images, but each of the 3 classes .*: choose one that holds out 3 to 37"
    ):
        Classifier(recipe, validation_fraction=0.004).fit(digits[0][:40], digits[1][:40])
    with pytest.raises(ValueError, match="validation_fraction is 1"):
        Classifier(recipe, validation_fraction=1).fit(digits[0][:40], digits[1][:40])

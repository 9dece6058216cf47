"""scikit-learn's interface: a recipe as an estimator that is fitted to arrays.

Arrays are read like those of an `npz:` file: (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 to 4 channels, channels
last if both are possible; labels of any kind, also one-hot. Rows (N, D) are flattened images of `image_shape`; without
it they are square images, grey or RGB, else images of a single row of pixels. All are resized to the recipe's square.
Integers up to 255 are taken as they are, larger ones run from 0 to the end of the smallest of 10, 12, 14 and 16 bits
that holds them; fractions run from 0 to 1 or, if one is above 127, to 255. All others are mapped linearly, so that the
minimum and maximum of the training images become the ends of the range; later values outside of it are clipped.
Sample weights multiply the loss and are scaled to a mean of 1, so that the learning rate need not change.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from reslab.data.arrays import Layout, find_layout, find_scale, find_white, read_labels
from reslab.data.images import ImageSet
from reslab.data.pictures import with_channels
from reslab.data.recipe_data import HOLD_OUT_SEED
from reslab.data.split import hold_out
from reslab.data.storage.blocks import resize
from reslab.machine import kernels
from reslab.machine.device import pick_device
from reslab.measure.metrics import softmax
from reslab.network.network import Network
from reslab.recipe.recipe import Recipe, derive, parse_recipe
from reslab.recipe.settings import with_fields
from reslab.recipe.shipped import find_recipe
from reslab.runs import Run
from reslab.training.begin import Computing, begin
from reslab.training.distributed import Team
from reslab.training.loop import Trainer


class Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A network trained by a recipe, as a scikit-learn classifier.

    Parameters
    ----------
    recipe : str or Recipe, default "digits-quick"
        A shipped recipe's name or a recipe; its data expression, held-out images and `standardize` are ignored here:
        mean and standard deviation are those of the training images. Its fields are parameters of a search:
        `recipe__optimizer__peak_lr` is what `--set optimizer.peak_lr` changes.
    epochs : int, optional
        Length of the training, as `--epochs` sets it: everything that the recipe counts in epochs or updates is
        scaled, and a limit on its updates is removed.
    image_shape : tuple of int, optional
        (H, W) or (H, W, C) of images that come as flattened rows.
    validation_fraction : float, default 0.0
        The share of the images to hold out for calibrating probabilities. At 0 they are not calibrated, unless the
        recipe has a temperature.
    class_weight : dict or "balanced", optional
        The weight of each class in the loss, 1 for classes not named; `balanced` gives all classes the same total
        weight. It replaces the recipe's `class_weights`.
    out : Path or str, optional
        The run folder to create and keep; by default it is temporary.
    random_state : int, RandomState or None, default 0
        The seed, or a generator to draw it from, as in scikit-learn. PyTorch's generators are not changed.
    device : str, default "auto"
        `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU if there is one.

    Attributes
    ----------
    classes_ : ndarray
        The K classes.
    network_ : Network
        The trained network.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> import reslab
    >>> images, labels = load_digits(n_class=2, return_X_y=True)
    >>> classifier = reslab.Classifier(epochs=1).fit(images[:100], labels[:100])
    >>> classifier.predict_proba(images[:3]).shape
    (3, 2)
    """

    def __init__(
        self,
        recipe: str | Recipe = "digits-quick",
        *,
        epochs: int | None = None,
        image_shape: tuple[int, ...] | None = None,
        validation_fraction: float = 0.0,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        out: Path | str | None = None,
        random_state: int | np.random.RandomState | None = 0,
        device: str = "auto",
    ) -> None:
        self.recipe = recipe
        self.epochs = epochs
        self.image_shape = image_shape
        self.validation_fraction = validation_fraction
        self.class_weight = class_weight
        self.out = out
        self.random_state = random_state
        self.device = device

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def set_params(self, **params: Any) -> Self:
        """Change parameters, and the recipe's fields by `recipe__FIELD`, nested ones with more double underscores.

        Raises: ValueError if there is no such parameter; UserError if a recipe has no such field.
        """
        fields = {name: params.pop(name) for name in list(params) if name.startswith("recipe__")}
        super().set_params(**params)
        if fields:
            self.recipe = with_fields(
                self._find_recipe(),
                [(name.split("__", 1)[1].replace("__", "."), _as_plain(value)) for name, value in fields.items()],
                where="recipe",
            )
        return self

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:  # noqa: N803
        """Train on images and their labels (N,), of any kind that scikit-learn accepts, optionally with weights.

        Images of weight 0 are left out.

        Raises: ValueError if they are not images and classes; UserError if recipe or folder do not allow it.
        """
        if isinstance(y, np.ndarray) and y.ndim == 2 and y.shape[1] > 1:
            y = read_labels(y).values
        numbers, named = validate_data(self, X, y, allow_nd=True, ensure_min_samples=2)
        check_classification_targets(named)
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, numbers)
            if (weights < 0).any() or not weights.any():
                raise ValueError(
                    "sample_weight has negative weights, or none above 0: give each image one of 0 or more"
                )
            numbers, named, weights = (each[weights > 0] for each in (numbers, named, weights))
        self.classes_, labels = np.unique(named, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class, {_as_plain(self.classes_[0])!r}: a classifier needs at least two")
        self.image_shape_ = numbers.shape[1:]
        self.layout_ = self._find_layout(numbers)
        recipe = self._make_recipe(named)
        self.scale_ = find_scale(numbers.dtype, float(numbers.min()), float(numbers.max()), white=recipe.white)
        images = ImageSet(
            images=torch.from_numpy(
                resize(self._to_pixels(numbers, recipe.channels), recipe.image_size, recipe.resize)
            ),
            labels=torch.from_numpy(labels.astype(np.int64)),
            classes=tuple(map(str, self.classes_)),
            expression=recipe.data,
            split="train",
            white=recipe.white or find_white(numbers.dtype, self.scale_),
            weights=None if weights is None else torch.from_numpy(weights).float(),
        )
        with tempfile.TemporaryDirectory() as temporary:
            run = self._train(recipe, self._hold_out(images), Path(self.out or Path(temporary) / "run"))
            self.network_ = Network.load(run.path, device=self.device)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """Return the probabilities (N, K) of the classes, in the order of `classes_`."""
        check_is_fitted(self)
        numbers = validate_data(self, X, reset=False, allow_nd=True)
        if numbers.shape[1:] != self.image_shape_:
            raise ValueError(
                f"X has images of shape {numbers.shape[1:]}, the classifier was fitted to {self.image_shape_}"
            )
        kernels.enable(self.network_.device)
        return softmax(self.network_.logits(torch.from_numpy(self._to_pixels(numbers, self.network_.channels))).numpy())

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Return the most probable class of each image, (N,)."""
        probabilities = self.predict_proba(X)
        named: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return named

    def _find_recipe(self) -> Recipe:
        return self.recipe if isinstance(self.recipe, Recipe) else find_recipe(self.recipe)

    def _make_recipe(self, named: NDArray[Any]) -> Recipe:
        held_out = 1 if self.validation_fraction else 0  # how many is known once the images are split
        if self._find_recipe().early_stopping is not None and not held_out:
            raise ValueError("the recipe stops early by validation images: set validation_fraction")
        changes = {"data": "arrays", "validation": held_out, "trial": False, "standardize": None, "published": None}
        recipe = self._find_recipe() if self.epochs is None else self._find_recipe().lasting(self.epochs)
        weights = {} if self.class_weight is None else {"class_weights": self._weigh_classes(named)}
        return parse_recipe(recipe.model_dump() | changes | weights, where="Classifier")

    def _weigh_classes(self, named: NDArray[Any]) -> Any:
        if isinstance(self.class_weight, Mapping):
            return tuple(compute_class_weight(self.class_weight, classes=self.classes_, y=named).tolist())
        return self.class_weight

    def _hold_out(self, images: ImageSet) -> tuple[ImageSet, ...]:
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"validation_fraction is {self.validation_fraction}: choose one from 0 to below 1")
        if not self.validation_fraction:
            return (images,)
        total, least = len(images.labels), len(images.classes)
        num = max(1, round(self.validation_fraction * total))  # what is asked for is never dropped
        if 2 * least <= total and not least <= num <= total - least:
            raise ValueError(
                f"validation_fraction={self.validation_fraction} holds out {num:,} of {total:,} images, but each of "
                f"the {least} classes needs one on both sides: choose one that holds out {least:,} to {total - least:,}"
            )
        return hold_out(images, num, seed=HOLD_OUT_SEED)

    def _train(self, recipe: Recipe, splits: tuple[ImageSet, ...], out: Path) -> Run:
        team = Team(pick_device(self.device))
        recipe = derive(recipe, name=recipe.name, validation=sum(len(each.labels) for each in splits[1:]))
        training = _scale_weights(splits[0])
        with begin(
            recipe,
            out=out,
            seed=self._draw_seed(),
            team=team,
            read=lambda: (training, *splits[1:]),
            computing=Computing(),
        ) as begun:
            return Trainer(begun, silent=True).train()

    def _draw_seed(self) -> int:
        """Return `random_state` if it is a number, else draw a seed from it."""
        generator = check_random_state(self.random_state)
        if isinstance(self.random_state, Integral):
            return int(self.random_state)
        return int(generator.randint(2**31))

    def _find_layout(self, numbers: NDArray[Any]) -> Layout:
        layout = find_layout(numbers.shape, image_shape=self.image_shape, rows=numbers)
        if layout is None and numbers.ndim == 2 and self.image_shape is None:
            layout = Layout((1, numbers.shape[1]))
        if layout is None:
            raise ValueError(
                f"X has rows of {numbers.shape[1]} numbers, which are not images of image_shape {self.image_shape}"
                if numbers.ndim == 2
                else f"X has shape {numbers.shape}: images are (N, H, W), (N, H, W, C) or (N, C, H, W) with C up to 4"
            )
        return layout

    def _to_pixels(self, numbers: NDArray[Any], channels: int | str) -> NDArray[np.uint8]:
        """Convert scikit-learn's input to stored images (N, C, H, W)."""
        images = np.ascontiguousarray(self.scale_.apply(self.layout_.arrange(numbers)))
        return with_channels(images, channels) if isinstance(channels, int) else images


def _scale_weights(images: ImageSet) -> ImageSet:
    """Scale the weights to a mean of 1."""
    return images if images.weights is None else replace(images, weights=images.weights / images.weights.mean())


def _as_plain(value: Any) -> Any:
    """Convert a NumPy number, as searches draw them, to a Python number."""
    return value.item() if isinstance(value, np.generic) else value

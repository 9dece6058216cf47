"""scikit-learn's interface: a recipe as an estimator that is fitted to arrays.

Images are (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 to 4 channels; where both could be meant, channels are last.
Rows (N, D) are flattened images of `image_shape`; without it they are square grey images where D is a square, else
images of a single row of pixels. All are resized to the recipe's square.
Pixels that are uint8 are taken as they are. Numbers of other types are mapped linearly to 0 to 255, so that the least
and the greatest value of the training images become the ends; what lies outside of them later is cut off there.
"""

import math
import tempfile
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from reslab.data.images import ImageSet
from reslab.data.storage.blocks import resize
from reslab.machine import kernels
from reslab.machine.device import pick_device
from reslab.measure.metrics import softmax
from reslab.network.network import Network
from reslab.recipe.recipe import Recipe, parse_recipe
from reslab.recipe.shipped import find_recipe
from reslab.runs import Run
from reslab.training.begin import Computing, begin
from reslab.training.distributed import Team
from reslab.training.loop import Trainer

MAX_CHANNELS = 4


class Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A network trained by a recipe, as a scikit-learn classifier.

    Parameters
    ----------
    recipe : str or Recipe, default "digits-quick"
        A shipped recipe's name or a recipe; its data expression and held-out images count for nothing here.
    epochs : int, optional
        Replaces the recipe's number of epochs.
    image_shape : tuple of int, optional
        (H, W) or (H, W, C) of images that come as flattened rows.
    out : Path or str, optional
        The run folder to make and keep; otherwise it is temporary.
    random_state : int, RandomState or None, default 0
        The seed, or what draws it, as in scikit-learn. PyTorch's generators stay as they are.
    device : str, default "auto"
        `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU where there is one.

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
        out: Path | str | None = None,
        random_state: int | np.random.RandomState | None = 0,
        device: str = "auto",
    ) -> None:
        self.recipe = recipe
        self.epochs = epochs
        self.image_shape = image_shape
        self.out = out
        self.random_state = random_state
        self.device = device

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803 - scikit-learn's name
        """Train on images and the label of each, (N,), of any kind that scikit-learn knows.

        Raises: ValueError where they are not images and classes; UserError where recipe or folder do not allow it.
        """
        numbers, named = validate_data(self, X, y, allow_nd=True, ensure_min_samples=2)
        check_classification_targets(named)
        self.classes_, labels = np.unique(named, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y has one class, {self.classes_[0]!r}: a classifier needs at least two")
        self.image_shape_ = numbers.shape[1:]
        self.pixel_range_ = (0.0, 255.0) if numbers.dtype == np.uint8 else (float(numbers.min()), float(numbers.max()))
        recipe = self._make_recipe()
        images = ImageSet(
            images=torch.from_numpy(resize(self._to_pixels(numbers), recipe.image_size)),
            labels=torch.from_numpy(labels.astype(np.int64)),
            classes=tuple(str(name) for name in self.classes_),
            expression=recipe.data,
            split="train",
        )
        with tempfile.TemporaryDirectory() as temporary:
            run = self._train(recipe, images, Path(self.out or Path(temporary) / "run"))
            self.network_ = Network.load(run.path, device=self.device)
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """Give the probabilities (N, K) of the classes, in the order of `classes_`."""
        check_is_fitted(self)
        numbers = validate_data(self, X, reset=False, allow_nd=True)
        if numbers.shape[1:] != self.image_shape_:
            raise ValueError(
                f"X has images of shape {numbers.shape[1:]}, the classifier was fitted to {self.image_shape_}"
            )
        kernels.enable(self.network_.device)
        return softmax(self.network_.logits(torch.from_numpy(self._to_pixels(numbers))).numpy())

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Name the most probable class of each image, (N,)."""
        probabilities = self.predict_proba(X)
        named: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return named

    def _make_recipe(self) -> Recipe:
        recipe = self.recipe if isinstance(self.recipe, Recipe) else find_recipe(self.recipe)
        changes = {"data": "arrays", "validation": 0, "standardize": None, "published": None}
        epochs = {} if self.epochs is None else {"epochs": self.epochs}
        return parse_recipe(recipe.model_dump() | changes | epochs, where="Classifier")

    def _train(self, recipe: Recipe, images: ImageSet, out: Path) -> Run:
        team = Team(pick_device(self.device))
        with begin(
            recipe, out=out, seed=self._draw_seed(), team=team, read=lambda: (images,), computing=Computing()
        ) as begun:
            return Trainer(begun, silent=True).train()

    def _draw_seed(self) -> int:
        """Take a number as it is, and draw one where there is none, or a generator."""
        generator = check_random_state(self.random_state)
        if isinstance(self.random_state, Integral):
            return int(self.random_state)
        return int(generator.randint(2**31))

    def _to_pixels(self, numbers: NDArray[Any]) -> NDArray[np.uint8]:
        """Turn what scikit-learn hands over into stored images (N, C, H, W)."""
        least, greatest = self.pixel_range_
        scaled = (numbers - least) * (255 / ((greatest - least) or 1.0)) if numbers.dtype != np.uint8 else numbers
        pixels = np.rint(scaled).clip(0, 255).astype(np.uint8)
        return np.ascontiguousarray(_put_channels_first(pixels, self.image_shape))


def _put_channels_first(pixels: NDArray[np.uint8], image_shape: tuple[int, ...] | None) -> NDArray[np.uint8]:
    """Turn any of the layouts into (N, C, H, W). Raises: ValueError where it is none of them."""
    if pixels.ndim == 2:
        num = pixels.shape[1]
        side = math.isqrt(num)
        shape = image_shape or ((side, side) if side**2 == num else (1, num))
        if math.prod(shape) != num:
            raise ValueError(f"X has rows of {num} numbers, which are not images of image_shape {shape}")
        pixels = pixels.reshape(-1, *shape)
    if pixels.ndim == 3:
        return pixels[:, None]
    if pixels.ndim == 4 and pixels.shape[3] <= MAX_CHANNELS:
        return pixels.transpose(0, 3, 1, 2)
    if pixels.ndim == 4 and pixels.shape[1] <= MAX_CHANNELS:
        return pixels
    raise ValueError(f"X has shape {pixels.shape}: images are (N, H, W), (N, H, W, C) or (N, C, H, W) with C up to 4")

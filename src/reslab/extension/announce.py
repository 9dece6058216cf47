"""Announcements of an extension before training: class imbalance, duplicate images, expected time."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from reslab.data.check.duplicates import describe_overlap, find_overlap
from reslab.data.images import ImageSet
from reslab.evaluation.copies import MOST_PAIRS
from reslab.extension.fusion import ITERATIONS, PENALTIES
from reslab.models.fusion import FusionClassifier
from reslab.network.network import Network
from reslab.pretrained import BATCH, Pictures, Pretrained
from reslab.recipe.networks import Fusion, Model
from reslab.recipe.recipe import LinearHead, Recipe
from reslab.words import counted

MOST_PROBED = 128  # images used to estimate the time
REPEATED = 50  # times that features are repeated for timing a matrix product, since small products are slower
PASSES = 3  # a training step costs about three forward passes


def describe_classes(images: ImageSet, *, num_old: int, num_remembered: int = 0) -> Iterator[str]:
    """Describe how many training images each new class has, and how many the old ones have or are remembered by."""
    counts = images.counts()
    old, new = counts[:num_old], counts[num_old:]
    named = ", ".join(f"{name} {count:,}" for name, count in zip(images.classes[num_old:], new, strict=True))
    yield f"new classes, with their training images: {named}"
    if max(old) == 0:
        instead = f"; {counted(num_remembered, 'image')} are remembered" if num_remembered else ""
        yield f"old classes: {num_old}, without images{instead}"
        return
    each = f"{max(old):,}" if min(old) == max(old) else f"{min(old) or 'none'} to {max(old):,}"
    ratio = f"{max(counts) / min(new):.3g}"
    beside = "" if ratio == "1" else f"; the largest class has {ratio} times as many as the smallest new one"
    yield f"old classes: {num_old}, with {each} training images each{beside}"


def describe_overlaps(images: ImageSet, *, num_old: int) -> str | None:
    """Describe which training images occur in both old and new classes; None if either has no images."""
    is_old = images.labels < num_old
    if not is_old.any():
        return None
    old, new = images.subset(is_old.nonzero().flatten()), images.subset((~is_old).nonzero().flatten())
    if len(old.labels) * len(new.labels) > MOST_PAIRS:
        return "copies among the old classes and the new ones were not searched: there are too many images"
    return describe_overlap(find_overlap(old, new), first="the old classes", second="the new ones")


def estimate_seconds(network: Network, recipe: Recipe, *, images: ImageSet) -> float:
    """Estimate the training time of `recipe` on this machine from passes over a few images at full size.

    With a pretrained network, its features and solving the head take extra time; cached features cost nothing.
    """
    num_images = len(images.labels)
    probe = images.images[: max(1, min(MOST_PROBED, num_images // 16))]
    module = network.module.base if isinstance(network.module, FusionClassifier) else network.module
    with torch.no_grad():
        per_image = _time(lambda: module.features(network.prepare(probe))) / len(probe)
    if isinstance(recipe.optimizer, LinearHead):
        return per_image * num_images + _estimate_joining(recipe.model, images)
    if recipe.freeze and recipe.freeze[0].parameters == "":
        return per_image * num_images * (2 if recipe.augment else 1)
    drawn = recipe.sampling.images_per_epoch if recipe.sampling else num_images
    tuning = PASSES * per_image * drawn * recipe.epochs * recipe.share_of_pixels
    if isinstance(recipe.model, Fusion):
        return tuning + per_image * num_images + _estimate_joining(recipe.model, images)
    return tuning


def _estimate_joining(model: Model, images: ImageSet) -> float:
    """Estimate the seconds for the pretrained network's features of all images, and for the heads on them."""
    assert isinstance(model, Fusion)
    network = Pretrained(f"efficientnet_lite{model.pretrained.size}", image_size=model.pretrained.resize)
    places = np.unique(np.linspace(0, len(images.labels) - 1, 5 * BATCH).astype(int))  # spread out: some may be cached
    fifth = -(-len(places) // 5)
    starting, few, more = np.split(places, [fifth, 2 * fifth]) if len(places) > 2 else [places] * 3
    network.features(images.images[starting])
    of_few, _ = _time_features(network, images.images[few])
    of_more, features = _time_features(network, images.images[more])
    per_image = max(0.0, of_more - of_few) / max(1, len(more) - fifth)  # without the overhead of each call
    many = torch.from_numpy(features).repeat(REPEATED, 1)
    rows = torch.zeros(len(images.classes), many.shape[1], requires_grad=True)
    per_row = _time(lambda: torch.autograd.grad((many @ rows.T).logsumexp(1).sum(), rows)) / len(many)
    return len(images.labels) * (per_image + per_row * ITERATIONS * (1 + len(PENALTIES)))


def _time_features(network: Pretrained, pictures: Pictures) -> tuple[float, NDArray[np.float32]]:
    began = time.perf_counter()
    features = network.features(pictures)
    return time.perf_counter() - began, features


def _time(compute: Callable[[], object]) -> float:
    """Time the second of two calls, since the first is slower."""
    compute()
    began = time.perf_counter()
    compute()
    return time.perf_counter() - began

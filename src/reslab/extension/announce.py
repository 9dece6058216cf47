"""What an extension says before it trains: how unequal the classes are, which images occur twice, how long it takes."""

import time
from collections.abc import Iterator

import torch

from reslab.data.check.duplicates import describe_overlap, find_overlap
from reslab.data.images import ImageSet
from reslab.network.network import Network
from reslab.recipe.recipe import Recipe
from reslab.words import counted

PROBE = 128  # images that the time is estimated from
PASSES = 3  # a training step costs about three forward passes


def describe_classes(images: ImageSet, *, num_old: int, num_remembered: int = 0) -> Iterator[str]:
    """Say how many training images each new class has, against the old ones, which may be remembered instead."""
    counts = images.counts()
    old, new = counts[:num_old], counts[num_old:]
    named = ", ".join(f"{name} {count:,}" for name, count in zip(images.classes[num_old:], new, strict=True))
    yield f"new classes, with their training images: {named}"
    if max(old) == 0:
        instead = f"; {counted(num_remembered, 'image')} are remembered" if num_remembered else ""
        yield f"old classes: {num_old}, without images{instead}"
        return
    yield (
        f"old classes: {num_old}, with {min(old) or 'none'} to {max(old):,} training images each; "
        f"the largest class has {max(counts) / min(new):.3g} times as many as the smallest new one"
    )


def describe_overlaps(images: ImageSet, *, num_old: int) -> str | None:
    """Say which training images occur among the old and among the new classes, where there are images of both."""
    is_old = images.labels < num_old
    if not is_old.any():
        return None
    old, new = images.subset(is_old.nonzero().flatten()), images.subset((~is_old).nonzero().flatten())
    return describe_overlap(find_overlap(old, new), first="the old classes", second="the new ones")


@torch.no_grad()
def estimate_seconds(network: Network, recipe: Recipe, *, images: ImageSet) -> float:
    """Estimate how long the epochs of `recipe` take here, from a few forward passes at full size."""
    probe = network.prepare(images.images[:PROBE])
    network.module.features(probe)
    began = time.perf_counter()
    network.module.features(probe)
    per_image = (time.perf_counter() - began) / len(probe)
    num_images = recipe.sampling.images_per_epoch if recipe.sampling else len(images.labels)
    if recipe.freeze and recipe.freeze[0].parameters == "":
        return per_image * num_images * (2 if recipe.augment else 1)
    return PASSES * per_image * num_images * recipe.epochs * recipe.share_of_pixels

"""Features of a frozen backbone, computed once, and a head trained on them.

Axes: N images, V variants of each (the image, and its mirror image if the recipe mirrors), D features, K classes.
"""

import time
from collections.abc import Iterator
from math import isfinite

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reslab.data.batches import seeded
from reslab.data.images import ImageSet
from reslab.errors import Failure
from reslab.extension.heads import set_nearest_mean
from reslab.network.network import Network
from reslab.recipe.recipe import Flip, Recipe
from reslab.records import Epoch
from reslab.training.objective import Objective
from reslab.training.optim import rate_at

BATCH = 500


def compute_features(network: Network, images: ImageSet, *, mirrored: bool) -> Tensor:
    """Compute features (N, V, D) float32 on the CPU, with all layers, including batch norm, in evaluation mode."""
    features = []
    for start in range(0, len(images.labels), BATCH):
        chunk = images.images[start : start + BATCH]
        variants = [chunk, chunk.flip(3)] if mirrored else [chunk]
        features.append(torch.stack([network.features(variant) for variant in variants], dim=1))
    return torch.cat(features)


def is_mirrored(recipe: Recipe) -> bool:
    """Return whether the recipe mirrors its training images."""
    return any(isinstance(part, Flip) for part in recipe.augment)


def train_head(
    head: nn.Linear, *, features: Tensor, labels: Tensor, recipe: Recipe, objective: Objective, seed: int
) -> Iterator[Epoch]:
    """Train a fresh head on features (N, V, D), drawing one variant of each image per epoch; yield each epoch.

    Features are standardised during training; the resulting head takes them unstandardised.
    """
    mean, deviation = features.mean((0, 1)), features.std((0, 1)).clamp(min=1e-8)
    layer = nn.Linear(head.in_features, head.out_features)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    probe = _Probe(layer, (features - mean) / deviation, labels, recipe=recipe, objective=objective)
    for epoch in range(recipe.epochs):
        yield probe.train_epoch(epoch, seed=seed)
    with torch.no_grad():
        head.weight.copy_(layer.weight / deviation)
        head.bias.copy_(layer.bias - layer.weight @ (mean / deviation))


def set_head(head: nn.Linear, *, features: Tensor, labels: Tensor) -> Epoch:
    """Set the head to nearest-mean classification of features (N, V, D), logged as one epoch with one update."""
    began = time.perf_counter()
    flat, repeated = features.flatten(0, 1), labels.repeat_interleave(features.shape[1])
    set_nearest_mean(head, features=flat, labels=repeated)
    with torch.no_grad():
        logits = head(flat)
    return as_epoch(logits, repeated, seconds=time.perf_counter() - began)


def as_epoch(logits: Tensor, labels: Tensor, *, seconds: float) -> Epoch:
    """Return the log entry of a solved head, one epoch with one update, from its logits (N, K) on its training data."""
    return Epoch(
        epoch=1,
        updates=1,
        seconds=seconds,
        images_per_second=len(labels) / seconds,
        learning_rate=0.0,
        train_loss=float(F.cross_entropy(logits, labels)),
        train_accuracy=float((logits.argmax(1) == labels).float().mean()),
    )


class _Probe:
    """A head being trained on standardised features (N, V, D)."""

    def __init__(
        self, layer: nn.Linear, features: Tensor, labels: Tensor, *, recipe: Recipe, objective: Objective
    ) -> None:
        self.layer, self.features, self.labels = layer, features, labels
        self.recipe, self.objective = recipe, objective
        self.optimizer = torch.optim.SGD(layer.parameters(), lr=recipe.optimizer.peak_lr, momentum=0.9, nesterov=True)
        self.per_epoch = -(-len(labels) // recipe.batch_size)

    def train_epoch(self, epoch: int, *, seed: int) -> Epoch:
        began, num = time.perf_counter(), len(self.labels)
        generator = seeded(seed, "head", epoch)
        variants = torch.randint(self.features.shape[1], (num,), generator=generator)
        order = torch.randperm(num, generator=generator)
        loss_sum, hits = 0.0, 0
        for place, chosen in enumerate(torch.split(order, self.recipe.batch_size), epoch * self.per_epoch):
            loss, hit = self._update(place, self.features[chosen, variants[chosen]], self.labels[chosen])
            loss_sum, hits = loss_sum + loss * len(chosen), hits + hit
        if not isfinite(loss_sum):
            raise Failure(
                f"the loss is not finite in epoch {epoch + 1}: lower optimizer.peak_lr (now "
                f"{self.recipe.optimizer.peak_lr:g})"
            )
        seconds = time.perf_counter() - began
        return Epoch(
            epoch=epoch + 1,
            updates=(epoch + 1) * self.per_epoch,
            seconds=seconds,
            images_per_second=num / seconds,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            train_loss=loss_sum / num,
            train_accuracy=hits / num,
        )

    def _update(self, place: int, batch: Tensor, labels: Tensor) -> tuple[float, int]:
        total = self.recipe.epochs * self.per_epoch
        rate = rate_at(self.recipe.schedule, update=place, updates_per_epoch=self.per_epoch, total_updates=total)
        self.optimizer.param_groups[0]["lr"] = self.recipe.optimizer.peak_lr * rate
        logits = self.layer(batch)
        loss = self.objective(logits, batch, labels)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.item(), int((logits.argmax(1) == labels).sum())

"""A trained network blended with the frozen one: a weighted mean of both logits, chosen on held-out images.

With enough images, a trained network learns what ImageNet did not teach. The pretrained network is fine-tuned if there
is time for some epochs; otherwise a small network is trained from scratch. Features of a trained network fit the
training images too well for solving a common head, so each network keeps its own head, and only the weight of each in
the logits is chosen.
Axes: N images, C channels, H rows, W columns, K classes.
"""

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from reslab.data.folds import split_folds
from reslab.data.images import ImageSet
from reslab.data.recipe_data import HOLD_OUT_SEED
from reslab.data.split import hold_out
from reslab.errors import Stopped, UserError
from reslab.fitting.choice import (
    Backbone,
    FittedHead,
    compute_views,
    judge,
    stack,
)
from reslab.machine.device import pick_device
from reslab.measure.calibration import fit_temperature_smoothed
from reslab.measure.estimates import share_of
from reslab.measure.metrics import log_loss
from reslab.models.efficientnet_lite import EfficientNetLiteClassifier
from reslab.models.layers import ImageClassifier
from reslab.network.finishing import finish
from reslab.network.network import Network
from reslab.pretrained import standardize_for, start_from
from reslab.pretrained.fusion import compute_fused, fuse
from reslab.pretrained.heads import Head, Integers, solve
from reslab.recipe.networks import EfficientNetLite, Fusion
from reslab.recipe.recipe import AdamW, Cosine, Crop, Flip, Freeze, Recipe, Resize, derive
from reslab.recipe.shipped import find_recipe
from reslab.records import Calibration, Candidate, Epoch
from reslab.training.begin import Computing, begin
from reslab.training.budget import within
from reslab.training.distributed import Team
from reslab.training.loop import Start, Trainer
from reslab.training.safety import Safety
from reslab.words import named

FEWEST_IMAGES = 2000  # with fewer, a tenth of them is too few to choose by
HELD_OUT = 0.1
THAWED_SIZE = 128  # pixels a side
FROZEN_SHARE = 0.5  # of the pretrained network's blocks, the first ones: they detect much the same in all images
FEWEST_EPOCHS = 3  # of fine-tuning, below which training from scratch is better
SCRATCH_SIDES = range(20, 33)  # image sides in pixels for which a network from scratch is made
SCRATCH_IMAGES = 20_000  # minimum for training from scratch
SHARES = tuple(np.linspace(0, 1, 21).tolist())  # candidate weights of the trained network's logits

Logits = NDArray[np.floating]


class Parts(NamedTuple):
    """Training images and held-out images."""

    training: ImageSet
    held_out: ImageSet


@dataclass(frozen=True)
class TrainedShare:
    """A trained network, its weight in the logits, and the temperature of the blend."""

    network: Network  # the trained one
    frozen: Head  # of the frozen network
    share: float
    temperature: float
    log: list[Epoch]
    candidates: list[Candidate]  # the frozen network alone, the trained one alone, both


def count_held_out(images: ImageSet, own: ImageSet | None) -> int:
    """Return how many images to hold out: a tenth, or the validation images that their source brings."""
    return max(1, round(HELD_OUT * len(images.labels))) if own is None else len(own.labels)


def cut(images: ImageSet, own: ImageSet | None, *, num: int) -> Parts:
    """Hold out `num` images, or fewer to keep groups and copies together, or use a source's own validation images.

    Raises: UserError if those lack a class, or a class cannot be divided.
    """
    if own is None:
        return Parts(*hold_out(images, num, seed=HOLD_OUT_SEED))
    if missing := [name for name, count in zip(own.classes, own.counts(), strict=True) if not count]:
        raise UserError(f"{own.expression} has no validation pictures of {named(missing)}: add some")
    return Parts(images, own)


def plan(images: ImageSet, *, minutes: float) -> Recipe:
    """Choose what to train on `images` within `minutes`. Raises: UserError if nothing fits."""

    def fit_in(recipe: Recipe) -> Recipe:
        return within(recipe, minutes=minutes, images=images, device=pick_device("cpu"), precision=precision_of(recipe))

    if not from_scratch_pays(images):
        return fit_in(thaw(images))
    try:
        thawed = fit_in(thaw(images))
    except UserError:
        return fit_in(from_scratch(images))
    num_epochs = (thawed.updates or math.inf) * thawed.batch_size / len(images.labels)
    return thawed if num_epochs >= FEWEST_EPOCHS else fit_in(from_scratch(images))


def from_scratch_pays(images: ImageSet) -> bool:
    """Return whether the images are small and numerous enough for training from scratch."""
    return images.images.shape[2] in SCRATCH_SIDES and len(images.labels) >= SCRATCH_IMAGES


def thaw(images: ImageSet) -> Recipe:
    """Return the recipe that fine-tunes the upper half of the pretrained network with its original statistics.

    Earlier layers have lower rates. benchmarks/thawing.json compares this with fine-tuning all layers.
    """
    side, model = images.images.shape[2], EfficientNetLite(size=0, resize=THAWED_SIZE)
    return Recipe(
        name="thawed",
        source="reslab fit",
        data=images.expression,
        image_size=side,
        standardize=standardize_for(images.images.shape[1]),
        augment=(Flip(), Crop(pixels=max(1, round(side / 10)), fill="reflect")),
        model=model,
        pretrained="efficientnet_lite0",
        optimizer=AdamW(peak_lr=5e-4, layer_decay=0.9, weight_decay=0.02),
        schedule=Cosine(warmup=0.1),
        freeze=tuple(Freeze(parameters=part, epoch=0) for part in _lower_layers(model)),
        freeze_norms=True,
        label_smoothing=0.1,
        epochs=8,
        batch_size=32,
    )


def _lower_layers(options: EfficientNetLite) -> Iterator[str]:
    with torch.device("meta"):
        blocks = EfficientNetLiteClassifier(options, num_classes=1, channels=3).blocks
    yield "stem."
    yield from (f"blocks.{number}." for number in range(round(FROZEN_SHARE * len(blocks))))


def from_scratch(images: ImageSet) -> Recipe:
    """Return a recipe for the fastest of the shipped networks."""
    base = find_recipe("extension-base")
    side = images.images.shape[2]
    sizes = ((each.epoch, round(each.image_size * side / base.image_size)) for each in base.progressive_resizing)
    return derive(
        base,
        name="from-scratch",
        data=images.expression,
        image_size=side,
        validation=0,
        standardize=None,
        progressive_resizing=tuple(Resize(epoch=epoch, image_size=size) for epoch, size in sizes),
    )


def train(parts: Parts, recipe: Recipe, *, seed: int, until: float, silent: bool) -> tuple[Network, list[Epoch]]:
    """Train by a recipe until it ends, at the latest until the `time.monotonic` time `until`.

    Raises: Failure if the loss is not finite; KeyboardInterrupt if it is stopped.
    """
    recipe = derive(recipe, name=recipe.name, validation=len(parts.held_out.labels))
    with tempfile.TemporaryDirectory() as folder:
        try:
            with begin(
                recipe,
                out=Path(folder, "run"),
                seed=seed,
                team=Team(pick_device("cpu")),
                read=lambda: parts,
                computing=Computing("off" if is_depthwise(recipe) else "auto", precision_of(recipe)),
            ) as begun:
                start = Start(begin_thawing(parts.training, recipe)) if recipe.pretrained else None
                run = Trainer(begun, silent=silent, start=start, safety=Safety(until=until)).train()
        except Stopped:  # this temporary run cannot be resumed
            raise KeyboardInterrupt from None
        return Network.load(run.path, device="cpu"), run.log


def begin_thawing(images: ImageSet, recipe: Recipe) -> ImageClassifier:
    """Build the pretrained network with a head fitted while it is frozen (Kumar et al. 2022, arXiv:2202.10054).

    With a random head, the first gradients would undo what the layers below have learned.
    """
    assert recipe.pretrained is not None
    backbone, labels = Backbone(recipe.pretrained, THAWED_SIZE), images.labels.numpy()
    folds = split_folds(labels, images.keys)
    head = judge(compute_views(images, backbone), labels, folds=folds, backbone=backbone, method="lda").head
    sizes = {"num_classes": len(images.classes), "channels": images.images.shape[1]}
    model = start_from(recipe.pretrained, recipe.model, **sizes)
    head.write(model.head)
    return model


def precision_of(recipe: Recipe) -> str:
    """Choose float32 for depthwise convolutions, for which bfloat16 is slower even with hardware support."""
    return "float32" if is_depthwise(recipe) else "auto"


def is_depthwise(recipe: Recipe) -> bool:
    """Return whether the network has depthwise convolutions, which also hardly gain from compiling."""
    return isinstance(recipe.model, EfficientNetLite)


def share_out(found: FittedHead, parts: Parts, trained: Network, log: list[Epoch], recipe: Recipe) -> TrainedShare:
    """Choose the weight of the trained network with the lowest log loss on held-out images, and the temperature.

    The frozen network's head is solved again without them: they must be new to both networks, here and wherever they
    are used later.
    """
    labels = parts.held_out.labels.numpy()
    head = solve_without(found, parts)
    frozen = head.logits(compute_views(parts.held_out, found.backbone)[0])
    own = trained.logits(parts.held_out.images).double().numpy()
    mixed = [share * own + (1 - share) * frozen for share in SHARES]
    temperatures = [fit_temperature_smoothed(logits, labels) for logits in mixed]
    candidates = [
        _judge(found, logits / temperature, labels, recipe=recipe, share=share)
        for logits, temperature, share in zip(mixed, temperatures, SHARES, strict=True)
    ]
    place = best_of(candidates)
    return TrainedShare(
        network=trained,
        frozen=head,
        share=SHARES[place],
        temperature=temperatures[place],
        log=log,
        candidates=[
            candidates[each].model_copy(update={"chosen": each == place})
            for each in sorted({0, len(SHARES) - 1, place})
        ],
    )


def best_of(candidates: list[Candidate]) -> int:
    """Return the index of the candidate with the lowest log loss."""
    return int(np.argmin(np.array([each.log_loss for each in candidates], dtype=np.float64)))


def solve_without(found: FittedHead, parts: Parts) -> Head:
    """Solve a head of the same kind for the frozen network, on all but the held-out images."""
    assert found.candidate.head is not None
    assert isinstance(found.candidate.head.shrinkage, float)
    views, labels = compute_views(parts.training, found.backbone), parts.training.labels.numpy()
    (head,) = solve("lda", *stack(views, labels), strengths=(found.candidate.head.shrinkage,))
    return head


def _judge(found: FittedHead, logits: Logits, labels: Integers, *, recipe: Recipe, share: float) -> Candidate:
    return found.candidate.model_copy(
        update={
            "accuracy": share_of(logits.argmax(1) == labels),
            "log_loss": log_loss(logits, labels),
            "trained": recipe,
            "share": share,
            "num_held_out": len(labels),
            "seconds": 0.0,
        }
    )


def build_network(found: FittedHead, beside: TrainedShare, parts: Parts) -> Network:
    """Combine the frozen and the trained network, joining their heads by their weights."""
    base, num_classes = beside.network, len(beside.network.classes)
    model = base.metadata.model
    assert not isinstance(model, Fusion)
    options = Fusion(base=model, pretrained=found.backbone.options)
    module = fuse(base, options, num_classes=num_classes)
    own = Head(base.module.head.weight.detach().numpy(), base.module.head.bias.detach().numpy())
    join_heads(own, beside.frozen, share=beside.share, temperature=beside.temperature).write(module.head)
    calibration = Calibration(temperature=beside.temperature, num_images=len(parts.held_out.labels))
    metadata = base.metadata.model_copy(update={"model": options, "calibration": calibration})
    network = Network(module, metadata)
    return finish(
        network,
        images=parts.training,
        held_out=parts.held_out,
        features_of=partial(compute_fused, network),
        calibrated=True,
    ).network


def describe(found: FittedHead, beside: TrainedShare, recipe: Recipe, *, validation: int) -> Recipe:
    """Describe both networks as a recipe, derived from that of the trained one."""
    assert found.candidate.head is not None
    assert not isinstance(recipe.model, Fusion)
    return derive(
        recipe,
        name="fit",
        source=f"reslab fit, {recipe.name}",
        validation=validation,
        standardize=beside.network.metadata.standardize,
        model=Fusion(base=recipe.model, pretrained=found.backbone.options),
        pretrained=found.backbone.network,
        optimizer=found.candidate.head,
    )


def whole_log(beside: TrainedShare, *, spent: float) -> list[Epoch]:
    """Return the log of the trained network, with all other time added to its first epoch."""
    first, *rest = beside.log
    other = max(0.0, spent - sum(epoch.seconds for epoch in beside.log))
    return [first.model_copy(update={"seconds": first.seconds + other}), *rest]


def join_heads(first: Head, second: Head, *, share: float, temperature: float) -> Head:
    """Return a head on both networks' features: the first logits weighted by `share`, the second by the rest."""
    weight = np.concatenate([share * first.weight, (1 - share) * second.weight], axis=1)
    return Head(weight, share * first.bias + (1 - share) * second.bias).divided(temperature)

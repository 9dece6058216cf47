"""The parts of a recipe in plain words."""

from collections.abc import Sequence
from typing import assert_never

from reslab.recipe.recipe import (
    AdamW,
    Augment,
    ColorJitter,
    Crop,
    CutMix,
    Extension,
    Flip,
    LinearHead,
    Method,
    Mixing,
    Mixup,
    Muon,
    Optimizer,
    RandomErasing,
    RandomResizedCrop,
    Recipe,
    Sampling,
    Sgd,
    Shift,
    Standardize,
    TrivialAugment,
)
from reslab.words import counted, percent


def augment_words(augment: Sequence[Augment]) -> str:
    """Say what happens to a training image."""
    return "; ".join(_augment_words(part) for part in augment) or "none"


def _augment_words(part: Augment) -> str:
    match part:
        case Flip(alternate=True):
            return "mirrored left to right in every other epoch, each image from its first or its second on"
        case Flip():
            return "mirrored left to right with probability 1/2"
        case Shift():
            return f"shifted by up to {part.fraction:.4g} of the side both ways"
        case Crop():
            fill = "zeros" if part.fill == "zeros" else "reflected pixels"
            return f"padded by {counted(part.pixels, 'pixel')} ({fill}) and cropped at random"
        case RandomResizedCrop(area=area, ratio=ratio):
            return (
                f"a window of {percent(area[0], decimals=0)} to {percent(area[1], decimals=0)} of the area, "
                f"{ratio[0]:.3g} to {ratio[1]:.3g} times as wide as high, stretched to the whole"
            )
        case RandomErasing(probability=probability, area=area):
            return (
                f"with probability {probability:g}, a rectangle of {percent(area[0], decimals=0)} to "
                f"{percent(area[1], decimals=0)} of the area erased"
            )
        case ColorJitter():
            return (
                f"brightness changed by up to {part.brightness:g}, contrast by {part.contrast:g}, saturation by "
                f"{part.saturation:g}"
            )
        case TrivialAugment():
            return "one random operation at a random strength (TrivialAugment)"
        case _:
            assert_never(part)


def mixing_words(mixing: Sequence[Mixing]) -> str:
    """Say how images and labels are blended."""
    names = {Mixup: "mixup", CutMix: "CutMix"}
    return " or ".join(f"{names[type(part)]} with alpha {part.alpha:g}" for part in mixing)


def standardize_words(standardize: Standardize) -> str:
    """Say which mean and standard deviation the pixels are standardised by, in units of the stored pixels."""
    mean = ", ".join(f"{value:.5g}" for value in standardize.mean)
    std = ", ".join(f"{value:.5g}" for value in standardize.std)
    return f"minus {mean}, divided by {std} (per channel, pixels from 0 to 255)"


def optimizer_words(optimizer: Optimizer) -> str:
    """Name an optimizer with its settings."""
    match optimizer:
        case Sgd():
            return _sgd_words(optimizer)
        case Muon():
            return _muon_words(optimizer)
        case AdamW(layer_decay=by):
            below = f", each layer at {by:g} times the rate of the one above it" if by < 1 else ""
            return f"AdamW, weight decay {optimizer.weight_decay:g} on kernels only{below}"
        case LinearHead():
            return f"none: the head is {optimizer.words}, on frozen features"
        case _:
            assert_never(optimizer)


def _muon_words(optimizer: Muon) -> str:
    return (
        f"Muon for the filters, momentum {optimizer.momentum:g}, {counted(optimizer.iterations, 'iteration')}; "
        f"SGD for head and biases, peak rates {optimizer.head_lr:g} and {optimizer.bias_lr:g}, "
        f"Nesterov momentum {optimizer.other_momentum:g}, decay {optimizer.decay:g}"
    )


def _sgd_words(optimizer: Sgd) -> str:
    kind = "Nesterov momentum" if optimizer.nesterov else "momentum"
    where = "kernels only" if optimizer.decay_on == "kernels" else "all parameters"
    decay = f"weight decay {optimizer.weight_decay:g} on {where}" if optimizer.weight_decay else "no weight decay"
    return f"SGD, {kind} {optimizer.momentum:g}, {decay}"


def adjustment_words(strength: float) -> str:
    """Say how far the loss counts all classes as equally frequent."""
    return f"logits adjusted by {strength:g} times the logarithm of each class's share"


def sampling_words(sampling: Sampling) -> str:
    """Say how the images of an epoch are drawn."""
    drawn = f"{counted(sampling.images_per_epoch, 'image')} drawn an epoch"
    match sampling.balance:
        case 0:
            return f"{drawn}, classes as frequent as they are"
        case 1:
            return f"{drawn}, all classes equally often"
        case balance:
            return f"{drawn}, a class of n images in proportion to n to the power of {1 - balance:.4g}"


# ---- extensions

_METHODS: dict[Method, str] = {
    "frozen": "a new head on the base's features, which stay as they are",
    "frozen-balanced": "a new head on the base's features, all classes counted as equally frequent",
    "nearest-mean": "the class of the nearest mean of the base's features, without training",
    "fusion": "a new head on the base's features and a pretrained network's, side by side, both left as they are",
    "finetune": "all layers trained further",
    "finetune-distill": "all layers trained further, with the base as a second teacher",
    "weight-align": "all layers trained further with the base as a second teacher, then the new classes' weights "
    "made as long as the old ones'",
    "joint": "all classes from scratch",
}


def method_words(method: Method) -> str:
    """Say what a method of extension does."""
    return f"{method}: {_METHODS[method]}"


def old_data_words(extension: Extension) -> str:
    """Say which images of the old classes training saw."""
    match extension.old_data:
        case "all":
            return "all training images of the old classes"
        case "none":
            return "no image of an old class"
        case int():
            return f"at most {counted(extension.old_data, 'image')} of each old class"
        case _:
            assert_never(extension.old_data)


def distill_words(extension: Extension) -> str:
    """Say how much the base's opinion counts."""
    return (
        f"the base's opinion with weight {extension.distill:g} beside the labels, temperature {extension.temperature:g}"
    )


def class_weights_words(recipe: Recipe) -> str:
    """Say how much each class counts in the loss."""
    weights = recipe.class_weights
    return ", ".join(f"{each:g}" for each in weights) if isinstance(weights, tuple) else str(weights)

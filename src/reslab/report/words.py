"""The parts of a recipe in plain words."""

from collections.abc import Sequence
from typing import assert_never

from reslab.language import say, series, short
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

MORE = "reslab extend, of a network trained by {base}"  # the source of a recipe that trains a network further


def source_words(source: str) -> str:
    """Translate where a recipe comes from, if it is no citation."""
    base = source.removeprefix(MORE.format(base=""))
    return say(source) if base == source else say(MORE, base=base)


def augment_words(augment: Sequence[Augment]) -> str:
    """Describe the augmentation of a training image."""
    return "; ".join(_augment_words(part) for part in augment) or say("none")


def _augment_words(part: Augment) -> str:
    match part:
        case Flip(alternate=True):
            return say("mirrored left to right in every other epoch, each image from its first or its second on")
        case Flip():
            return say("mirrored left to right with probability 1/2")
        case Shift():
            return say("shifted by up to {part} of the side both ways", part=short(part.fraction, 4))
        case Crop():
            fill = say("zeros") if part.fill == "zeros" else say("reflected pixels")
            return say(
                "padded by {pixels} ({fill}) and cropped at random", pixels=counted(part.pixels, "pixel"), fill=fill
            )
        case RandomResizedCrop(area=area, ratio=ratio):
            return say(
                "a window of {low} to {high} of the area, {narrow} to {wide} times as wide as high, stretched to the "
                "whole",
                low=percent(area[0], decimals=0),
                high=percent(area[1], decimals=0),
                narrow=short(ratio[0], 3),
                wide=short(ratio[1], 3),
            )
        case RandomErasing(probability=probability, area=area):
            return say(
                "with probability {probability}, a rectangle of {low} to {high} of the area erased",
                probability=short(probability),
                low=percent(area[0], decimals=0),
                high=percent(area[1], decimals=0),
            )
        case ColorJitter():
            return say(
                "brightness changed by up to {brightness}, contrast by {contrast}, saturation by {saturation}",
                brightness=short(part.brightness),
                contrast=short(part.contrast),
                saturation=short(part.saturation),
            )
        case TrivialAugment():
            return say("one random operation at a random strength (TrivialAugment)")
        case _:
            assert_never(part)


def mixing_words(mixing: Sequence[Mixing]) -> str:
    """Say how images and labels are blended."""
    names = {Mixup: "mixup", CutMix: "CutMix"}
    parts = (say("{name} with alpha {alpha}", name=names[type(part)], alpha=short(part.alpha)) for part in mixing)
    return f" {say('or')} ".join(parts)


def standardize_words(standardize: Standardize) -> str:
    """Say which mean and standard deviation the pixels are standardised by, in units of the stored pixels."""
    mean, std = series(standardize.mean, 5), series(standardize.std, 5)
    return say("minus {mean}, divided by {std} (per channel, pixels from 0 to 255)", mean=mean, std=std)


def optimizer_words(optimizer: Optimizer) -> str:
    """Name an optimizer with its settings."""
    match optimizer:
        case Sgd():
            return _sgd_words(optimizer)
        case Muon():
            return _muon_words(optimizer)
        case AdamW(layer_decay=by):
            below = (
                say(", each layer at {factor} times the rate of the one above it", factor=short(by)) if by < 1 else ""
            )
            return say("AdamW, weight decay {decay} on kernels only", decay=short(optimizer.weight_decay)) + below
        case LinearHead():
            return say("none: the head is {head}, on frozen features", head=optimizer.words)
        case _:
            assert_never(optimizer)


def _muon_words(optimizer: Muon) -> str:
    return say(
        "Muon for the filters, momentum {momentum}, {iterations}; SGD for head and biases, peak rates {head} and "
        "{bias}, Nesterov momentum {other}, decay {decay}",
        momentum=short(optimizer.momentum),
        iterations=counted(optimizer.iterations, "iteration"),
        head=short(optimizer.head_lr),
        bias=short(optimizer.bias_lr),
        other=short(optimizer.other_momentum),
        decay=short(optimizer.decay),
    )


def _sgd_words(optimizer: Sgd) -> str:
    kind = say("Nesterov momentum") if optimizer.nesterov else say("momentum")
    where = say("kernels only") if optimizer.decay_on == "kernels" else say("all parameters")
    decay = (
        say("weight decay {decay} on {where}", decay=short(optimizer.weight_decay), where=where)
        if optimizer.weight_decay
        else say("no weight decay")
    )
    return f"SGD, {kind} {short(optimizer.momentum)}, {decay}"


def adjustment_words(strength: float) -> str:
    """Describe how far the loss treats all classes as equally frequent."""
    return say("logits adjusted by {strength} times the logarithm of each class's share", strength=short(strength))


def sampling_words(sampling: Sampling) -> str:
    """Say how the images of an epoch are drawn."""
    drawn = say("{images} drawn an epoch", images=counted(sampling.images_per_epoch, "image"))
    match sampling.balance:
        case 0:
            return f"{drawn}, {say('classes at their natural frequencies')}"
        case 1:
            return f"{drawn}, {say('all classes equally often')}"
        case balance:
            power = short(1 - balance, 4)
            share = say("a class of n images in proportion to n to the power of {power}", power=power)
            return f"{drawn}, {share}"


# ---- extensions

_METHODS: dict[Method, str] = {
    "frozen": "a new head on the base's features, which stay as they are",
    "frozen-balanced": "a new head on the base's features, all classes counted as equally frequent",
    "nearest-mean": "the class of the nearest mean of the base's features, without training",
    "fusion": "a new head on the base's features and a pretrained network's, side by side, both left as they are",
    "finetune": "all layers trained further",
    "finetune-distill": "all layers trained further, with the base as a second teacher",
    "finetune-fusion": "all layers trained further, with the base as a second teacher, then joined with a pretrained "
    "network, which stays as it is",
    "weight-align": "all layers trained further with the base as a second teacher, then the new classes' weights "
    "made as long as the old ones'",
    "joint": "all classes from scratch",
}


def method_words(method: Method) -> str:
    """Say what a method of extension does."""
    return f"{method}: {say(_METHODS[method])}"


def old_data_words(extension: Extension) -> str:
    """Say which images of the old classes were used in training."""
    match extension.old_data:
        case "all":
            return say("all training images of the old classes")
        case "none" if extension.method == "fusion":
            return say("no image of an old class, but what the base remembered of them")
        case "none":
            return say("no image of an old class")
        case int():
            return say("at most {images} of each old class", images=counted(extension.old_data, "image"))
        case _:
            assert_never(extension.old_data)


def distill_words(extension: Extension) -> str:
    """Say how much the base's predictions count."""
    return say(
        "the base's predictions with weight {weight} alongside the labels, temperature {temperature}",
        weight=short(extension.distill),
        temperature=short(extension.temperature),
    )


def class_weights_words(recipe: Recipe) -> str:
    """Say how much each class counts in the loss."""
    weights = recipe.class_weights
    return series(weights) if isinstance(weights, tuple) else say("balanced")

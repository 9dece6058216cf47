"""The parts of a recipe in plain words."""

from collections.abc import Sequence
from typing import assert_never

from reslab.recipe.recipe import (
    Augment,
    Cosine,
    Crop,
    Extension,
    Flip,
    Freeze,
    Linear,
    Method,
    Muon,
    Optimizer,
    RandomResizedCrop,
    Recipe,
    Sampling,
    Schedule,
    Shift,
    Standardize,
    Steps,
)
from reslab.words import NBSP, counted, listing, percent

NOT_REACHED = "(not reached)"


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
        case _:
            assert_never(part)


def standardize_words(standardize: Standardize) -> str:
    """Say which mean and standard deviation the pixels are standardised by, in units of the stored pixels."""
    mean = ", ".join(f"{value:.5g}" for value in standardize.mean)
    std = ", ".join(f"{value:.5g}" for value in standardize.std)
    return f"minus {mean}, divided by {std} (per channel, pixels from 0 to 255)"


def growth_words(recipe: Recipe, *, epochs: int) -> str:
    """Say at which sizes images were trained on in a run of so many `epochs`, and which it did not come to."""
    sizes = {0: recipe.image_size} | {part.epoch: part.image_size for part in recipe.progressive_resizing}
    later = [f"{size} {_from(epoch)}" for epoch, size in sizes.items() if 0 < epoch < epochs]
    never = [f"{size} {_from(epoch)}" for epoch, size in sizes.items() if epoch and epoch >= epochs]
    first = f"trained at {sizes[0]} pixels a side"
    words = f"{first} at first, at {listing(later)}" if later else first
    return f"{words}; {listing(never)} {NOT_REACHED}" if never else words


def optimizer_words(optimizer: Optimizer) -> str:
    """Name an optimizer with its settings."""
    if isinstance(optimizer, Muon):
        return (
            f"Muon for the filters, momentum {optimizer.momentum:g}, {counted(optimizer.iterations, 'iteration')}; "
            f"SGD for head and biases, peak rates {optimizer.head_lr:g} and {optimizer.bias_lr:g}, "
            f"Nesterov momentum {optimizer.other_momentum:g}, decay {optimizer.decay:g}"
        )
    kind = "Nesterov momentum" if optimizer.nesterov else "momentum"
    where = "kernels only" if optimizer.decay_on == "kernels" else "all parameters"
    decay = f"weight decay {optimizer.weight_decay:g} on {where}" if optimizer.weight_decay else "no weight decay"
    return f"SGD, {kind} {optimizer.momentum:g}, {decay}"


def rate_words(recipe: Recipe, *, epochs: int, updates: int) -> str:
    """Say how the learning rate ran in so many epochs and updates."""
    length = updates if isinstance(recipe.schedule, Steps) and recipe.schedule.unit == "updates" else epochs
    words = _schedule_words(recipe.schedule, recipe.optimizer.peak_lr, length=length)
    if recipe.warm_until is None:
        return words
    until = f"until an epoch ends with a training error under {percent(recipe.warm_until.training_error, decimals=0)}"
    return f"{words}; times {recipe.warm_until.factor:g} {until}"


def _schedule_words(schedule: Schedule, peak: float, *, length: int) -> str:
    match schedule:
        case Steps():
            steps = [(f"{peak * schedule.share_after(i):.3g} after {at:,}", at) for i, at in enumerate(schedule.at, 1)]
            later, never = ([words for words, at in steps if (at < length) == begun] for begun in (True, False))
            first = f"{peak:g}, then {listing(later)} {schedule.unit}" if later else f"{peak:g} throughout"
            return f"{first}; {listing(never)} {schedule.unit} {NOT_REACHED}" if never else first
        case Linear():
            return _rise(schedule.warmup, peak) + f"falls linearly to {peak * schedule.final:.3g}"
        case Cosine():
            return _rise(schedule.warmup, peak) + f"falls along half a cosine to {peak * schedule.final:.3g}"
        case _:
            assert_never(schedule)


def _rise(warmup: float, peak: float) -> str:
    if not warmup:
        return f"starts at {peak:g} and "
    return f"rises linearly to {peak:g} over the first {100 * warmup:.3g}{NBSP}% of the run, then "


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


def freeze_words(freeze: Sequence[Freeze], *, epochs: int) -> str:
    """Say which parameters were not trained in a run of so many `epochs`, and from when."""
    return "; ".join(f"{_frozen(part.parameters)} {_from(part.epoch, reached=epochs)}" for part in freeze)


def _frozen(beginning: str) -> str:
    return f"parameters of {beginning}" if beginning else "all layers below the head"


def _from(epoch: int, *, reached: int | None = None) -> str:
    words = f"after {counted(epoch, 'epoch')}" if epoch else "from the start"
    return words if reached is None or epoch < reached else f"{words} {NOT_REACHED}"


# ---- extensions

_METHODS: dict[Method, str] = {
    "frozen": "a new head on the base's features, which stay as they are",
    "frozen-balanced": "a new head on the base's features, all classes counted as equally frequent",
    "nearest-mean": "the class of the nearest mean of the base's features, without training",
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

"""Numbers and parts of a recipe in plain words."""

from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

from reslab.recipe import (
    Augment,
    Average,
    Cosine,
    Crop,
    DenseNet,
    EfficientNetLite,
    EluResNet,
    Extension,
    FastConv,
    Flip,
    Freeze,
    Growth,
    ImageNetResNet,
    LeNet,
    Linear,
    Method,
    Model,
    Module,
    Muon,
    NiN,
    Optimizer,
    Plain,
    PreActResNet,
    RandomResizedCrop,
    Recipe,
    ResNet,
    ResNeXt,
    Sampling,
    Schedule,
    Selection,
    Shift,
    Standardize,
    Steps,
    Timm,
    Vgg19,
    WideResNet,
)

NBSP = "\u00a0"

# ---- numbers


def percent(value: float, *, decimals: int = 2) -> str:
    """Write a fraction as percent."""
    return f"{100 * value:.{decimals}f}{NBSP}%"


def between(low: float, high: float) -> str:
    """Write a range of fractions in percent, or the one figure where both ends are the same."""
    return percent(low) if low == high else f"{100 * low:.2f}–{percent(high)}"


def certainty(probability: float) -> str:
    """Write a probability in percent without rounding it up to certainty."""
    return percent(probability) if probability < 0.99995 else f"over{NBSP}{percent(0.9999)}"


def duration(seconds: float) -> str:
    """Write a time with its two largest units."""
    if seconds < 59.95:
        return f"{seconds:.1f}{NBSP}s"
    if seconds < 3599.5:
        (large, small), units = divmod(round(seconds), 60), ("min", "s")
    else:
        (large, small), units = divmod(round(seconds / 60), 60), ("h", "min")
    return f"{large}{NBSP}{units[0]}" + (f" {small}{NBSP}{units[1]}" if small else "")


def moment(iso: str) -> str:
    """Write a time stamp (ISO 8601, UTC) to the minute."""
    return datetime.fromisoformat(iso).strftime(f"%Y-%m-%d, %H:%M{NBSP}UTC")


def quantity(number: int) -> str:
    """Write a number of parameters with three figures."""
    return f"{number / 1e6:.3g}{NBSP}M" if number >= 100_000 else f"{number / 1e3:.3g}{NBSP}k"


def counted(number: int, noun: str) -> str:
    """Write how many there are of a thing."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def listing(words: Sequence[str]) -> str:
    """Join words as a sentence does."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 2 else words)


def named(words: Sequence[str], *, most: int = 10) -> str:
    """Join names as a sentence does, the last ones only counted where there are more than `most`."""
    return listing(words if len(words) <= most else [*words[: most - 1], f"{len(words) - most + 1} more"])


def points(difference: float) -> str:
    """Write a difference of fractions in percentage points, with its sign; 0 has none."""
    rounded = round(100 * difference, 2)
    return f"{rounded:+.2f}".replace("-", "\u2212") if rounded else "0.00"


# ---- parts of a recipe


_NAMES = {
    "lenet": "LeNet-5",
    "nin": "Network in Network",
    "vgg19": "VGG-19",
    "wide_resnet": "Wide ResNet",
    "densenet": "DenseNet-BC",
    "resnext": "ResNeXt",
    "imagenet_resnet": "ResNet for large images",
    "efficientnet_lite": "EfficientNet-Lite",
}


def model_words(model: Model) -> str:
    """Name a network with its options."""
    match model:
        case PreActResNet():
            options = [_activation(model.activation), *(["padding as in Keras"] if model.keras_padding else [])]
            name = f"pre-activation ResNet-{model.depth}"
        case ResNet():
            options = [_activation(model.activation), f"shortcuts of option {model.shortcut}"]
            name = f"ResNet-{model.depth}"
        case Plain():
            options, name = [_activation(model.activation)], f"plain network of {model.depth} layers"
        case EluResNet():
            options = [f"blocks {model.block}", f"shortcuts of option {model.shortcut}"]
            name = f"ELU ResNet-{model.depth}"
        case FastConv():
            return f"FastConv (widths {listing([str(width) for width in model.widths])})"
        case LeNet() | NiN() | Vgg19() | WideResNet() | DenseNet() | ResNeXt() | ImageNetResNet() | EfficientNetLite():
            return _zoo_words(model)
        case Module() | Timm():
            options = [f"{name} {value}" for name, value in model.options.items()]
            name = model.name if isinstance(model, Module) else f"timm's {model.name}"
            return f"{name} ({', '.join(options)})" if options else name
        case _:
            assert_never(model)
    return f"{name} ({', '.join([f'width {model.width}', *options])})"


def _zoo_words(
    model: LeNet | NiN | Vgg19 | WideResNet | DenseNet | ResNeXt | ImageNetResNet | EfficientNetLite,
) -> str:
    """Name a network with all its options."""
    options = model.model_dump(mode="json", exclude={"kind"}, exclude_none=True)
    words = [
        f"{'' if value is True else 'no ' if value is False else ''}{name.replace('_', ' ')}"
        + ("" if isinstance(value, bool) else f" {value}")
        for name, value in options.items()
    ]
    return f"{_NAMES[model.kind]} ({', '.join(words)})" if words else _NAMES[model.kind]


def _activation(name: str) -> str:
    return {"relu": "ReLU", "elu": "ELU"}[name]


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
            return f"padded by {part.pixels} pixels ({fill}) and cropped at random"
        case RandomResizedCrop(area=area, ratio=ratio):
            return (
                f"a window of {percent(area[0], decimals=0)} to {percent(area[1], decimals=0)} of the area, "
                f"{ratio[0]:.3g} to {ratio[1]:.3g} times as wide as high, stretched to the whole"
            )
        case _:
            assert_never(part)


def standardize_words(standardize: Standardize) -> str:
    """Say which mean and deviation the pixels lose, in units of the stored pixels."""
    mean = ", ".join(f"{value:.5g}" for value in standardize.mean)
    deviation = ", ".join(f"{value:.5g}" for value in standardize.deviation)
    return f"minus {mean}, divided by {deviation} (per channel, pixels from 0 to 255)"


def growth_words(growth: Sequence[Growth]) -> str:
    """Say at which size images are trained on, and from when."""
    later = [f"{part.image_size} after {part.epoch} epochs" for part in growth[1:]]
    first = f"trained at {growth[0].image_size} pixels a side"
    return f"{first} at first, at {listing(later)}" if later else first


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


def rate_words(recipe: Recipe) -> str:
    """Say how the learning rate runs."""
    words = _schedule_words(recipe.schedule, recipe.optimizer.peak_lr)
    if recipe.warm_until is None:
        return words
    until = f"until an epoch ends with a training error under {percent(recipe.warm_until.training_error, decimals=0)}"
    return f"{words}; times {recipe.warm_until.factor:g} {until}"


def _schedule_words(schedule: Schedule, peak: float) -> str:
    match schedule:
        case Steps():
            later = [f"{peak * schedule.share_after(i):.3g} after {at:,}" for i, at in enumerate(schedule.at, 1)]
            return f"{peak:g}, then {listing(later)} {schedule.unit}" if later else f"{peak:g} throughout"
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


def freeze_words(freeze: Sequence[Freeze]) -> str:
    """Say which parameters are not trained, and from when."""
    return "; ".join(f"{_frozen(part.parameters)} {_from(part.epoch)}" for part in freeze)


def average_words(average: Average) -> str:
    """Say of what the network that was measured is the average."""
    return f"moving average of the weights, {_from(average.epoch)}, {average.decay:g} of it kept at every update"


def selection_words(selection: Selection) -> str:
    """Say which images of a batch are learned from."""
    return f"the {percent(selection.share, decimals=0)} of each batch with the highest loss, {_from(selection.epoch)}"


def _frozen(beginning: str) -> str:
    return f"parameters of {beginning}" if beginning else "all layers below the head"


def _from(epoch: int) -> str:
    return f"after {counted(epoch, 'epoch')}" if epoch else "from the start"


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

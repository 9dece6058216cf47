"""The recipe: what to train and how, as an immutable value with everything that changes a result and nothing else.

Device, paths, seed and number of threads are options of a command. Recipes are read from and written to JSON; there is
no torch here, so reading one is cheap.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from reslab.errors import UserError, check_kind, first_complaint, in_shell
from reslab.language import form_of, grouped, say, short
from reslab.recipe.networks import Fusion, Model
from reslab.recipe.schema import SCHEMA_VERSION, upgrade
from reslab.recipe.shapes import Channels, Resizing
from reslab.recipe.value import Fraction, Part
from reslab.words import NBSP, counted, listing, percent

NOT_REACHED: Final = "(not reached)"
Factor = Annotated[float, Field(gt=0, lt=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Rate = Annotated[float, Field(gt=0, le=1e38)]
Temperature = Annotated[float, Field(ge=0.01, le=1000)]


# ---- image preparation


class Standardize(Part):
    """Subtract `mean` and divide by the standard deviation `std`, per channel, in units of stored pixels (0 to 255)."""

    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(ge=1e-6)], ...]

    @model_validator(mode="after")
    def _same_length(self) -> "Standardize":
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means but {len(self.std)} standard deviations")
        return self


class Flip(Part):
    """Mirror each image left to right with probability 1/2.

    With `alternate` the draw is made once per image; after that it is mirrored in every other epoch.
    """

    kind: Literal["flip"] = "flip"
    alternate: bool = False


class Shift(Part):
    """Shift each image along both axes by a uniform sub-pixel distance up to `fraction` of its side; zeros outside."""

    kind: Literal["shift"] = "shift"
    fraction: Annotated[float, Field(gt=0, lt=1)]


class Crop(Part):
    """Pad by `pixels` on every side and crop a window of the original size at a uniformly drawn pixel."""

    kind: Literal["crop"] = "crop"
    pixels: PositiveInt
    fill: Literal["zeros", "reflect"] = "zeros"


class RandomResizedCrop(Part):
    """Crop a window of random area and aspect ratio, and resize it to the original size.

    `area` bounds its share of the image, `ratio` its width divided by its height, whose logarithm is uniform.
    """

    kind: Literal["random_resized_crop"] = "random_resized_crop"
    area: tuple[PositiveShare, PositiveShare] = (0.08, 1.0)
    ratio: tuple[PositiveFloat, PositiveFloat] = (3 / 4, 4 / 3)

    @model_validator(mode="after")
    def _ends_are_in_order(self) -> "RandomResizedCrop":
        for name, (low, high) in (("area", self.area), ("ratio", self.ratio)):
            if low > high:
                raise ValueError(f"{name} runs from {low:g} down to {high:g}: write the smaller end first")
        return self


class RandomErasing(Part):
    """Fill a rectangle of each image with the mean colour with `probability`; `area` bounds its share of the image."""

    kind: Literal["random_erasing"] = "random_erasing"
    probability: Fraction = 0.25
    area: tuple[PositiveShare, PositiveShare] = (0.02, 1 / 3)


class ColorJitter(Part):
    """Change brightness, contrast and saturation of each image, in this order.

    Each is multiplied by a uniform factor between 1 minus and 1 plus the given number.
    """

    kind: Literal["color_jitter"] = "color_jitter"
    brightness: Fraction = 0.4
    contrast: Fraction = 0.4
    saturation: Fraction = 0.4


class TrivialAugment(Part):
    """Apply one of fourteen operations to each image at a uniform strength, in the wide ranges of arXiv:2103.10158."""

    kind: Literal["trivial_augment"] = "trivial_augment"


Augment = Annotated[
    Flip | Shift | Crop | RandomResizedCrop | RandomErasing | ColorJitter | TrivialAugment,
    Field(discriminator="kind"),
]


class Mixup(Part):
    """Blend each image and its label with another of its batch, with a share drawn from Beta(`alpha`, `alpha`)."""

    kind: Literal["mixup"] = "mixup"
    alpha: PositiveFloat = 0.2


class CutMix(Part):
    """Paste a rectangle of another image of the batch, with a share drawn from Beta(`alpha`, `alpha`).

    The labels are blended by area.
    """

    kind: Literal["cutmix"] = "cutmix"
    alpha: PositiveFloat = 1.0


Mixing = Annotated[Mixup | CutMix, Field(discriminator="kind")]


class Resize(Part):
    """Train at `image_size` pixels a side from `epoch` on (counted from 0), until the next such entry."""

    epoch: NonNegativeInt
    image_size: PositiveInt

    def shortened(self, share: float) -> "Resize":
        """Begin at the same share of a run of `share` of the length."""
        return Resize(epoch=_begun(self.epoch * share), image_size=self.image_size)


# ---- optimisation


class Sgd(Part):
    """Stochastic gradient descent. A penalty of c times the sum of squares is a `weight_decay` of 2c here."""

    kind: Literal["sgd"] = "sgd"
    peak_lr: Rate
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True
    weight_decay: NonNegativeFloat = 0.0
    decay_on: Literal["kernels", "all"] = "kernels"

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "Sgd":
        if self.nesterov and not self.momentum:
            raise ValueError("Nesterov's method needs a momentum above 0: set nesterov to false or the momentum higher")
        return self


class Muon(Part):
    """Orthogonalized momentum for the filters, which keep a constant norm; Nesterov SGD for head and biases.

    `decay` is the product of weight decay and rate for head and biases. All rates are for the mean loss.
    """

    kind: Literal["muon"] = "muon"
    peak_lr: Rate = 0.24
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.6
    iterations: PositiveInt = 3
    head_lr: Annotated[Rate, Field(ge=1e-30)] = 1.0
    bias_lr: Annotated[Rate, Field(ge=1e-30)] = 0.1
    other_momentum: Annotated[float, Field(gt=0, lt=1)] = 0.85
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.004


class AdamW(Part):
    """Adam with decoupled weight decay, for fine-tuning a pretrained network.

    The head has the peak rate, and each layer or block below has `layer_decay` times the rate of the one above.
    """

    kind: Literal["adamw"] = "adamw"
    peak_lr: Rate = 1e-3
    layer_decay: PositiveShare = 1.0
    weight_decay: NonNegativeFloat = 0.01


Chosen = Literal["chosen"]


class LinearHead(Part):
    """Only a head, computed directly from frozen features: there are no updates and no rate.

    `shrinkage` is the share of the covariance that linear discriminant analysis replaces by a multiple of the identity,
    `penalty` is the inverse penalty C of logistic regression on standardized features. With both, the head is the mean
    of the two. "chosen" means chosen on held-out images.
    """

    kind: Literal["linear_head"] = "linear_head"
    shrinkage: PositiveShare | Chosen | None = None
    penalty: PositiveFloat | Chosen | None = None
    peak_lr: ClassVar[float] = 0.0

    @model_validator(mode="after")
    def _has_a_method(self) -> "LinearHead":
        if self.shrinkage is None and self.penalty is None:
            raise ValueError("a linear head needs a shrinkage, a penalty, or both")
        return self

    @property
    def words(self) -> str:
        """Describe the head with its settings."""
        names = [
            *_words(say("discriminant analysis with shrinkage"), self.shrinkage),
            *_words(say("logistic regression with C ="), self.penalty),
        ]
        return say("the mean of {names}", names=listing(names)) if len(names) > 1 else names[0]


def _words(head: str, strength: float | Chosen | None) -> Iterator[str]:
    match strength:
        case None:
            return
        case "chosen":
            yield f"{head.removesuffix(' =')} {say('chosen on held-out images')}"
        case _:
            yield f"{head} {short(strength)}"


Optimizer = Annotated[Sgd | Muon | AdamW | LinearHead, Field(discriminator="kind")]


class Freeze(Part):
    """Stop training the parameters whose names begin with `parameters` from `epoch` on (counted from 0)."""

    parameters: str
    epoch: NonNegativeInt

    def shortened(self, share: float) -> "Freeze":
        """Begin at the same share of a run of `share` of the length."""
        return Freeze(parameters=self.parameters, epoch=_begun(self.epoch * share))

    def words(self, *, epochs: int) -> str:
        """Describe which parameters were not trained in a run of `epochs`, and from when on."""
        below = say("all layers below the head")
        which = say("parameters of {part}", part=self.parameters) if self.parameters else below
        begun = f"{which} {_from(self.epoch)}"
        return begun if self.epoch < epochs else f"{begun} {say(NOT_REACHED)}"


def _from(epoch: int) -> str:
    return say("after {epochs}", epochs=counted(epoch, "epoch")) if epoch else say("from the start")


class Steps(Part):
    """Multiply the rate by `factor` at each of the places `at`, counted from 0 in `unit`; a list has one per place."""

    kind: Literal["steps"] = "steps"
    at: tuple[PositiveInt, ...]
    unit: Literal["epochs", "updates"] = "epochs"
    factor: Factor | tuple[Factor, ...] = 0.1

    @model_validator(mode="after")
    def _one_factor_for_each_place(self) -> "Steps":
        if isinstance(self.factor, tuple) and len(self.factor) != len(self.at):
            raise ValueError(f"{len(self.factor)} factors for {len(self.at)} places: give one for each, or one number")
        return self

    @model_validator(mode="after")
    def _places_are_in_order(self) -> "Steps":
        if self.at != tuple(sorted(self.at)):
            raise ValueError(f"the rate falls at {', '.join(map(str, self.at))}: list the places in order")
        return self

    def share_after(self, num: int) -> float:
        """Return the share of the peak rate left after `num` of the places."""
        return math.prod(self.factor[:num]) if isinstance(self.factor, tuple) else self.factor**num

    def shortened(self, share: float, *, epochs: int, updates: int | None) -> "Steps":
        """Scale the places to a run of `share` of the length, keeping them before its last epoch or update ends."""
        end = epochs if self.unit == "epochs" else updates
        places = (max(1, round(place * share)) for place in self.at)
        at = tuple(place if end is None else min(place, max(1, end - 1)) for place in places)
        return Steps(at=at, unit=self.unit, factor=self.factor)

    def missed(self, *, epochs: int, updates: int) -> tuple[int, ...]:
        """Return the places that a run of the given length does not reach."""
        return tuple(at for at in self.at if at >= (epochs if self.unit == "epochs" else updates))

    def words(self, peak: float, *, epochs: int, updates: int) -> str:
        """Describe how the rate changed from `peak` on in a run of the given length."""
        length = epochs if self.unit == "epochs" else updates
        rates = [short(peak * self.share_after(i), 3) for i in range(1, len(self.at) + 1)]
        steps = [
            (say("{rate} after {place}", rate=rate, place=grouped(at)), at)
            for rate, at in zip(rates, self.at, strict=True)
        ]
        later, never = [words for words, at in steps if at < length], [words for words, at in steps if at >= length]
        unit = form_of(5, self.unit.removesuffix("s"))
        first = (
            say("{peak}, then {steps} {unit}", peak=short(peak), steps=listing(later), unit=unit)
            if later
            else say("{peak} throughout", peak=short(peak))
        )
        return f"{first}; {listing(never)} {unit} {say(NOT_REACHED)}" if never else first


class Linear(Part):
    """Rise linearly over `warmup` of the run, then fall linearly to `final` of the peak one update after the last."""

    kind: Literal["linear"] = "linear"
    warmup: Fraction = 0.0
    final: Fraction = 0.0

    def shortened(self, share: float, *, epochs: int, updates: int | None) -> "Linear":
        """Return it unchanged, since it is defined in shares of the run."""
        return self

    def words(self, peak: float, *, epochs: int, updates: int) -> str:
        """Describe how the rate changed."""
        return _rise(self.warmup, peak) + say("falls linearly towards {end}", end=short(peak * self.final, 3))


class Cosine(Part):
    """Rise linearly over `warmup` of the run, then fall along half a cosine.

    It would reach `final` of the peak one update after the last.
    """

    kind: Literal["cosine"] = "cosine"
    warmup: Fraction = 0.0
    final: Fraction = 0.0

    def shortened(self, share: float, *, epochs: int, updates: int | None) -> "Cosine":
        """Return it unchanged, since it is defined in shares of the run."""
        return self

    def words(self, peak: float, *, epochs: int, updates: int) -> str:
        """Describe how the rate changed."""
        return _rise(self.warmup, peak) + say(
            "falls along half a cosine towards {end}", end=short(peak * self.final, 3)
        )


def _rise(warmup: float, peak: float) -> str:
    if not warmup:
        return say("starts at {peak} and", peak=short(peak)) + " "
    share = f"{short(100 * warmup, 3)}{NBSP}%"
    return say("rises linearly to {peak} over the first {share} of the run, then", peak=short(peak), share=share) + " "


Schedule = Annotated[Steps | Linear | Cosine, Field(discriminator="kind")]


class EarlyStopping(Part):
    """Keep the weights of the epoch with the best validation accuracy, and among equals with the lowest loss.

    With `patience`, end the run after this many epochs without improvement.
    """

    patience: PositiveInt | None = None

    def shortened(self, share: float) -> "EarlyStopping":
        """Scale the patience to a run of `share` of the length; it stays at least one epoch."""
        return EarlyStopping(patience=None if self.patience is None else max(1, round(self.patience * share)))


class WarmUntil(Part):
    """Train at `factor` times the rate until an epoch ends with a training error below `training_error`."""

    factor: Factor = 0.1
    training_error: Fraction = 0.8

    def words(self) -> str:
        """Describe how long the rate was lower, and by how much."""
        return say(
            "times {factor} until an epoch ends with a training error under {error}",
            factor=short(self.factor),
            error=percent(self.training_error, decimals=0),
        )


# ---- class imbalance, and extension


class Sampling(Part):
    """Draw `images_per_epoch` images instead of taking each once.

    A class of n images is drawn with a probability proportional to n to the power of 1 - `balance`: 0 keeps the
    class frequencies, 1 makes them equal.
    """

    images_per_epoch: PositiveInt
    balance: Fraction = 0.0


Method = Literal[
    "frozen",
    "frozen-balanced",
    "nearest-mean",
    "fusion",
    "finetune",
    "finetune-distill",
    "finetune-fusion",
    "weight-align",
    "joint",
]


class Extension(Part):
    """How a network was extended by new classes from another run, the base, whose classes are the first `num_old`."""

    method: Method
    base: str  # SHA-256 of the base's model.safetensors
    base_test: str | None = None  # fingerprint of the test split that the base was evaluated on
    num_old: PositiveInt
    num_old_sources: PositiveInt | None = None  # of the data; None in older versions
    old_data: Literal["all", "none"] | PositiveInt = "all"
    merge: bool = False  # classes of the same name are one class
    keep_old: Literal["exact"] | None = None  # exact: the old classes' logits stay bitwise identical
    backbone_lr: Fraction = 1.0  # times the rate of the head
    distill: NonNegativeFloat = 0.0  # weight of the distillation loss, added to that of the labels
    temperature: Temperature = 2.0  # of distillation
    coming: tuple[NonNegativeInt, ...] | None = (
        None  # expected class frequencies of future pictures; None: as in training
    )
    redrawn: bool = False  # whether official images, or a memory, that calibrate may be of those it was trained on

    @property
    def old_limit(self) -> int | None:
        """The most training images of an old class that are used; None: all."""
        return {"all": None, "none": 0}[self.old_data] if isinstance(self.old_data, str) else self.old_data


class StartingWeights(Part):
    """The file of the starting weights, loaded if names and shapes fit, and its SHA-256."""

    file: str
    sha256: str
    head: bool = False  # whether the head is loaded too, because the classes are the same
    redrawn: bool = False  # whether official images that they were trained on may be held out now


class Imported(Part):
    """Origin of weights not trained by reslab: a file, its SHA-256, and how it was read."""

    file: str
    sha256: str
    map: str


# ---- the whole

NAMES = {"name", "source", "published"}  # fields of a recipe that do not change what it does


class Published(Part):
    """A published result, with which ours is compared.

    Attributes
    ----------
    low : float
        The result as a fraction, or the lower end of a published range.
    high : float
        The same as `low`, or the upper end of the range.
    source : str
        Where to look it up, and where the training differed.
    """

    low: Fraction
    high: Fraction
    source: str

    @model_validator(mode="after")
    def _low_is_lower(self) -> "Published":
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g} and high is {self.high:g}: write the smaller end first")
        return self


class Recipe(Part):
    """Everything that determines a result except the seed: an immutable value, validated on creation.

    Attributes
    ----------
    name : str
        What it is called, and by default its run folder.
    source : str
        Where it comes from.
    published : Published, optional
        The published test accuracy that a run is compared with.
    data : str
        Data expression of the training and test images.
    image_size : int, default 32
        Side in pixels to which images are resized.
    resize : {"squeeze", "pad", "crop"}, default "squeeze"
        Whether pictures that are not square are squeezed, padded with black bars, or cropped to the middle.
    channels : {"auto", 1, 3}, default "auto"
        1 converts images to grey, 3 to RGB; auto keeps them as they are.
    white : int, optional
        The value that is white in grey pictures of more than 8 bits; if not given, found from the training images.
    validation : int, default 0
        How many training images are held out.
    trial : bool, default False
        Whether the run is for choosing settings: measured on its validation images, never on test images.
    standardize : Standardize, optional
        Mean and standard deviation of the pixels; if not given, computed from the training images.
    augment : tuple of Augment
        Augmentations of training images, in order.
    mixing : tuple of Mixing
        Blends of images and labels: one of these is drawn for each batch.
    progressive_resizing : tuple of Resize
        The image size by epoch, smaller ones first.
    model : Model
        The network and its options.
    pretrained : {"efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"}, optional
        The network whose ImageNet weights the layers below the head start from.
    optimizer : Optimizer
        How the weights are updated.
    schedule : Schedule
        How the learning rate changes.
    warm_until : WarmUntil, optional
        A lower rate until the network has begun to learn.
    label_smoothing : float, default 0.0
        Share of each label that is spread evenly over all classes.
    logit_adjustment : float, default 0.0
        At 0 the loss keeps the class frequencies; at 1 all classes count as equally frequent (arXiv:2007.07314).
    class_weights : "balanced" or tuple of float, optional
        Weights of the classes in the loss; balanced gives every class the same total weight.
    early_stopping : EarlyStopping, optional
        Which epoch's weights are kept; if not given, the last.
    freeze : tuple of Freeze
        Layers that stop training.
    freeze_norms : bool, default False
        Whether batch norm keeps its initial statistics, as in evaluation.
    epochs : int
        Number of epochs.
    updates : int, optional
        Number of updates after which the run ends, within an epoch; if not given, after its epochs.
    batch_size : int
        Images per update.
    micro_batch_size : int, optional
        Images whose gradients are computed at a time; batch norm's statistics are those of such a part.
    sampling : Sampling, optional
        Which images an epoch draws; if not given, each once.
    stream : int, optional
        Stream shards in every epoch, and shuffle this many images in memory.
    temperature : float, optional
        Divide the logits by this number if no images are held out to fit it.
    merge : bool, default False
        Whether classes of the same name in several sources are one class.
    skip_damaged : bool, default False
        Whether to leave out damaged pictures, and missing or truncated shards.
    start : StartingWeights, optional
        Set by `reslab train --from`.
    imported : Imported, optional
        Set by `reslab import`, without training.
    extension : Extension, optional
        Set by `reslab extend`.

    Raises
    ------
    ValueError
        If a value is invalid for its field, or fields contradict each other.

    Examples
    --------
    >>> import reslab
    >>> recipe = reslab.RECIPES["digits-quick"]
    >>> recipe.data, recipe.model.kind, recipe.measured_on
    ('digits', 'preact_resnet', 'test')
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    name: str
    source: str
    published: Published | None = None
    data: str
    image_size: PositiveInt = 32
    resize: Resizing = "squeeze"
    channels: Channels = "auto"
    white: PositiveInt | None = None
    validation: NonNegativeInt = 0
    trial: bool = False
    standardize: Standardize | None = None
    augment: tuple[Augment, ...] = ()
    mixing: tuple[Mixing, ...] = ()
    progressive_resizing: tuple[Resize, ...] = ()
    model: Model
    pretrained: Literal["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"] | None = None
    optimizer: Optimizer
    schedule: Schedule
    warm_until: WarmUntil | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    logit_adjustment: Fraction = 0.0
    class_weights: Literal["balanced"] | tuple[PositiveFloat, ...] | None = None
    early_stopping: EarlyStopping | None = None
    freeze: tuple[Freeze, ...] = ()
    freeze_norms: bool = False
    epochs: PositiveInt
    updates: PositiveInt | None = None
    batch_size: PositiveInt
    micro_batch_size: PositiveInt | None = None
    sampling: Sampling | None = None
    stream: PositiveInt | None = None
    temperature: Temperature | None = None
    merge: bool = False
    skip_damaged: bool = False
    start: StartingWeights | None = None
    imported: Imported | None = None
    extension: Extension | None = None

    @model_validator(mode="before")
    @classmethod
    def _reads_older_schemas(cls, content: Any) -> Any:
        return upgrade(content)

    @model_validator(mode="after")
    def _smallest_images_are_large_enough(self) -> "Recipe":
        side = min([self.image_size, *(each.image_size for each in self.progressive_resizing)])
        if side < self.model.smallest_image:
            raise ValueError(
                f"{self.model.kind} needs images of {self.model.smallest_image} pixels or more, not {side}"
            )
        for part in self.augment:
            if isinstance(part, Crop) and part.fill == "reflect" and part.pixels >= side:
                raise ValueError(f"images of {side} pixels cannot be mirrored {part.pixels} pixels wide: crop by less")
        return self

    @model_validator(mode="after")
    def _images_grow_in_order(self) -> "Recipe":
        epochs = [each.epoch for each in self.progressive_resizing]
        if epochs != sorted(set(epochs)):
            listed = ", ".join(map(str, epochs))
            raise ValueError(
                f"progressive_resizing begins its sizes in the epochs {listed}: list them in order, each epoch once"
            )
        return self

    @model_validator(mode="after")
    def _pretrained_fits_model(self) -> "Recipe":
        own = self.model.pretrained if isinstance(self.model, Fusion) else self.model
        if self.pretrained is not None and self.pretrained != own.label:
            raise ValueError(f"the weights of {self.pretrained} do not fit {own.label}: use the same network")
        return self

    @model_validator(mode="after")
    def _early_stopping_holds_images_out(self) -> "Recipe":
        if self.early_stopping is not None and not self.validation:
            raise ValueError(
                "early_stopping chooses an epoch by validation images, and none are held out: set validation, for "
                "example to a tenth of the training images"
            )
        return self

    @model_validator(mode="after")
    def _trial_holds_images_out(self) -> "Recipe":
        if self.trial and not self.validation:
            raise ValueError(
                "a trial is measured on validation images, and none are held out: set validation, for example to a "
                "tenth of the training images"
            )
        return self

    @property
    def measured_on(self) -> Literal["validation", "test"]:
        """The split whose metrics are the result: never the test split for a trial."""
        return "validation" if self.trial else "test"

    @property
    def reading(self) -> tuple[object, ...]:
        """How images are read, which their fingerprints cover too: their form, and whether they are streamed."""
        return self.image_size, self.resize, self.channels, self.white, self.stream is not None

    @model_validator(mode="after")
    def _streams_what_it_can(self) -> "Recipe":
        if self.stream is not None and (self.sampling is not None or self.extension is not None):
            raise ValueError("stream reads shards in their order: omit it, or omit sampling and extension")
        return self

    def image_size_at(self, epoch: int) -> int:
        """Return the image side used for training in `epoch` (from 0)."""
        begun = [each.image_size for each in self.progressive_resizing if each.epoch <= epoch]
        return begun[-1] if begun else self.image_size

    @property
    def share_of_pixels(self) -> float:
        """The mean over epochs of the number of pixels trained on, as a share of full-size images."""
        sizes = map(self.image_size_at, range(self.epochs))
        return sum((size / self.image_size) ** 2 for size in sizes) / self.epochs

    def count_batches(self, num_images: int) -> int:
        """Count the batches of an epoch with so many training images."""
        drawn = self.sampling.images_per_epoch if self.sampling else num_images
        return len(divide_epoch(drawn, self.batch_size))

    def count_updates(self, per_epoch: int) -> int:
        """Count the updates of a run that makes `per_epoch` in each epoch."""
        return min(self.epochs * per_epoch, self.updates or self.epochs * per_epoch)

    def shortened(self, share: float) -> "Recipe":
        """Return a recipe for `share` of the epochs, in (0, 1], rounded up; everything counted in epochs is scaled too.

        The published result is removed. The rate still falls within the run.
        """
        if share == 1:
            return self
        epochs, updates = _at_least_one(self.epochs * share), self.updates and _at_least_one(self.updates * share)
        # The actual share after rounding.
        kept = updates / self.updates if updates and self.updates else epochs / self.epochs
        schedule = self.schedule.shortened(kept, epochs=epochs, updates=updates)
        scaled = {"epochs": epochs, "updates": updates, "schedule": schedule}
        return derive(self, name=f"{self.name}-x{share:g}", **self._scaled(kept), **scaled)

    def lasting(self, epochs: int) -> "Recipe":
        """Return a recipe for so many epochs, fewer or more; everything counted in epochs or updates is scaled too.

        Its name stays; a limit on updates and the published result are removed.

        Raises: UserError for fewer than one epoch.
        """
        if epochs < 1:
            raise UserError(f"epochs should be 1 or more, not {epochs}")
        if epochs == self.epochs and self.updates is None:
            return self
        schedule, share = self.schedule, epochs / self.epochs
        if isinstance(schedule, Steps) and schedule.unit == "updates" and self.updates:
            schedule, share = Steps(at=schedule.at, factor=schedule.factor), epochs / self.updates
        schedule = schedule.shortened(share, epochs=epochs, updates=None)
        scaled = {"epochs": epochs, "updates": None, "schedule": schedule}
        return derive(self, name=self.name, **self._scaled(epochs / self.epochs), **scaled)

    def _scaled(self, share: float) -> dict[str, Any]:
        """Return what changes in a run of `share` of the length beside the length itself."""
        resizes = [each.shortened(share) for each in self.progressive_resizing]
        return {
            "published": None,
            # If two sizes now begin together, use the later one.
            "progressive_resizing": tuple({each.epoch: each for each in resizes}.values()),
            "freeze": tuple(each.shortened(share) for each in self.freeze),
            "early_stopping": self.early_stopping and self.early_stopping.shortened(share),
        }

    def resizing_words(self, *, epochs: int) -> str:
        """Describe the image sizes trained at in a run of `epochs`, and those it did not reach."""
        sizes = {0: self.image_size} | {each.epoch: each.image_size for each in self.progressive_resizing}
        later = [f"{size} {_from(epoch)}" for epoch, size in sizes.items() if 0 < epoch < epochs]
        never = [f"{size} {_from(epoch)}" for epoch, size in sizes.items() if epoch and epoch >= epochs]
        words = (
            say("trained at {size} pixels a side at first, at {later}", size=sizes[0], later=listing(later))
            if later
            else say("trained at {size} pixels a side", size=sizes[0])
        )
        return f"{words}; {listing(never)} {say(NOT_REACHED)}" if never else words

    def rate_words(self, *, epochs: int, updates: int) -> str:
        """Describe how the learning rate changed in a run of the given length."""
        words = self.schedule.words(self.optimizer.peak_lr, epochs=epochs, updates=updates)
        return words if self.warm_until is None else f"{words}; {self.warm_until.words()}"


def _at_least_one(length: float) -> int:
    return max(1, math.ceil(round(length, 6)))


def _begun(place: float) -> int:
    """Return the epoch that a place lies in; a float just below the next epoch is a rounding error."""
    return math.floor(round(place, 6))


def divide_epoch(num_images: int, batch_size: int) -> list[int]:
    """Divide an epoch into batches; the last one may be smaller but is never a single image.

    A single image joins the previous batch, since batch norm needs more than one value.
    """
    whole, left = divmod(num_images, batch_size)
    sizes = [batch_size] * whole
    if left > 1 or not whole:
        return [*sizes, left]
    sizes[-1] += left
    return sizes


def derive(recipe: Recipe, *, name: str, **changes: Any) -> Recipe:
    """Copy a recipe under a new name with some fields replaced.

    Parameters
    ----------
    recipe : Recipe
        The recipe to start from; it stays as it is.
    name : str
        Name of the copy.
    **changes
        Fields of `Recipe` and their new values.

    Returns
    -------
    Recipe
        The copy, validated again. If it does something else than `recipe`, it has no published result unless you give
        one.

    Raises
    ------
    UserError
        If a value is invalid for its field, or fields contradict each other.

    Examples
    --------
    >>> import reslab
    >>> reslab.derive(reslab.find_recipe("digits-quick"), name="longer", epochs=20).epochs
    20
    """
    derived = parse_recipe(recipe.model_dump() | {"name": name} | changes, where=f"recipe {name}")
    if "published" in changes or derived.model_dump(exclude=NAMES) == recipe.model_dump(exclude=NAMES):
        return derived
    return derived.model_copy(update={"published": None})


def read_recipe(path: Path | str) -> Recipe:
    """Read a recipe from a JSON file.

    Parameters
    ----------
    path : Path or str
        The file, such as the `recipe.json` of a run folder.

    Returns
    -------
    Recipe
        The recipe; one of an older schema is brought up to date.

    Raises
    ------
    UserError
        If the file is missing, is not JSON, has a newer schema or is not a valid recipe.

    Examples
    --------
    >>> import reslab
    >>> reslab.read_recipe("runs/digits/recipe.json").data
    'digits:1,4,7@60'
    """
    check_kind(path)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read as a recipe: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a recipe in JSON: {error}") from None
    if isinstance(content, dict) and "rows" in content and "model" not in content:
        raise UserError(f"{path} is a study, not a recipe: run it by reslab study run {in_shell(path)}")
    return parse_recipe(content, where=str(path))


def parse_recipe(content: Any, *, where: str) -> Recipe:
    """Validate JSON-like `content`; `where` names its origin in the error. Raises: UserError."""
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(f"{where} has recipe schema {version}, this reslab reads up to {SCHEMA_VERSION}: upgrade it")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: {first_complaint(error, content)}") from None

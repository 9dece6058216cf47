"""What to train and how, as an immutable value: everything that changes a result, nothing that does not.

Device, paths, seed and number of threads are options of a command. JSON both ways; no torch here, so that reading a
recipe costs nothing.
"""

import json
import math
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from reslab.architectures import DenseNet as DenseNet
from reslab.architectures import EluResNet as EluResNet
from reslab.architectures import FastConv as FastConv
from reslab.architectures import ImageNetResNet as ImageNetResNet
from reslab.architectures import LeNet as LeNet
from reslab.architectures import Model as Model
from reslab.architectures import Module as Module
from reslab.architectures import NiN as NiN
from reslab.architectures import Plain as Plain
from reslab.architectures import PreActResNet as PreActResNet
from reslab.architectures import ResNet as ResNet
from reslab.architectures import ResNeXt as ResNeXt
from reslab.architectures import Timm as Timm
from reslab.architectures import Vgg19 as Vgg19
from reslab.architectures import WideResNet as WideResNet
from reslab.bombs import check_kind
from reslab.complaints import first_complaint
from reslab.errors import UserError
from reslab.part import Fraction as Fraction
from reslab.part import Part as Part

SCHEMA_VERSION: Final = 1
Factor = Annotated[float, Field(gt=0, lt=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]


# ---- images on their way into the network


class Standardize(Part):
    """Subtract `mean`, divide by `deviation`, per channel, in units of the stored pixels (0 to 255)."""

    mean: tuple[float, ...]
    deviation: tuple[PositiveFloat, ...]

    @model_validator(mode="after")
    def _same_length(self) -> "Standardize":
        if len(self.mean) != len(self.deviation):
            raise ValueError(f"{len(self.mean)} means but {len(self.deviation)} deviations")
        return self


class Flip(Part):
    """Mirror each image left to right with probability 1/2.

    With `alternate` the draw is made once for an image; from then on it is mirrored in every other epoch.
    """

    kind: Literal["flip"] = "flip"
    alternate: bool = False


class Shift(Part):
    """Move each image by a uniform, sub-pixel distance of at most `fraction` of its side, both ways; zeros outside."""

    kind: Literal["shift"] = "shift"
    fraction: Annotated[float, Field(gt=0, lt=1)]


class Crop(Part):
    """Pad by `pixels` on every side and cut a window of the old size at a uniform whole-pixel place."""

    kind: Literal["crop"] = "crop"
    pixels: PositiveInt
    fill: Literal["zeros", "reflect"] = "zeros"


class RandomResizedCrop(Part):
    """Cut a window of a random share of the image's area and a random shape, and stretch it to the old size.

    `area` bounds the share, `ratio` the width over the height, whose logarithm is uniform.
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


Augment = Annotated[Flip | Shift | Crop | RandomResizedCrop, Field(discriminator="kind")]


class Growth(Part):
    """Train at `image_size` pixels a side from `epoch` on (counted from 0), until the next of these."""

    epoch: NonNegativeInt
    image_size: PositiveInt


# ---- optimisation


class Sgd(Part):
    """Stochastic gradient descent. A penalty of c times the sum of squares is a `weight_decay` of 2c here."""

    kind: Literal["sgd"] = "sgd"
    peak_lr: PositiveFloat
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
    """Orthogonalised momentum for the filters, which keep a constant norm; Nesterov SGD for head and biases.

    `decay` is the weight decay of head and biases times their rate. Every rate is for the mean loss.
    """

    kind: Literal["muon"] = "muon"
    peak_lr: PositiveFloat = 0.24
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.6
    iterations: PositiveInt = 3
    head_lr: PositiveFloat = 1.0
    bias_lr: PositiveFloat = 0.1
    other_momentum: Annotated[float, Field(gt=0, lt=1)] = 0.85
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.004


Optimizer = Annotated[Sgd | Muon, Field(discriminator="kind")]


class Freeze(Part):
    """Stop training the parameters whose names begin with `parameters` from `epoch` on (counted from 0)."""

    parameters: str
    epoch: NonNegativeInt


class Average(Part):
    """Hand over a moving average of the network, begun in `epoch` (counted from 0), in place of the network itself.

    After every update it is `decay` of what it was and 1 - `decay` of the network as it is now, batch norm's running
    statistics like the weights. It is what is validated, evaluated and written; the network trains on beside it.
    """

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    epoch: NonNegativeInt = 0


class Selection(Part):
    """Learn from the `share` of each batch with the highest loss alone, from `epoch` on (counted from 0).

    A pass without gradients, as in evaluation, finds them; the log then has its figures of all images.
    """

    share: Factor = 0.5
    epoch: NonNegativeInt = 0


class Steps(Part):
    """Multiply the rate by `factor` at each place, counted from 0 in epochs or in updates; or by a factor for each."""

    kind: Literal["steps"] = "steps"
    at: tuple[PositiveInt, ...]
    unit: Literal["epochs", "updates"] = "epochs"
    factor: Factor | tuple[Factor, ...] = 0.1

    @model_validator(mode="after")
    def _one_factor_for_each_place(self) -> "Steps":
        if isinstance(self.factor, tuple) and len(self.factor) != len(self.at):
            raise ValueError(f"{len(self.factor)} factors for {len(self.at)} places: give one for each, or one number")
        return self

    def share_after(self, num: int) -> float:
        """Give the share of the peak rate that is left after `num` of the places."""
        return math.prod(self.factor[:num]) if isinstance(self.factor, tuple) else self.factor**num


class Linear(Part):
    """Rise linearly over `warmup` of the run, then fall linearly to `final` of the peak at the last update."""

    kind: Literal["linear"] = "linear"
    warmup: Fraction = 0.0
    final: Fraction = 0.0


class Cosine(Part):
    """Rise linearly over `warmup` of the run, then fall along half a cosine to `final` of the peak."""

    kind: Literal["cosine"] = "cosine"
    warmup: Fraction = 0.0
    final: Fraction = 0.0


Schedule = Annotated[Steps | Linear | Cosine, Field(discriminator="kind")]


class WarmUntil(Part):
    """Train at `factor` of the rate until an epoch ends with a training error under `training_error`."""

    factor: Factor = 0.1
    training_error: Fraction = 0.8


# ---- unequal classes, and classes that come later


class Sampling(Part):
    """Draw `images_per_epoch` images instead of taking each once.

    A class of n images is drawn with a probability in proportion to n to the power of 1 - `balance`: 0 keeps the
    classes as unequal as they are, 1 makes them equal.
    """

    images_per_epoch: PositiveInt
    balance: Fraction = 0.0


Method = Literal["frozen", "frozen-balanced", "nearest-mean", "finetune", "finetune-distill", "weight-align", "joint"]


class Extension(Part):
    """How the network of another run, the base, was taught new classes; its own are the first `num_old` ones."""

    method: Method
    base: str  # SHA-256 of the base's model.safetensors
    num_old: PositiveInt
    old_data: Literal["all", "none"] | PositiveInt = "all"
    merge: bool = False  # classes of one name are one class
    backbone_lr: Fraction = 1.0  # times the rate of the head
    distill: NonNegativeFloat = 0.0  # weight of the base's opinion beside the labels
    temperature: PositiveFloat = 2.0  # of that opinion


# ---- the whole


class Published(Part):
    """A figure of the field for this very recipe: test accuracy between `low` and `high` (equal where one is given)."""

    low: Fraction
    high: Fraction
    source: str


class Recipe(Part):
    """Everything that decides a result, apart from the seed."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    source: str
    published: Published | None = None
    data: str
    image_size: PositiveInt = 32
    validation: NonNegativeInt = 0
    standardize: Standardize | None = None  # None: mean and deviation of the training images
    augment: tuple[Augment, ...] = ()
    growth: tuple[Growth, ...] = ()  # smaller images at first: a quarter of the pixels is a quarter of the arithmetic
    model: Model
    optimizer: Optimizer
    schedule: Schedule
    warm_until: WarmUntil | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    logit_adjustment: Fraction = 0.0  # 1: the loss counts all classes as equally frequent (arXiv:2007.07314)
    freeze: tuple[Freeze, ...] = ()
    average: Average | None = None
    selection: Selection | None = None
    epochs: PositiveInt
    updates: PositiveInt | None = None  # ends the run earlier, inside an epoch
    batch_size: PositiveInt
    chunk_size: PositiveInt | None = None  # images held at once; batch norm's statistics are then those of a chunk
    sampling: Sampling | None = None
    stream: PositiveInt | None = None  # from shards, in every epoch anew: so many images are in memory and shuffled
    skip_damaged: bool = False  # whether shards that are missing or cut short are left out
    extension: Extension | None = None  # of a trained network, by `reslab extend`

    @model_validator(mode="after")
    def _smallest_images_are_large_enough(self) -> "Recipe":
        side = min([self.image_size, *(growth.image_size for growth in self.growth)])
        if side < self.model.SMALLEST_IMAGE:
            raise ValueError(
                f"{self.model.kind} needs images of {self.model.SMALLEST_IMAGE} pixels or more, not {side}"
            )
        for part in self.augment:
            if isinstance(part, Crop) and part.fill == "reflect" and part.pixels >= side:
                raise ValueError(f"images of {side} pixels cannot be mirrored {part.pixels} pixels wide: crop by less")
        return self

    @model_validator(mode="after")
    def _streams_what_it_can(self) -> "Recipe":
        if self.stream is not None and (self.sampling is not None or self.extension is not None):
            raise ValueError("stream goes through shards in their order: leave it away, or sampling and extension")
        return self


def derive(recipe: Recipe, *, name: str, **changes: Any) -> Recipe:
    """Copy `recipe` under a new name with some fields replaced, validated again."""
    return Recipe.model_validate(recipe.model_dump() | {"name": name} | changes)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file. Raises: UserError where it is missing, is not JSON, has a newer schema or does not fit it."""
    check_kind(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read as a recipe: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a recipe in JSON: {error}") from None
    return parse_recipe(content, where=str(path))


def parse_recipe(content: Any, *, where: str) -> Recipe:
    """Validate JSON-like `content`; `where` names its origin in the error. Raises: UserError."""
    version = content.get("schema_version", SCHEMA_VERSION) if isinstance(content, dict) else SCHEMA_VERSION
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(f"{where} has recipe schema {version}, this reslab reads up to {SCHEMA_VERSION}: upgrade it")
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: {first_complaint(error, content)}") from None

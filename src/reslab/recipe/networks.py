"""Descriptions of networks in recipes: options, their defaults and allowed values, names for tables and reports.

A network takes its description: `NETWORK` names the class in `reslab.models`, whose module explains the options.
`Model` is any of the descriptions, `MODELS` has those of known networks by name.
"""

from collections.abc import Collection, Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from reslab.language import say, short
from reslab.recipe.value import Part
from reslab.words import counted, listing

Depth = Annotated[int, Field(ge=8)]
Activation = Literal["relu", "elu"]
# PyTorch 2.13 on AVX2 writes past the end of a buffer in the gradient of a channels-last 1x1 convolution with
# stride 2 over 4 channels; with multiples of 8 it does not.
Width = Annotated[int, Field(ge=8, le=1_000_000_000, multiple_of=8)]
Multiple = Annotated[int, Field(ge=1, le=1024)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Architecture(Part):
    """A network and its options; `label` names it in a table, `words` in a report."""

    NETWORK: ClassVar[str]  # the class that builds it, as module:Class in reslab.models
    FAMILY: ClassVar[str]  # its name in a sentence
    SMALLEST_IMAGE: ClassVar = 1  # side in pixels: smaller images would shrink to nothing

    @property
    def smallest_image(self) -> int:
        """Side in pixels of the smallest images that it takes."""
        return self.SMALLEST_IMAGE

    @property
    def label(self) -> str:
        """The name in a table."""
        return str(type(self).model_fields["kind"].default)

    @property
    def title(self) -> str:
        """The name in a sentence."""
        return self.FAMILY

    @property
    def words(self) -> str:
        """The name in a report, with every option."""
        options = ", ".join(self._option_words())
        return f"{say(self.title)} ({options})" if options else say(self.title)

    @property
    def label_and_options(self) -> str:
        """The name in a table, with the options that differ from the defaults."""
        defaults = {name for name, field in type(self).model_fields.items() if getattr(self, name) == field.default}
        options = ", ".join(self._option_words(without=defaults | {"depth", "size"}))  # the label has both
        return f"{self.label} ({options})" if options else self.label

    def _option_words(self, *, without: Collection[str] = ()) -> Iterator[str]:
        for name, field in type(self).model_fields.items():
            if name in without:
                continue
            match name, getattr(self, name):
                case ("kind", _) | (_, None | False):
                    pass
                case "depth", value:
                    yield counted(value, "layer")
                case _, value:
                    option = say(field.title or name.replace("_", " "))
                    yield option if value is True else f"{option} {_value_words(value)}"


def _value_words(value: Any) -> str:
    if isinstance(value, tuple):
        return listing([str(each) for each in value])
    if isinstance(value, float):
        return short(value)
    return {"relu": "ReLU", "elu": "ELU"}.get(value, str(value))


class Deep(Architecture):
    """A network of `depth` layers: `STEP` for each block per stage, and `REST` others."""

    STEP: ClassVar = 6
    REST: ClassVar = 2

    depth: Depth

    @property
    def label(self) -> str:
        """The name in a table."""
        return f"{super().label}{self.depth}"

    @model_validator(mode="after")
    def _depth_is_whole_blocks(self) -> "Deep":
        if over := (self.depth - self.REST) % self.STEP:
            below = self.depth - over
            raise ValueError(
                f"depth {self.depth} is not {self.STEP}n+{self.REST}; the nearest are {below} and {below + self.STEP}"
            )
        return self


# ---- for images of 32 pixels


class Residual(Deep):
    """Base of the families of depth 6n+2: three stages of `width`, 2 `width` and 4 `width` channels."""

    width: Width = 16


class PreActResNet(Residual):
    NETWORK: ClassVar = "preact_resnet:PreActResNetClassifier"
    FAMILY: ClassVar = "pre-activation ResNet"

    kind: Literal["preact_resnet"] = "preact_resnet"
    activation: Activation = "relu"
    keras_padding: bool = Field(default=False, title="Keras padding")


class ResNet(Residual):
    NETWORK: ClassVar = "resnet:ResNetClassifier"
    FAMILY: ClassVar = "ResNet"

    kind: Literal["resnet"] = "resnet"
    activation: Activation = "relu"
    shortcut: Literal["A", "B"] = "A"


class Plain(Residual):
    NETWORK: ClassVar = "plain:PlainClassifier"
    FAMILY: ClassVar = "plain network"

    kind: Literal["plain"] = "plain"
    activation: Activation = "relu"


class EluResNet(Residual):
    NETWORK: ClassVar = "elu_resnet:EluResNetClassifier"
    FAMILY: ClassVar = "ELU ResNet"

    kind: Literal["elu_resnet"] = "elu_resnet"
    block: Literal["conv-elu-conv-bn", "elu-after-addition", "bn-before-elu", "conv-bn-elu"] = "conv-elu-conv-bn"
    shortcut: Literal["A", "B"] = "A"


class FastConv(Architecture):
    NETWORK: ClassVar = "fast_conv:FastConvClassifier"
    FAMILY: ClassVar = "FastConv"
    SMALLEST_IMAGE: ClassVar = 9

    kind: Literal["fast_conv"] = "fast_conv"
    widths: tuple[Width, Width, Width] = (64, 256, 256)


class LeNet(Architecture):
    NETWORK: ClassVar = "lenet:LeNetClassifier"
    FAMILY: ClassVar = "LeNet-5"
    SMALLEST_IMAGE: ClassVar = 16

    kind: Literal["lenet"] = "lenet"


class NiN(Architecture):
    NETWORK: ClassVar = "nin:NiNClassifier"
    FAMILY: ClassVar = "Network in Network"
    SMALLEST_IMAGE: ClassVar = 4

    kind: Literal["nin"] = "nin"
    dropout: Share = 0.5


class Vgg19(Architecture):
    NETWORK: ClassVar = "vgg19:Vgg19Classifier"
    FAMILY: ClassVar = "VGG-19"

    kind: Literal["vgg19"] = "vgg19"
    width: Width = 64
    hidden: Width = Field(default=4096, title="hidden width")
    dropout: Share = 0.5


class WideResNet(Deep):
    NETWORK: ClassVar = "wide_resnet:WideResNetClassifier"
    FAMILY: ClassVar = "Wide ResNet"
    REST: ClassVar = 4

    kind: Literal["wide_resnet"] = "wide_resnet"
    depth: Annotated[int, Field(ge=10)]
    widening: Multiple
    project_every_block: bool = Field(default=False, title="a projection around every block")

    @property
    def label(self) -> str:
        """The name in a table."""
        return f"{super().label}-{self.widening}"


class DenseNet(Deep):
    NETWORK: ClassVar = "densenet:DenseNetClassifier"
    FAMILY: ClassVar = "DenseNet-BC"
    REST: ClassVar = 4

    kind: Literal["densenet"] = "densenet"
    depth: Annotated[int, Field(ge=10)]
    growth: Annotated[int, Field(ge=4, le=65_536, multiple_of=4)]
    last_transition: bool = Field(default=False, title="a transition after the last block")

    @property
    def label(self) -> str:
        """The name in a table."""
        return f"{super().label}-{self.growth}"


class ResNeXt(Deep):
    NETWORK: ClassVar = "resnext:ResNeXtClassifier"
    FAMILY: ClassVar = "ResNeXt"
    STEP: ClassVar = 9

    kind: Literal["resnext"] = "resnext"
    depth: Annotated[int, Field(ge=11)]
    cardinality: Multiple
    width: Width
    reduction: PositiveInt | None = None
    keras_script: bool = Field(default=False, title="variations of the Keras script")

    @property
    def label(self) -> str:
        """The name in a table."""
        se = "" if self.reduction is None else "se_"
        return f"{se}{super().label}-{self.cardinality}x{self.width}d"

    @model_validator(mode="after")
    def _reduction_leaves_something(self) -> "ResNeXt":
        if self.reduction is not None and self.reduction > 256:
            raise ValueError(f"a reduction of {self.reduction} leaves nothing of the first stage's 256 channels")
        return self


# ---- for images of 224 pixels


class ImageNetResNet(Architecture):
    NETWORK: ClassVar = "imagenet_resnet:ImageNetResNetClassifier"
    FAMILY: ClassVar = "ImageNet ResNet"

    kind: Literal["imagenet_resnet"] = "imagenet_resnet"
    depth: Literal[18, 34, 50, 101, 152]
    width: Width = 64
    shortcut: Literal["A", "B"] = "B"
    stride_in: Literal["1x1", "3x3"] = "1x1"
    stem: Literal["large", "small"] = "large"

    @property
    def label(self) -> str:
        """The name in a table."""
        return f"{super().label}{self.depth}"


class EfficientNetLite(Architecture):
    NETWORK: ClassVar = "efficientnet_lite:EfficientNetLiteClassifier"
    FAMILY: ClassVar = "EfficientNet-Lite"

    kind: Literal["efficientnet_lite"] = "efficientnet_lite"
    size: Literal[0, 1, 2] = 0
    dropout: Share = 0.2
    resize: PositiveInt | None = Field(default=None, title="images resized to a side of")

    @property
    def label(self) -> str:
        """The name in a table."""
        return f"{super().label}{self.size}"


# ---- external


class Foreign(Architecture):
    """An external network; `options` are passed to its constructor."""

    options: dict[str, bool | int | float | str] = Field(default={})

    def __hash__(self) -> int:
        return hash((type(self), self.label, tuple(self.options.items())))

    def _option_words(self, *, without: Collection[str] = ()) -> Iterator[str]:
        return (f"{name} {value}" for name, value in self.options.items() if name not in without)


class Module(Foreign):
    """A user's own class, package.module:Class."""

    NETWORK: ClassVar = "foreign:build_module"

    kind: Literal["module"] = "module"
    name: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", max_length=200)]

    @property
    def label(self) -> str:
        """The name in a table."""
        return self.name.partition(":")[2]

    @property
    def title(self) -> str:
        """The name in a sentence."""
        return self.name


class Timm(Foreign):
    """A network of timm, by its timm name."""

    NETWORK: ClassVar = "foreign:build_timm"

    kind: Literal["timm"] = "timm"
    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)?$", max_length=200)]

    @property
    def label(self) -> str:
        """The name in a table."""
        return self.name

    @property
    def title(self) -> str:
        """The name in a sentence."""
        return f"timm's {self.name}"


Alone = (
    PreActResNet
    | ResNet
    | Plain
    | EluResNet
    | FastConv
    | LeNet
    | NiN
    | Vgg19
    | WideResNet
    | DenseNet
    | ResNeXt
    | ImageNetResNet
    | EfficientNetLite
    | Module
    | Timm
)


# ---- fusion of two networks


class Kept(Part):
    """The next `classes` in order, whose logits are computed bitwise identically from only the first `features`."""

    classes: PositiveInt
    features: PositiveInt


class Fusion(Architecture):
    """A network fused with a pretrained one, their features under one head."""

    NETWORK: ClassVar = "fusion:FusionClassifier"
    FAMILY: ClassVar = "feature fusion"

    kind: Literal["fusion"] = "fusion"
    base: Annotated[Alone, Field(discriminator="kind")]
    pretrained: EfficientNetLite
    kept: tuple[Kept, ...] = ()

    @model_validator(mode="after")
    def _features_grow(self) -> "Fusion":
        sizes = [part.features for part in self.kept]
        if sizes != sorted(sizes):
            raise ValueError(f"kept classes read ever more features, not {listing([str(size) for size in sizes])}")
        return self

    @property
    def smallest_image(self) -> int:
        """Side in pixels of the smallest images that both networks take."""
        return max(self.base.smallest_image, self.pretrained.smallest_image)

    @property
    def label(self) -> str:
        """The name in a table."""
        return f"{self.base.label}+{self.pretrained.label}"

    @property
    def label_and_options(self) -> str:
        """The name in a table."""
        return self.label

    @property
    def words(self) -> str:
        """The name in a report, with every option."""
        num_kept = sum(part.classes for part in self.kept)
        kept = say("; {number} classes answer by the first features alone", number=num_kept) if self.kept else ""
        return say("{one} and {other}, features side by side", one=self.base.words, other=self.pretrained.words) + kept


Model = Annotated[Alone | Fusion, Field(discriminator="kind")]

MODELS: dict[str, Model] = {
    **{f"preact_resnet{depth}": PreActResNet(depth=depth) for depth in (20, 32, 44, 56, 110)},
    **{f"resnet{depth}": ResNet(depth=depth) for depth in (20, 32, 44, 56, 110)},
    **{f"plain{depth}": Plain(depth=depth) for depth in (20, 32, 44, 56)},
    **{f"elu_resnet{depth}": EluResNet(depth=depth) for depth in (20, 32, 44, 56, 110)},
    "fast_conv": FastConv(),
    "lenet": LeNet(),
    "nin": NiN(),
    "vgg19": Vgg19(),
    "wrn16_8": WideResNet(depth=16, widening=8),
    "wrn28_10": WideResNet(depth=28, widening=10),
    "densenet_bc_100_12": DenseNet(depth=100, growth=12),
    "densenet_bc_100_24": DenseNet(depth=100, growth=24),
    "densenet_bc_160_24": DenseNet(depth=160, growth=24),
    "resnext29_4x64d": ResNeXt(depth=29, cardinality=4, width=64),
    "se_resnext29_4x64d": ResNeXt(depth=29, cardinality=4, width=64, reduction=16),
    "resnet18": ImageNetResNet(depth=18),
    "resnet34": ImageNetResNet(depth=34),
    "resnet50": ImageNetResNet(depth=50),
    "resnet101": ImageNetResNet(depth=101),
    "resnet152": ImageNetResNet(depth=152),
    "efficientnet_lite0": EfficientNetLite(size=0),
    "efficientnet_lite1": EfficientNetLite(size=1),
    "efficientnet_lite2": EfficientNetLite(size=2, dropout=0.3),
}

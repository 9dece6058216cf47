"""The networks as a recipe describes them: each class holds the options of the family of the same kind in
`reslab.models`, which says what they mean.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from reslab.recipe.value import Part

Depth = Annotated[int, Field(ge=8)]
Activation = Literal["relu", "elu"]
# PyTorch 2.13 on AVX2 writes past the end of a buffer in the gradient of a channels-last 1x1 convolution of
# stride 2 over 4 channels; with multiples of 8 it does not.
Channels = Annotated[int, Field(ge=8, multiple_of=8)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Architecture(Part):
    """A network; `label` is its name in a table."""

    SMALLEST_IMAGE: ClassVar = 1  # pixels a side: of less, nothing is left on the way through

    @property
    def label(self) -> str:
        """The name in a table."""
        return str(type(self).model_fields["kind"].default)


class Deep(Architecture):
    """A network of some number of layers, of which `STEP` make up one block in each stage, and `REST` are the rest."""

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
    """What the families of depth 6n+2 share: three stages of `width`, 2 `width` and 4 `width` channels."""

    width: Channels = 16


class PreActResNet(Residual):
    kind: Literal["preact_resnet"] = "preact_resnet"
    activation: Activation = "relu"
    keras_padding: bool = False


class ResNet(Residual):
    kind: Literal["resnet"] = "resnet"
    activation: Activation = "relu"
    shortcut: Literal["A", "B"] = "A"


class Plain(Residual):
    kind: Literal["plain"] = "plain"
    activation: Activation = "relu"


class EluResNet(Residual):
    kind: Literal["elu_resnet"] = "elu_resnet"
    block: Literal["conv-elu-conv-bn", "elu-after-addition", "bn-before-elu", "conv-bn-elu"] = "conv-elu-conv-bn"
    shortcut: Literal["A", "B"] = "A"


class FastConv(Architecture):
    SMALLEST_IMAGE: ClassVar = 9

    kind: Literal["fast_conv"] = "fast_conv"
    widths: tuple[Channels, Channels, Channels] = (64, 256, 256)


class LeNet(Architecture):
    SMALLEST_IMAGE: ClassVar = 16

    kind: Literal["lenet"] = "lenet"


class NiN(Architecture):
    kind: Literal["nin"] = "nin"
    dropout: Share = 0.5


class Vgg19(Architecture):
    kind: Literal["vgg19"] = "vgg19"
    width: Channels = 64
    hidden: Channels = 4096
    dropout: Share = 0.5


class WideResNet(Deep):
    REST: ClassVar = 4

    kind: Literal["wide_resnet"] = "wide_resnet"
    depth: Annotated[int, Field(ge=10)]
    widening: PositiveInt
    project_every_block: bool = False

    @property
    def label(self) -> str:
        """The name in a table."""
        return f"{super().label}-{self.widening}"


class DenseNet(Deep):
    REST: ClassVar = 4

    kind: Literal["densenet"] = "densenet"
    depth: Annotated[int, Field(ge=10)]
    growth: Annotated[int, Field(ge=4, multiple_of=4)]
    last_transition: bool = False

    @property
    def label(self) -> str:
        """The name in a table."""
        return f"{super().label}-{self.growth}"


class ResNeXt(Deep):
    STEP: ClassVar = 9

    kind: Literal["resnext"] = "resnext"
    depth: Annotated[int, Field(ge=11)]
    cardinality: PositiveInt
    width: Channels
    reduction: PositiveInt | None = None
    keras_script: bool = False

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
    kind: Literal["imagenet_resnet"] = "imagenet_resnet"
    depth: Literal[18, 34, 50, 101, 152]
    width: Channels = 64
    shortcut: Literal["A", "B"] = "B"
    stride_in: Literal["1x1", "3x3"] = "1x1"
    stem: Literal["large", "small"] = "large"

    @property
    def label(self) -> str:
        """The name in a table."""
        return f"{super().label}{self.depth}"


class EfficientNetLite(Architecture):
    kind: Literal["efficientnet_lite"] = "efficientnet_lite"
    size: Literal[0, 1, 2] = 0
    dropout: Share = 0.2

    @property
    def label(self) -> str:
        """The name in a table."""
        return f"{super().label}{self.size}"


# ---- from outside


class Foreign(Architecture):
    """A network that is not reslab's; `options` are handed to what makes it."""

    options: dict[str, bool | int | float | str] = Field(default={})

    def __hash__(self) -> int:
        return hash((type(self), self.label, tuple(self.options.items())))


class Module(Foreign):
    """A class of one's own, package.module:Class."""

    kind: Literal["module"] = "module"
    name: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", max_length=200)]

    @property
    def label(self) -> str:
        """The name in a table."""
        return self.name.partition(":")[2]


class Timm(Foreign):
    """A network of timm, by its name there."""

    kind: Literal["timm"] = "timm"
    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)?$", max_length=200)]

    @property
    def label(self) -> str:
        """The name in a table."""
        return self.name


Model = Annotated[
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
    | Timm,
    Field(discriminator="kind"),
]

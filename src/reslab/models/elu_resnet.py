"""Residual network with exponential linear units.

Source: Shah et al. 2016, "Deep Residual Networks with Exponential Linear Unit", arXiv:1604.04112.
Differs from it: nothing known; the paper leaves the stem's norm and the shortcut's kind open, here conv-BN-ELU and
option A of He 2015 (option B can be chosen).
Axes: N images, C channels, H rows, W columns, D features, K classes.
"""

from torch import Tensor, nn

from reslab.models.layers import (
    ImageClassifier,
    activate,
    average_pixels,
    build_stages,
    conv3x3,
    init_kaiming,
    make_shortcut,
)
from reslab.recipe.networks import EluResNet

# Whether a norm follows the first and the second convolution, and whether ELU follows the addition.
BLOCKS = {
    "conv-elu-conv-bn": (False, True, False),
    "elu-after-addition": (False, False, True),
    "bn-before-elu": (False, True, True),
    "conv-bn-elu": (True, True, True),
}


class Block(nn.Module):
    """Conv, ELU, conv, norm, added to the shortcut; the variants of `BLOCKS`. (N, C, H, W) -> (N, C', H/s, W/s)."""

    def __init__(self, inputs: int, outputs: int, stride: int, options: EluResNet) -> None:
        super().__init__()
        norm1, norm2, self.activates_sum = BLOCKS[options.block]
        self.conv1 = conv3x3(inputs, outputs, stride=stride, bias=not norm1)
        self.norm1 = nn.BatchNorm2d(outputs) if norm1 else nn.Identity()
        self.conv2 = conv3x3(outputs, outputs, bias=not norm2)
        self.norm2 = nn.BatchNorm2d(outputs) if norm2 else nn.Identity()
        self.shortcut = make_shortcut(options.shortcut, inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        hidden = activate("elu", self.norm1(self.conv1(x)))
        total = self.norm2(self.conv2(hidden)) + self.shortcut(x)
        return activate("elu", total) if self.activates_sum else total


class EluResNetClassifier(ImageClassifier):
    """Stem, three stages of n blocks, average, head; depth 6n+2."""

    def __init__(self, options: EluResNet, *, num_classes: int, channels: int) -> None:
        super().__init__()
        self.stem = conv3x3(channels, options.width)
        self.norm = nn.BatchNorm2d(options.width)
        self.blocks = build_stages(
            lambda inputs, outputs, stride: Block(inputs, outputs, stride, options),
            depth=options.depth,
            width=options.width,
        )
        self.head = nn.Linear(4 * options.width, num_classes)
        init_kaiming(self)

    def features(self, images: Tensor) -> Tensor:
        x = activate("elu", self.norm(self.stem(images)))
        return average_pixels(self.blocks(x))

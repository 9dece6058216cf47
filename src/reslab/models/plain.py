"""The plain network: a ResNet without shortcuts, which shows what these are for.

Source: He et al. 2015, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, section 4.2.
Differs from it: ELU in place of ReLU as an option.
Axes: N images, C channels, H rows, W columns, D features, K classes.
"""

from torch import Tensor, nn

from reslab.models.layers import ImageClassifier, activate, average_pixels, build_stages, conv3x3, init_kaiming
from reslab.recipe.networks import Plain


class Block(nn.Module):
    """Conv, norm, activation, twice. (N, C, H, W) -> (N, C', H/s, W/s)."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.conv1 = conv3x3(inputs, outputs, stride=stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.norm2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        hidden = activate(self.activation, self.norm1(self.conv1(x)))
        return activate(self.activation, self.norm2(self.conv2(hidden)))


class PlainClassifier(ImageClassifier):
    """Stem, three stages of n pairs of convolutions, average, head; depth 6n+2."""

    def __init__(self, options: Plain, *, num_classes: int, channels: int) -> None:
        super().__init__()
        self.activation = options.activation
        self.stem = conv3x3(channels, options.width)
        self.norm = nn.BatchNorm2d(options.width)
        self.blocks = build_stages(
            lambda inputs, outputs, stride: Block(inputs, outputs, stride, activation=options.activation),
            depth=options.depth,
            width=options.width,
        )
        self.head = nn.Linear(4 * options.width, num_classes)
        init_kaiming(self)

    def features(self, images: Tensor) -> Tensor:
        x = activate(self.activation, self.norm(self.stem(images)))
        return average_pixels(self.blocks(x))

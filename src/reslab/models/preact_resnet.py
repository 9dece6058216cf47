"""Pre-activation ResNet for small images, as in the lab.

Source: He et al. 2016, "Identity Mappings in Deep Residual Networks", arXiv:1603.05027.
Differs from it: 3x3 stem without pooling, basic blocks only, convolutions with biases, and a 1x1 projection from the
activated input where the shape changes.
Axes: N images, C channels, H rows, W columns, D features, K classes.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from reslab.models.layers import ImageClassifier, activate, average_pixels, build_stages, conv3x3
from reslab.recipe.networks import PreActResNet

# The standard deviation of a standard normal truncated at two standard deviations.
TRUNCATED_DEVIATION = 0.87962566103423978


class Block(nn.Module):
    """Norm, activation, 3x3 conv, twice; added to the input. (N, C, H, W) -> (N, C', H/s, W/s)."""

    def __init__(self, inputs: int, outputs: int, stride: int, options: PreActResNet) -> None:
        super().__init__()
        self.activation = options.activation
        self.pads_as_keras = options.keras_padding and stride == 2
        self.norm1 = nn.BatchNorm2d(inputs)
        if self.pads_as_keras:
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride)
        else:
            self.conv1 = conv3x3(inputs, outputs, stride=stride, bias=True)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs, bias=True)
        changes_shape = stride != 1 or inputs != outputs
        self.project = nn.Conv2d(inputs, outputs, 1, stride) if changes_shape else None

    def forward(self, x: Tensor) -> Tensor:
        active = activate(self.activation, self.norm1(x))
        hidden = self.conv1(pad_as_keras(active) if self.pads_as_keras else active)
        change: Tensor = self.conv2(activate(self.activation, self.norm2(hidden)))
        # The identity stays raw, so the sum of changes reaches the head unaltered.
        return change + (x if self.project is None else self.project(active))


class PreActResNetClassifier(ImageClassifier):
    """Stem, three stages of n blocks, final norm and activation, average, head; depth 6n+2."""

    def __init__(self, options: PreActResNet, *, num_classes: int, channels: int) -> None:
        super().__init__()
        self.activation = options.activation
        self.stem = conv3x3(channels, options.width, bias=True)
        self.blocks = build_stages(
            lambda inputs, outputs, stride: Block(inputs, outputs, stride, options),
            depth=options.depth,
            width=options.width,
        )
        self.norm = nn.BatchNorm2d(4 * options.width)
        self.head = nn.Linear(4 * options.width, num_classes)
        init_as_keras(self)

    def features(self, images: Tensor) -> Tensor:
        x = self.blocks(self.stem(images))
        return average_pixels(activate(self.activation, self.norm(x)))


def pad_as_keras(x: Tensor) -> Tensor:
    """Pad for a 3x3 convolution of stride 2 like Keras's `same`: only below and to the right if the side is even."""
    rows, columns = x.shape[2] % 2, x.shape[3] % 2
    return F.pad(x, (columns, 1, rows, 1))


def init_as_keras(model: nn.Module) -> None:
    """Draw kernels with deviation sqrt(2 / fan_in) from a normal truncated at two deviations; set biases to zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            deviation = math.sqrt(2 / fan_in) / TRUNCATED_DEVIATION
            nn.init.trunc_normal_(module.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

"""DenseNet-BC: each layer sees the feature maps of all previous layers of its block, and adds a few of its own.

Source: Huang et al. 2016, "Densely Connected Convolutional Networks", arXiv:1608.06993; bottlenecks of four times the
growth, halved channels between blocks.
Differs from it: nothing. With `last_transition` one more halving follows the last block, as in the script of
BIGBALLON/cifar-10-cnn; trained parameters with it and, in brackets, of the paper's: 100x12 0.83 M (0.77 M), 100x24
3.25 M (3.02 M), 160x24 7.44 M (6.83 M). Its table counts the running statistics too: 0.85, 3.3 and 7.5 M.
Axes: N images, C channels, H rows, W columns, D features, K classes.
"""

import torch
from torch import Tensor, nn

from reslab.models.layers import STAGES, ImageClassifier, activate, average_pixels, conv3x3, init_kaiming
from reslab.recipe.networks import DenseNet

BOTTLENECK = 4  # times the growth


class Layer(nn.Module):
    """Norm, ReLU, 1x1 conv, norm, ReLU, 3x3 conv; concatenated to the input. (N, C, H, W) -> (N, C + growth, H, W)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, BOTTLENECK * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK * growth)
        self.conv2 = conv3x3(BOTTLENECK * growth, growth)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.conv1(activate("relu", self.norm1(x)))
        return torch.cat([x, self.conv2(activate("relu", self.norm2(narrow)))], 1)


class DenseNetClassifier(ImageClassifier):
    """Stem, three blocks of n layers with transitions between them, norm and ReLU, average, head; depth 6n+4."""

    def __init__(self, options: DenseNet, *, num_classes: int, channels: int) -> None:
        super().__init__()
        growth, inputs = options.growth, 2 * options.growth
        self.stem = conv3x3(channels, inputs)
        layers: list[nn.Module] = []
        for stage in range(STAGES):
            for _ in range((options.depth - 4) // 6):
                layers.append(Layer(inputs, growth))
                inputs += growth
            if stage < STAGES - 1 or options.last_transition:
                layers += _halve(inputs)
                inputs //= 2
        self.layers = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(inputs)
        self.head = nn.Linear(inputs, num_classes)
        init_kaiming(self)

    def features(self, images: Tensor) -> Tensor:
        return average_pixels(activate("relu", self.norm(self.layers(self.stem(images)))))


def _halve(inputs: int) -> tuple[nn.Module, ...]:
    """Halve channels and sides; the last pixel of an odd side is averaged alone."""
    conv = nn.Conv2d(inputs, inputs // 2, 1, bias=False)
    return nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), conv, nn.AvgPool2d(2, ceil_mode=True)

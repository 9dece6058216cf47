"""ResNeXt for small images: each block is a sum of narrow paths, with optional squeeze and excitation.

Source: Xie et al. 2016, "Aggregated Residual Transformations for Deep Neural Networks", arXiv:1611.05431, section 5.3;
Hu et al. 2017, "Squeeze-and-Excitation Networks", arXiv:1709.01507 (`reduction`).
Differs from them: nothing known. With `keras_script` it is the network of BIGBALLON/cifar-10-cnn: a projection around
each block, and a ReLU on the change too; 29 layers of 4x64d then have 20.3 M parameters, not 17.6 M (20.8 M, not
18.1 M, with squeeze and excitation).
Axes: N images, C channels, H rows, W columns, D features, K classes.
"""

import torch
from torch import Tensor, nn

from reslab.models.layers import STAGES, ImageClassifier, activate, average_pixels, conv3x3, init_kaiming, make_shortcut
from reslab.recipe.networks import ResNeXt

STEM, FIRST = 64, 256  # channels of the stem and of the first stage


class SqueezeExcite(nn.Module):
    """Scale each channel by a factor in (0, 1) computed from the averages of all. (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // reduction, bias=False)
        self.excite = nn.Linear(channels // reduction, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.sigmoid(self.excite(activate("relu", self.squeeze(average_pixels(x)))))
        return x * weights[:, :, None, None]


class Block(nn.Module):
    """1x1 conv, 3x3 conv in groups, 1x1 conv, each with a norm; added to the shortcut, then activated.

    (N, C, H, W) -> (N, C', H/s, W/s).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, *, inner: int, options: ResNeXt) -> None:
        super().__init__()
        self.activates_change = options.keras_script
        self.conv1, self.norm1 = nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=options.cardinality, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv3, self.norm3 = nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.excite = nn.Identity() if options.reduction is None else SqueezeExcite(outputs, options.reduction)
        self.shortcut = make_shortcut("B", inputs, outputs, stride, always=options.keras_script)

    def forward(self, x: Tensor) -> Tensor:
        hidden = activate("relu", self.norm2(self.conv2(activate("relu", self.norm1(self.conv1(x))))))
        change = self.norm3(self.conv3(hidden))
        if self.activates_change:
            change = activate("relu", change)
        return activate("relu", self.excite(change) + self.shortcut(x))


class ResNeXtClassifier(ImageClassifier):
    """Stem, three stages of n blocks, average, head; depth 9n+2, `cardinality` groups of `width` channels at first."""

    def __init__(self, options: ResNeXt, *, num_classes: int, channels: int) -> None:
        super().__init__()
        self.stem, self.norm = conv3x3(channels, STEM), nn.BatchNorm2d(STEM)
        blocks, inputs = [], STEM
        for stage in range(STAGES):
            outputs, inner = FIRST * 2**stage, options.cardinality * options.width * 2**stage
            for place in range((options.depth - 2) // 9):
                stride = 2 if stage > 0 and place == 0 else 1
                blocks.append(Block(inputs, outputs, stride, inner=inner, options=options))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, num_classes)
        init_kaiming(self)

    def features(self, images: Tensor) -> Tensor:
        return average_pixels(self.blocks(activate("relu", self.norm(self.stem(images)))))

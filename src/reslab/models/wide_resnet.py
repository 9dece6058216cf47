"""Wide residual network: few layers of many channels.

Source: Zagoruyko and Komodakis 2016, "Wide Residual Networks", arXiv:1605.07146.
Differs from it: no dropout inside blocks. With `project_every_block` each block has a 1x1 convolution on its shortcut,
as an early version of BIGBALLON/cifar-10-cnn must have had: its table lists 16-8 with the 11.3 M parameters of that
network (the paper's has 11.0 M), but 28-10 with the paper's 36.5 M (38.1 M with the convolutions).
Axes: N images, C channels, H rows, W columns, D features, K classes.
"""

from torch import Tensor, nn

from reslab.models.layers import STAGES, ImageClassifier, activate, average_pixels, conv3x3, init_kaiming
from reslab.recipe.networks import WideResNet

STEM = 16  # channels


class Block(nn.Module):
    """Norm, ReLU, 3x3 conv, twice; added to the input. (N, C, H, W) -> (N, C', H/s, W/s)."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, project: bool) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv3x3(inputs, outputs, stride=stride)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        project = project or stride != 1 or inputs != outputs
        self.project = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if project else None

    def forward(self, x: Tensor) -> Tensor:
        active = activate("relu", self.norm1(x))
        change: Tensor = self.conv2(activate("relu", self.norm2(self.conv1(active))))
        return change + (x if self.project is None else self.project(active))


class WideResNetClassifier(ImageClassifier):
    """Stem, three stages of n blocks, final norm and ReLU, average, head; depth 6n+4, `widening` times the channels."""

    def __init__(self, options: WideResNet, *, num_classes: int, channels: int) -> None:
        super().__init__()
        self.stem = conv3x3(channels, STEM)
        blocks, inputs = [], STEM
        for stage in range(STAGES):
            outputs = STEM * options.widening * 2**stage
            for place in range((options.depth - 4) // 6):
                stride = 2 if stage > 0 and place == 0 else 1
                blocks.append(Block(inputs, outputs, stride, project=options.project_every_block))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(inputs)
        self.head = nn.Linear(inputs, num_classes)
        init_kaiming(self)

    def features(self, images: Tensor) -> Tensor:
        return average_pixels(activate("relu", self.norm(self.blocks(self.stem(images)))))

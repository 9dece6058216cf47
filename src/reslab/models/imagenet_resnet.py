"""ResNet for images of 224 pixels.

Source: He et al. 2015, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, table 1.
Differs from it: projections (option B) at every depth, while the paper compares depths 18 and 34 with option A, which
can be chosen. `stride_in="3x3"` halves the sides in the second convolution of a bottleneck, as most later
implementations do; `stem="small"` is a 3x3 convolution without max pooling, for images of 32 pixels.
Axes: N images, C channels, H rows, W columns, D features, K classes.
"""

from torch import Tensor, nn

from reslab.models.layers import ImageClassifier, activate, average_pixels, conv3x3, init_kaiming, make_shortcut
from reslab.models.resnet import Block
from reslab.recipe.networks import ImageNetResNet

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
SHALLOWEST_OF_BOTTLENECKS = 50
EXPANSION = 4  # of the channels of a bottleneck


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 conv, each with a norm; added to the shortcut, activated. (N, C, H, W) -> (N, C', H/s, W/s)."""

    def __init__(self, inputs: int, outputs: int, stride: int, options: ImageNetResNet) -> None:
        super().__init__()
        inner = outputs // EXPANSION
        first, second = (stride, 1) if options.stride_in == "1x1" else (1, stride)
        self.conv1, self.norm1 = nn.Conv2d(inputs, inner, 1, first, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.norm2 = conv3x3(inner, inner, stride=second), nn.BatchNorm2d(inner)
        self.conv3, self.norm3 = nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut = make_shortcut(options.shortcut, inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        hidden = activate("relu", self.norm2(self.conv2(activate("relu", self.norm1(self.conv1(x))))))
        return activate("relu", self.norm3(self.conv3(hidden)) + self.shortcut(x))


class ImageNetResNetClassifier(ImageClassifier):
    """Stem, four stages of blocks, average, head; from 50 layers on the blocks are bottlenecks."""

    def __init__(self, options: ImageNetResNet, *, num_classes: int, channels: int) -> None:
        super().__init__()
        large, width = options.stem == "large", options.width
        has_bottlenecks = options.depth >= SHALLOWEST_OF_BOTTLENECKS
        self.image_size = 224 if large else 32
        self.stem = nn.Conv2d(channels, width, 7, 2, padding=3, bias=False) if large else conv3x3(channels, width)
        self.norm = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        blocks: list[nn.Module] = []
        inputs = width
        for stage, count in enumerate(BLOCKS[options.depth]):
            outputs = width * 2**stage * (EXPANSION if has_bottlenecks else 1)
            for place in range(count):
                stride = 2 if stage > 0 and place == 0 else 1
                blocks.append(
                    Bottleneck(inputs, outputs, stride, options)
                    if has_bottlenecks
                    else Block(inputs, outputs, stride, activation="relu", shortcut=options.shortcut)
                )
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, num_classes)
        init_kaiming(self)

    def features(self, images: Tensor) -> Tensor:
        return average_pixels(self.blocks(self.pool(activate("relu", self.norm(self.stem(images))))))

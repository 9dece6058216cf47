"""EfficientNet-Lite: inverted bottlenecks scaled in width, depth and image size together, for processors and phones.

Source: Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", arXiv:1905.11946,
table 1; its Lite variant, in TensorFlow's `tpu/models/official/efficientnet/lite`: ReLU6 in place of Swish, no squeeze
and excitation, stem, head, and the first and the last stage's depth never scaled.
Differs from it: no stochastic depth; kernels start from `init_kaiming`. Padding is TensorFlow's `same`, which puts the
odd pixel after the image, so that published weights can be used. With `resize` it resizes images itself, so that small
images can be stored, trained on, exported and sent in their own size.
Axes: N images, C channels, H rows, W columns, D features, K classes.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from reslab.models.layers import ImageClassifier, average_pixels, init_kaiming
from reslab.recipe.networks import EfficientNetLite

STEM, LAST = 32, 1280  # channels
EXPANSION = 6  # of a block's channels, except in the first stage
DIVISOR = 8  # of all channel counts
EPSILON, MOMENTUM = 1e-3, 0.01  # of batch norms


class Stage(NamedTuple):
    """A stage before scaling: `blocks` with a `kernel` size and output `channels`, the first one with a `stride`."""

    blocks: int
    kernel: int
    stride: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 16),
    Stage(2, 3, 2, 24),
    Stage(2, 5, 2, 40),
    Stage(3, 3, 2, 80),
    Stage(3, 5, 1, 112),
    Stage(4, 5, 2, 192),
    Stage(1, 3, 1, 320),
)


class Scale(NamedTuple):
    """Factors of channels and of blocks, and the side of the images, in pixels."""

    width: float
    depth: float
    image_size: int


SCALES = {0: Scale(1.0, 1.0, 224), 1: Scale(1.0, 1.1, 240), 2: Scale(1.1, 1.2, 260)}


class Block(nn.Module):
    """1x1 conv to more channels, depthwise conv, 1x1 conv to fewer; added to x if shapes agree.

    (N, C, H, W) -> (N, C', H/s, W/s). Norms follow all three, ReLU6 the first two; the first is omitted without
    expansion.
    """

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        self.expand = _conv_norm(inputs, inner, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _conv_norm(inner, inner, kernel, stride=stride, groups=inner)
        self.project = _conv_norm(inner, outputs, 1, active=False)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.project(self.depthwise(self.expand(x)))
        return change + x if self.adds else change


class EfficientNetLiteClassifier(ImageClassifier):
    """Stem, seven stages of blocks, a last 1x1 conv, average, dropout, head."""

    def __init__(self, options: EfficientNetLite, *, num_classes: int, channels: int) -> None:
        super().__init__()
        scale = SCALES[options.size]
        self.image_size, self.resize = scale.image_size, options.resize
        self.stem = _conv_norm(channels, STEM, 3, stride=2)
        blocks, inputs = [], STEM
        for place, stage in enumerate(STAGES):
            is_inner = 0 < place < len(STAGES) - 1
            outputs = _scale_channels(stage.channels, scale.width)
            for number in range(math.ceil(stage.blocks * scale.depth) if is_inner else stage.blocks):
                stride, expansion = stage.stride if number == 0 else 1, EXPANSION if place else 1
                blocks.append(Block(inputs, outputs, kernel=stage.kernel, stride=stride, expansion=expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.last = _conv_norm(inputs, LAST, 1)
        self.dropout = nn.Dropout(options.dropout)
        self.head = nn.Linear(LAST, num_classes)
        init_kaiming(self)

    def features(self, images: Tensor) -> Tensor:
        images = images if self.resize is None else resample(images, self.resize)
        features: Tensor = self.dropout(average_pixels(self.last(self.blocks(self.stem(images)))))
        return features


class HalvedSame(nn.Module):
    """Zero padding for a convolution of stride 2 as in TensorFlow's `same`: the odd pixel comes last."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.kernel - 2 + x.shape[2] % 2, self.kernel - 2 + x.shape[3] % 2
        return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


def resample(images: Tensor, size: int) -> Tensor:
    """Resize (N, C, H, W) float to (N, C, size, size) by an antialiased cubic filter, as two matrix products.

    Matrix products are fast and the same in every runtime, unlike resize operations.
    """
    rows, columns = (torch.tensor(_filter(side, size)).to(images) for side in images.shape[2:])
    return rows @ images @ columns.T


torch.fx.wrap("resample")  # one operation when traced, since its matrices depend on the images' size


@lru_cache(maxsize=16)
def _filter(side: int, size: int) -> NDArray[np.float32]:
    """Return the cubic filter (size, side) of Pillow and PyTorch: a = -0.5, widened for shrinking."""
    scale = side / size
    reach = max(scale, 1.0)
    centres = (np.arange(size)[:, None] + 0.5) * scale
    x = np.abs(np.arange(side)[None] + 0.5 - centres) / reach
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    normalized: NDArray[np.float32] = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    return normalized


def _conv_norm(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, active: bool = True
) -> nn.Sequential:
    """Build a convolution without bias and its norm, followed by ReLU6 if `active`."""
    padding = kernel // 2 if stride == 1 else 0
    return nn.Sequential(
        *([HalvedSame(kernel)] if stride == 2 else []),
        nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=EPSILON, momentum=MOMENTUM),
        *([nn.ReLU6(inplace=True)] if active else []),
    )


def _scale_channels(channels: int, width: float) -> int:
    """Scale a channel count and round it to a multiple of DIVISOR, down by at most a tenth."""
    wanted = channels * width
    rounded = max(DIVISOR, int(wanted + DIVISOR / 2) // DIVISOR * DIVISOR)
    return rounded if rounded >= 0.9 * wanted else rounded + DIVISOR

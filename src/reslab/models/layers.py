"""Parts shared by several families: the contract of a classifier, three stages of blocks, shortcuts, initial weights.

Axes: N images, C channels, H rows, W columns, D features, K classes.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from reslab.machine import winograd

STAGES = 3


class ImageClassifier(nn.Module):
    """The contract of a model: `features` and a linear `head`; `prepare` and `settle` are optional."""

    head: nn.Linear
    image_size = 32  # side in pixels of the images that it was designed for; others work too
    is_prepared = False  # whether `prepare` does anything

    def features(self, images: Tensor) -> Tensor:
        """Turn standardised images (N, C, H, W) into features (N, D)."""
        raise NotImplementedError

    def prepare(self, images: Tensor) -> None:
        """Initialise untrained parts from standardised training images (N, C, H, W), before the first update."""

    def settle(self) -> None:
        """Find out what makes inference faster, once all weights are known; training begins anew."""

    def forward(self, images: Tensor) -> Tensor:
        """Turn standardised images (N, C, H, W) into logits (N, K)."""
        logits: Tensor = self.head(self.features(images))
        return logits


def conv3x3(inputs: int, outputs: int, *, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """Build a 3x3 convolution, padded by one pixel on every side, that uses Winograd's algorithm if that is faster.

    It is an instance of PyTorch's own class, which tools that count operations recognise; only its kernel differs.
    """
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)
    if stride == 1:
        conv._conv_forward = _convolve3x3  # type: ignore[method-assign, assignment]
    return conv


def _convolve3x3(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return winograd.conv3x3(x, weight, bias) if winograd.pays(x, weight) else F.conv2d(x, weight, bias, padding=1)


def build_stages(block: Callable[[int, int, int], nn.Module], *, depth: int, width: int) -> nn.Sequential:
    """Stack the blocks of a network of depth 6n+2: n in each of three stages, doubling the width and halving the side.

    `block(inputs, outputs, stride)` makes one.
    """
    blocks, inputs = [], width
    for stage in range(STAGES):
        outputs = width * 2**stage
        for position in range((depth - 2) // 6):
            stride = 2 if stage > 0 and position == 0 else 1
            blocks.append(block(inputs, outputs, stride))
            inputs = outputs
    return nn.Sequential(*blocks)


class SubsampleAndPad(nn.Module):
    """Option A of He 2015: every second pixel, new channels are zero. (N, C, H, W) -> (N, outputs, H/s, W/s)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.new_channels = outputs - inputs
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        # Pooling over one pixel instead of slicing, whose NCHW gradient would mix with NHWC back to the stem.
        subsampled = F.avg_pool2d(x, 1, self.stride)
        return F.pad(subsampled, (0, 0, 0, 0, 0, self.new_channels))


def make_shortcut(kind: str, inputs: int, outputs: int, stride: int, *, always: bool = False) -> nn.Module:
    """Build a block's shortcut: the identity if shapes agree, else option A or B (1x1 convolution and BN).

    With `always` it is never the identity.
    """
    if stride == 1 and inputs == outputs and not always:
        return nn.Identity()
    if kind == "A":
        return SubsampleAndPad(inputs, outputs, stride)
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def activate(name: str, x: Tensor) -> Tensor:
    """Apply ReLU or ELU to `x` in place: only call it on the output of a norm, a convolution or a sum."""
    return F.relu(x, inplace=True) if name == "relu" else F.elu(x, inplace=True)


def init_kaiming(model: nn.Module) -> None:
    """Draw kernels from a normal with standard deviation sqrt(2 / fan_in), arXiv:1502.01852; set biases to zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def average_pixels(x: Tensor) -> Tensor:
    """Average over the image. (N, C, H, W) -> (N, C)."""
    return x.mean(dim=(2, 3))

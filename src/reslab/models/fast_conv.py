"""A convolutional network for fast training: whitened patches, three groups of convolutions, global max pooling.

Source: Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv:2404.00498, and its repository
KellerJordan/cifar10-airbench (`airbench94_muon`).
Differs from it: weights in float32; the head has a bias, which is 0 and not trained here (teaching new classes sets
it); batch norm's running statistics move by 0.1 of a chunk, not by 0.4 of a batch.
Axes: N images, C channels, H rows, W columns, D features, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reslab.models.layers import ImageClassifier, conv3x3
from reslab.recipe.networks import FastConv

PATCH = 2  # side of the whitened patches, pixels
PIXELS_AT_ONCE = 5000 * 32 * 32  # whose patches are in memory
SMALLEST_VARIANCE = 5e-4  # added to each direction's variance, so that small ones are not amplified


class Group(nn.Module):
    """Conv, maximum of 2x2, norm, GELU, conv, norm, GELU. (N, C, H, W) -> (N, C', H/2, W/2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _identity_conv(inputs, outputs), _norm(outputs)
        self.conv2, self.norm2 = _identity_conv(outputs, outputs), _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class FastConvClassifier(ImageClassifier):
    """Whitened patches, three groups, the maximum over the image divided by D, head; images of 9 pixels or more."""

    is_prepared = True

    def __init__(self, options: FastConv, *, num_classes: int, channels: int) -> None:
        super().__init__()
        num_patches = 2 * channels * PATCH**2
        self.stem = nn.Conv2d(channels, num_patches, PATCH)
        self.stem.weight.requires_grad_(False)
        self.groups = nn.Sequential(
            *(
                Group(inputs, outputs)
                for inputs, outputs in zip((num_patches, *options.widths), options.widths, strict=False)
            )
        )
        self.num_features = options.widths[-1]
        self.head = nn.Linear(self.num_features, num_classes)
        self.head.bias.requires_grad_(False).zero_()
        with torch.no_grad():
            self.stem.bias.zero_()  # type: ignore[union-attr]
            self.head.weight /= self.head.weight.std()

    @torch.no_grad()
    def prepare(self, images: Tensor) -> None:
        """Set the stem to whiten patches of `images`, with filters for each principal direction and its negative."""
        products, num = torch.zeros(()), 0
        for some in torch.split(images, max(1, PIXELS_AT_ONCE // images[0, 0].numel())):
            patches = some.unfold(2, PATCH, 1).unfold(3, PATCH, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1)
            products, num = products + patches.T @ patches, num + len(patches)
        variances, directions = torch.linalg.eigh((products / num).double())
        kernels = (directions / (variances + SMALLEST_VARIANCE).sqrt()).T.reshape(-1, *self.stem.weight.shape[1:])
        self.stem.weight.copy_(torch.cat([kernels, -kernels]))

    def features(self, images: Tensor) -> Tensor:
        x = self.groups(F.gelu(self.stem(images)))
        maxima: Tensor = x.amax(dim=(2, 3))
        return maxima.div(self.num_features)


def _identity_conv(inputs: int, outputs: int) -> nn.Conv2d:
    """Build a convolution whose first filters pass the inputs on unchanged."""
    conv = conv3x3(inputs, outputs)
    nn.init.dirac_(conv.weight[: min(inputs, outputs)].detach())
    return conv


def _norm(channels: int) -> nn.BatchNorm2d:
    """Build a norm without scale."""
    norm = nn.BatchNorm2d(channels, eps=1e-12)
    norm.weight.requires_grad_(False)
    return norm

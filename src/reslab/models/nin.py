"""Network in Network with batch norm.

Source: Lin et al. 2013, "Network in Network", arXiv:1312.4400; sizes and norms as in the public repository
BIGBALLON/cifar-10-cnn, 2_Network_in_Network.
Differs from the paper: a norm after each convolution, which then has no bias. Differs from both: the last 1x1
convolution, to the classes, comes after the average instead of before it, so that it is the head; norm and ReLU on the
classes are omitted.
Axes: N images, C channels, H rows, W columns, D features, K classes.
"""

from torch import Tensor, nn

from reslab.models.layers import ImageClassifier, average_pixels, init_kaiming
from reslab.recipe.networks import NiN


class NiNClassifier(ImageClassifier):
    """Three groups of a convolution and 1x1 convolutions, with pooling and dropout between them, average, head.

    Images have 4 pixels or more.
    """

    def __init__(self, options: NiN, *, num_classes: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_convolve(channels, 192, side=5),
            *_convolve(192, 160),
            *_convolve(160, 96),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Dropout(options.dropout),
            *_convolve(96, 192, side=5),
            *_convolve(192, 192),
            *_convolve(192, 192),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Dropout(options.dropout),
            *_convolve(192, 192, side=3),
            *_convolve(192, 192),
        )
        self.head = nn.Linear(192, num_classes)
        init_kaiming(self)

    def features(self, images: Tensor) -> Tensor:
        return average_pixels(self.layers(images))


def _convolve(inputs: int, outputs: int, *, side: int = 1) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)
    return conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)

"""LeNet-5 for small colour images.

Source: LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", Proceedings of the IEEE 86(11),
in the form of the public repository BIGBALLON/cifar-10-cnn, 1_Lecun_Network.
Differs from the paper, as the repository does: ReLU and max pooling in place of tanh and trained averages, the second
convolution sees every channel, and the output layer is linear. For images of other sizes than 32 pixels, feature maps
are averaged to 5x5.
Axes: N images, C channels, H rows, W columns, D features, K classes.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from reslab.models.layers import ImageClassifier, activate, init_kaiming
from reslab.recipe.networks import LeNet

LAST_SIDE = 5  # of the maps that the linear layers see


class LeNetClassifier(ImageClassifier):
    """Two convolutions with 2x2 max pooling, two linear layers, head; images of 16 pixels or more."""

    def __init__(self, options: LeNet, *, num_classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.linear1 = nn.Linear(16 * LAST_SIDE**2, 120)
        self.linear2 = nn.Linear(120, 84)
        self.head = nn.Linear(84, num_classes)
        init_kaiming(self)

    def features(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(activate("relu", self.conv1(images)), 2)
        x = F.max_pool2d(activate("relu", self.conv2(x)), 2)
        x = activate("relu", self.linear1(F.adaptive_avg_pool2d(x, LAST_SIDE).flatten(1)))
        return activate("relu", self.linear2(x))

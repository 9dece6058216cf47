"""VGG-19 for small images, with batch norm.

Source: Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
arXiv:1409.1556, network E, adapted as in the public repository BIGBALLON/cifar-10-cnn, 3_Vgg19_Network.
Differs from the paper: a norm before each ReLU, so no biases there; feature maps are averaged to one pixel (their size
for images of 32 pixels), while the paper keeps 7x7. Differs from the repository: weights start at random, not from a
network trained on ImageNet. Its rate of 0.1 relies on a batch norm after the last linear layer. To keep the head
linear, features are divided here by the square root of their number instead, and the head's weights have a standard
deviation of 1. Logits then start with a variance of about 1, as after that norm, and one update changes them little,
however many features there are.
Axes: N images, C channels, H rows, W columns, D features, K classes.
"""

import math

from torch import Tensor, nn

from reslab.models.layers import ImageClassifier, average_pixels, conv3x3, init_kaiming
from reslab.recipe.networks import Vgg19

STAGES = ((1, 2), (2, 2), (4, 4), (8, 4), (8, 4))  # times the width; convolutions


class Vgg19Classifier(ImageClassifier):
    """Sixteen 3x3 convolutions in five stages, each followed by 2x2 max pooling; two hidden linear layers, head."""

    def __init__(self, options: Vgg19, *, num_classes: int, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for factor, count in STAGES:
            for _ in range(count):
                outputs = factor * options.width
                layers += [conv3x3(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
                inputs = outputs
            layers.append(nn.MaxPool2d(2, ceil_mode=True))  # a last pixel stays one
        self.layers = nn.Sequential(*layers)
        hidden, dropout = options.hidden, options.dropout
        self.hidden = nn.Sequential(*_connect(inputs, hidden, dropout), *_connect(hidden, hidden, dropout))
        self.num_features = hidden
        self.head = nn.Linear(hidden, num_classes)
        init_kaiming(self)
        nn.init.normal_(self.head.weight)

    def features(self, images: Tensor) -> Tensor:
        x: Tensor = self.hidden(average_pixels(self.layers(images)))
        return x / math.sqrt(self.num_features)


def _connect(inputs: int, outputs: int, dropout: float) -> tuple[nn.Module, ...]:
    linear = nn.Linear(inputs, outputs, bias=False)
    return linear, nn.BatchNorm1d(outputs), nn.ReLU(inplace=True), nn.Dropout(dropout)

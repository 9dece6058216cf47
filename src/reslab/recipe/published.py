"""Published results as data: thirteen known networks on CIFAR-10, trained by the scripts of one repository.

Source: the results table in the README of https://github.com/BIGBALLON/cifar-10-cnn (read at commit 1984e861), a public
reproduction of the networks in Keras. As its scripts show, the residual networks of that table are pre-activation
ones, and its DenseNets the BC variant.
Differs from it: counts of parameters are written out as numbers, accuracies as fractions, times in minutes.

This module imports nothing from the package.
"""

from dataclasses import dataclass

CIFAR10_SOURCE = "https://github.com/BIGBALLON/cifar-10-cnn"


@dataclass(frozen=True, kw_only=True)
class PublishedNetwork:
    """One row: `parameters` as rounded by the source, `test_accuracy` in [0, 1], one run, no interval given."""

    network: str
    parameters: int
    batch_size: int
    epochs: int
    training_minutes: int
    device: str
    test_accuracy: float


_GPU = "GTX 1080 Ti"


def _row(
    network: str, numbers: tuple[int, int, int, int], test_accuracy: float, device: str = _GPU
) -> PublishedNetwork:
    parameters, batch_size, epochs, training_minutes = numbers
    return PublishedNetwork(
        network=network,
        parameters=parameters,
        batch_size=batch_size,
        epochs=epochs,
        training_minutes=training_minutes,
        device=device,
        test_accuracy=test_accuracy,
    )


# network, (parameters, batch size, epochs, minutes), test accuracy
CIFAR10_NETWORKS: tuple[PublishedNetwork, ...] = (
    _row("LeNet", (62_000, 128, 200, 30), 0.7623),
    _row("Network in Network", (970_000, 128, 200, 100), 0.9163),
    _row("VGG-19", (39_000_000, 128, 200, 113), 0.9353),
    _row("Pre-activation ResNet-20", (270_000, 128, 200, 44), 0.9182),
    _row("Pre-activation ResNet-32", (470_000, 128, 200, 67), 0.9268),
    _row("Pre-activation ResNet-110", (1_700_000, 128, 200, 218), 0.9393),
    _row("Wide ResNet 16-8", (11_300_000, 128, 200, 295), 0.9513),
    _row("Wide ResNet 28-10", (36_500_000, 128, 200, 622), 0.9578),
    _row("DenseNet-BC 100x12", (850_000, 64, 250, 1040), 0.9491),
    _row("DenseNet-BC 100x24", (3_300_000, 64, 250, 1347), 0.9530),
    _row("DenseNet-BC 160x24", (7_500_000, 64, 250, 3020), 0.9590, "2 x GTX 1080"),
    _row("ResNeXt-29 4x64d", (20_000_000, 120, 250, 1263), 0.9519),
    _row("SE-ResNeXt-29 4x64d", (20_000_000, 120, 250, 1317), 0.9560),
)

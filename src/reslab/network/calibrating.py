"""A trained network's temperature, fitted on held-out images and folded into its head.

Whatever computes logits from the weights is calibrated then: prediction, evaluation, the app and every exported file.
"""

from dataclasses import dataclass

import torch

from reslab.data.images import ImageSet
from reslab.measure.calibration import find_obstacle, fit_temperature
from reslab.network.network import Network
from reslab.records import Calibration
from reslab.words import counted


@dataclass(frozen=True)
class Calibrated:
    """A network whose logits have been divided by their temperature, and in a sentence on what that rests."""

    network: Network
    note: str


def calibrate(network: Network, *, held_out: ImageSet | None, usual: float | None = None) -> Calibrated:
    """Divide the network's logits by the temperature that held-out images give, by changing its head in place.

    `usual` is the temperature of a recipe that holds nothing out. Too few held-out images, or too few mistakes on
    them, leave the logits as they are.
    """
    if held_out is None:
        if usual is None:
            return Calibrated(network, "not calibrated: no images are held out")
        return _divide(network, Calibration(temperature=usual), "as trials of the recipe gave")
    logits, labels = network.logits(held_out.images).numpy(), held_out.labels.numpy()
    if obstacle := find_obstacle(logits, labels):
        return Calibrated(network, f"not calibrated: {obstacle}")
    found = Calibration(temperature=fit_temperature(logits, labels), num_images=len(labels))
    return _divide(network, found, f"on {counted(len(labels), 'held-out image')}")


@torch.no_grad()
def _divide(network: Network, by: Calibration, source: str) -> Calibrated:
    head = network.module.head
    head.weight.div_(by.temperature)
    if head.bias is not None:
        head.bias.div_(by.temperature)
    metadata = network.metadata.model_copy(update={"calibration": by})
    return Calibrated(Network(network.module, metadata), f"calibrated {source}: temperature {by.temperature:.2f}")

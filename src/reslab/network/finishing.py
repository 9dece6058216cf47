"""What a trained network learns last, from held-out images: its temperature, and which pictures are like its own.

The temperature is folded into the head, so that whatever computes logits from the weights is calibrated: prediction,
evaluation, the app and every exported file.
"""

from dataclasses import dataclass

import torch

from reslab.data.images import ImageSet
from reslab.data.pixels import Pixels
from reslab.data.split import limit
from reslab.measure.calibration import find_obstacle, fit_temperature
from reslab.network.familiarity import MOST, Familiarity, fit_familiarity
from reslab.network.network import Network
from reslab.records import Calibration
from reslab.words import counted


@dataclass(frozen=True)
class Finished:
    """A network that is ready to be written, and a sentence on what its probabilities rest on."""

    network: Network
    note: str


def finish(network: Network, *, images: ImageSet, held_out: ImageSet | None, usual: float | None = None) -> Finished:
    """Calibrate a network that was trained on `images` by changing its head in place, and let it know its pictures.

    `usual` is the temperature of a recipe that holds nothing out. Too few held-out images, or too few mistakes on
    them, leave the logits as they are.
    """
    calibration, note = _calibrate(network, held_out, usual)
    if calibration is not None:
        _divide(network, calibration)
    metadata = network.metadata.model_copy(update={"calibration": calibration})
    return Finished(Network(network.module, metadata, _get_to_know(network, images, held_out)), note)


def _calibrate(network: Network, held_out: ImageSet | None, usual: float | None) -> tuple[Calibration | None, str]:
    if held_out is None:
        if usual is None:
            return None, "not calibrated: no images are held out"
        return Calibration(temperature=usual), f"calibrated as trials of the recipe gave: temperature {usual:.2f}"
    logits, labels = network.logits(held_out.images).numpy(), held_out.labels.numpy()
    if obstacle := find_obstacle(logits, labels):
        return None, f"not calibrated: {obstacle}"
    found = Calibration(temperature=fit_temperature(logits, labels), num_images=len(labels))
    source = counted(len(labels), "held-out image")
    return found, f"calibrated on {source}: temperature {found.temperature:.2f}"


@torch.no_grad()
def _divide(network: Network, by: Calibration) -> None:
    head = network.module.head
    head.weight.div_(by.temperature)
    if head.bias is not None:
        head.bias.div_(by.temperature)


def _get_to_know(network: Network, images: ImageSet, held_out: ImageSet | None) -> Familiarity | None:
    """Keep the features of a few training images of each class; of streamed ones none, which are far away."""
    if held_out is None or (isinstance(images.images, Pixels) and images.images.is_streamed):
        return None
    few = limit(images.labels.numpy(), classes=images.classes, num=-(-MOST // len(images.classes)))
    known = network.features(images.subset(few).images)
    return fit_familiarity(known, network.features(held_out.images))

"""What a trained network learns last, from held-out images: its temperature, and which pictures are like its own.

The temperature is folded into the head, so that whatever computes logits from the weights is calibrated: prediction,
evaluation, the app and every exported file.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from reslab.data.images import ImageSet
from reslab.data.pixels import Pixels
from reslab.data.split import limit
from reslab.measure.calibration import find_obstacle, fit_temperature
from reslab.network.familiarity import MOST, Familiarity, fit_familiarity
from reslab.network.network import Network
from reslab.records import Calibration
from reslab.words import counted

FeaturesOf = Callable[[ImageSet], Tensor]


@dataclass(frozen=True)
class Finished:
    """A network that is ready to be written, and a sentence on what its probabilities rest on."""

    network: Network
    note: str


def finish(
    network: Network,
    *,
    images: ImageSet,
    held_out: ImageSet | None,
    usual: float | None = None,
    features_of: FeaturesOf | None = None,
    calibrated: bool = False,
) -> Finished:
    """Calibrate a network that was trained on `images` by changing its head in place, and let it know its pictures.

    `usual` is the temperature of a recipe that holds nothing out. Too few held-out images, or too few mistakes on
    them, leave the logits as they are. `features_of` computes features faster than the network does. What is
    `calibrated` keeps its logits.
    """
    if calibrated:
        calibration, note = network.metadata.calibration, "calibrated by the new classes' rows alone"
    else:
        calibration, note = _calibrate(network, held_out, usual, features_of)
    if calibration is not None and not calibrated:
        _divide(network, calibration)
    metadata = network.metadata.model_copy(update={"calibration": calibration})
    features_of = features_of or (lambda images: network.features(images.images))
    return Finished(Network(network.module, metadata, _get_to_know(network, images, held_out, features_of)), note)


def _calibrate(
    network: Network, held_out: ImageSet | None, usual: float | None, features_of: FeaturesOf | None
) -> tuple[Calibration | None, str]:
    if held_out is None:
        if usual is None:
            return None, "not calibrated: no images are held out"
        return Calibration(temperature=usual), f"calibrated as trials of the recipe gave: temperature {usual:.2f}"
    with torch.no_grad():
        known = network.module.head(features_of(held_out)) if features_of else network.logits(held_out.images)
    logits, labels = known.numpy(), held_out.labels.numpy()
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


def _get_to_know(
    network: Network, images: ImageSet, held_out: ImageSet | None, features_of: FeaturesOf
) -> Familiarity | None:
    """Keep the features of a few training images of each class; of streamed ones none, which are far away."""
    if held_out is None or (isinstance(images.images, Pixels) and images.images.is_streamed):
        return None
    few = limit(images.labels.numpy(), classes=images.classes, num=-(-MOST // len(images.classes)))
    features = features_of(held_out)
    with torch.no_grad():
        logits = network.module.head(features.to(network.device)).float().cpu()
    return fit_familiarity(features_of(images.subset(few)), features, logits)

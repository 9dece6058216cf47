"""What a trained network learns last, from held-out images: its temperature, how large its sets of classes have to be,
and which pictures are like its own.

The temperature is folded into the head, so that whatever computes logits from the weights is calibrated: prediction,
evaluation, the app and every exported file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from reslab.data.images import ImageSet
from reslab.data.pixels import Pixels
from reslab.data.split import limit
from reslab.measure.calibration import find_obstacle, fit_temperature
from reslab.measure.class_sets import fit_class_sets
from reslab.network.familiarity import MOST, Familiarity, fit_familiarity, fit_frozen
from reslab.network.network import Network
from reslab.records import Calibration

FeaturesOf = Callable[[ImageSet], Tensor]


@dataclass(frozen=True)
class Finished:
    """A network that is ready to be written, and a sentence on what its probabilities rest on."""

    network: Network
    note: str


class _Seen(NamedTuple):
    """Held-out images as the network sees them: features (H, D) and logits (H, K), and the labels (H,)."""

    features: Tensor
    logits: Tensor
    labels: Tensor


def finish(
    network: Network,
    *,
    images: ImageSet,
    held_out: ImageSet | None,
    usual: float | None = None,
    features_of: FeaturesOf | None = None,
    calibrated: bool = False,
    coming: Tensor | None = None,
) -> Finished:
    """Calibrate a network that was trained on `images` by changing its head in place, and let it know its pictures.

    `usual` is the temperature of a recipe that holds nothing out. Too few held-out images, or too few mistakes on
    them, leave the logits as they are. `features_of` computes features faster than the network does. What is
    `calibrated` keeps its logits. `coming` says how frequent pictures of each class (K,) will be, where held-out
    images do not.
    """
    features_of = features_of or (lambda images: network.features(images.images))
    seen = None if held_out is None else _look(network, features_of(held_out), held_out.labels)
    network, seen, note = _settle(network, seen, usual=usual, calibrated=calibrated, coming=coming)
    return Finished(Network(network.module, network.metadata, _get_to_know(images, seen, features_of)), note)


def finish_on(
    network: Network,
    known: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    *,
    is_unchanged: bool = False,
    calibrated: bool = False,
) -> Finished:
    """Do the same on features (N, D) and labels (N,) of images that may be gone, `known` and `held_out` ones.

    The head was fitted to the held-out images by their log loss, so its temperature is 1. Where no image has changed
    the layers below the head, held-out images are compared with known ones, of which they may be some.
    """
    features, labels = known
    looked = _look(network, *held_out)
    network, seen, note = _settle(network, looked, usual=None, calibrated=calibrated, fitted=True)
    assert seen is not None
    few = limit(labels.numpy(), classes=network.classes, num=-(-MOST // len(network.classes)))
    if is_unchanged:
        familiarity = fit_frozen(features[few], seen.features, seen.logits)
    else:
        familiarity = fit_familiarity(features[few], labels[few], seen.features, seen.logits)
    return Finished(Network(network.module, network.metadata, familiarity), note)


def _settle(
    network: Network,
    seen: _Seen | None,
    *,
    usual: float | None,
    calibrated: bool,
    coming: Tensor | None = None,
    fitted: bool = False,
) -> tuple[Network, _Seen | None, str]:
    """Find the temperature and the sets of classes."""
    if calibrated:
        calibration = network.metadata.calibration
        note = calibration.words if calibration else "calibrated by the new classes' rows alone"
    else:
        calibration, note = _calibrate(seen, usual, coming, fitted=fitted)
        if calibration is not None:
            network = divide(network, by=calibration)
            seen = seen and seen._replace(logits=seen.logits / calibration.temperature)
    class_sets = seen and fit_class_sets(seen.logits.softmax(dim=1).numpy(), seen.labels.numpy())
    metadata = network.metadata.model_copy(update={"calibration": calibration, "class_sets": class_sets})
    return Network(network.module, metadata), seen, note


@torch.no_grad()
def _look(network: Network, features: Tensor, labels: Tensor) -> _Seen:
    return _Seen(features, network.module.head(features.to(network.device)).float().cpu(), labels)


def _calibrate(
    seen: _Seen | None, usual: float | None, coming: Tensor | None, *, fitted: bool
) -> tuple[Calibration | None, str]:
    if seen is None:
        if usual is None:
            return None, "not calibrated: no images are held out"
        found = Calibration(temperature=usual)
        return found, found.words
    logits, labels = seen.logits.numpy(), seen.labels.numpy()
    if obstacle := find_obstacle(logits, labels):
        return None, f"not calibrated: {obstacle}"
    weights = None if coming is None else weigh(seen.labels, coming=coming).numpy()
    temperature = 1.0 if fitted else fit_temperature(logits, labels, weights=weights)
    found = Calibration(temperature=temperature, num_images=len(labels))
    return found, found.words


def weigh(labels: Tensor, *, coming: Tensor) -> Tensor:
    """Let images with labels (H,) count as much as pictures of their class will be frequent, `coming` (K,)."""
    return (coming / labels.bincount(minlength=len(coming)))[labels]


@torch.no_grad()
def divide(network: Network, *, by: Calibration) -> Network:
    """Divide the logits by a temperature, in the head and in place, and write down what it rests on."""
    head = network.module.head
    head.weight.div_(by.temperature)
    if head.bias is not None:
        head.bias.div_(by.temperature)
    metadata = network.metadata.model_copy(update={"calibration": by})
    return Network(network.module, metadata, network.familiarity)


def _get_to_know(images: ImageSet, seen: _Seen | None, features_of: FeaturesOf) -> Familiarity | None:
    """Look at a few training images of each class; of streamed ones at none, which are far away."""
    if seen is None or (isinstance(images.images, Pixels) and images.images.is_streamed):
        return None
    few = limit(images.labels.numpy(), classes=images.classes, num=-(-MOST // len(images.classes)))
    known = images.subset(few)
    return fit_familiarity(features_of(known), known.labels, seen.features, seen.logits)

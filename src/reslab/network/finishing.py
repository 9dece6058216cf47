"""The final fit on held-out images: temperature, sizes of class sets, and familiarity.

The temperature is folded into the head, so that everything that computes logits from the weights is calibrated:
prediction, evaluation, the app and every exported file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reslab.data.images import ImageSet
from reslab.data.split import limit
from reslab.measure.calibration import find_obstacle, fit_temperature
from reslab.measure.class_sets import fit_class_sets
from reslab.network.familiarity import FEWEST, MOST, Familiarity, fit_familiarity, fit_frozen, num_effective
from reslab.network.network import Network
from reslab.records import Calibration

FeaturesOf = Callable[[ImageSet], Tensor]


@dataclass(frozen=True)
class Finished:
    """A network ready to be written, and a sentence on what its probabilities are based on."""

    network: Network
    note: str


class _Seen(NamedTuple):
    """The network's features (H, D) and logits (H, K) for held-out images, their labels (H,), perhaps weights (H,)."""

    features: Tensor
    logits: Tensor
    labels: Tensor
    weights: Tensor | None


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
    """Calibrate a network trained on `images` by changing its head in place, and fit its familiarity.

    `usual` is the temperature for a recipe that holds nothing out. With too few held-out images, or too few mistakes on
    them, the logits are not changed, nor if the network is already `calibrated`. `features_of` computes features faster
    than the network. `coming` (K,) are the expected class frequencies if they differ from those of held-out images.
    """
    features_of = features_of or (lambda images: network.features(images.images))
    seen = None
    if held_out is not None:
        seen = _look(network, features_of(held_out), held_out.labels, coming=coming)
    network, seen, note = _settle(network, seen, usual=usual, calibrated=calibrated)
    familiarity = None
    if seen is not None and not images.is_streamed:
        assert held_out is not None
        known = images.subset(_few(images.labels, network.classes))
        statistics = network.texture(known.images), network.texture(held_out.images)
        familiarity = fit_familiarity(
            features_of(known),
            known.labels,
            seen.features,
            seen.logits,
            statistics=statistics,
            weights=seen.weights,
        )
    return Finished(Network(network.module, network.metadata, familiarity), _with_doubt(note, familiarity, seen))


def finish_on(
    network: Network,
    known: tuple[Tensor, Tensor],
    held_out: tuple[Tensor, Tensor],
    *,
    logits: Tensor | None = None,
    groups: tuple[Tensor, Tensor] | None = None,
    statistics: tuple[Tensor, Tensor] | None = None,
    is_unchanged: bool = False,
    calibrated: bool = False,
    coming: Tensor | None = None,
) -> Finished:
    """Do the same from features (N, D) and labels (N,) of `known` and `held_out` images, which themselves may be gone.

    The head was fitted to the held-out images by log loss, so its temperature is 1. Its `logits` (H, K) are given if it
    has also learned from some of them, which were then answered by another head. If no image was used to train the
    layers below the head, held-out images are compared with known ones, of other `groups` (N,) and (H,) if given, and
    may be among them. Otherwise `statistics` (N, P) and (H, P) of their texture may be given.
    """
    features, labels = known
    looked = _look(network, *held_out, logits=logits, coming=coming)
    fitted = Calibration(temperature=1.0, num_images=len(looked.labels), out_of_folds=logits is not None)
    network, seen, note = _settle(network, looked, usual=None, calibrated=calibrated, fitted=fitted)
    assert seen is not None
    few = _few(labels, network.classes)
    if is_unchanged:
        apart = None if groups is None else (groups[0][few], groups[1])
        familiarity = fit_frozen(features[few], seen.features, seen.logits, groups=apart, weights=seen.weights)
    else:
        some = None if statistics is None else (statistics[0][few], statistics[1])
        familiarity = fit_familiarity(
            features[few], labels[few], seen.features, seen.logits, statistics=some, weights=seen.weights
        )
    return Finished(Network(network.module, network.metadata, familiarity), _with_doubt(note, familiarity, looked))


def _with_doubt(note: str, familiarity: Familiarity | None, seen: _Seen | None) -> str:
    """Add that no picture will be called unlike the training pictures, if too few images are held out to do so."""
    if familiarity is not None or seen is None or num_effective(seen.labels, seen.weights) >= FEWEST:
        return note
    of = "" if len(seen.labels) < FEWEST else " of the classes that will be frequent"
    return f"{note}; no picture will be called unlike the training pictures, which takes {FEWEST} held-out images{of}"


def _settle(
    network: Network,
    seen: _Seen | None,
    *,
    usual: float | None,
    calibrated: bool,
    fitted: Calibration | None = None,
) -> tuple[Network, _Seen | None, str]:
    """Fit the temperature and the class sets."""
    if calibrated:
        calibration = network.metadata.calibration
        if calibration is None and seen is not None and not find_obstacle(seen.logits.numpy(), seen.labels.numpy()):
            calibration = fitted  # new rows beside those of a calibrated base
        note = calibration.words if calibration else "calibrated by the new classes' rows alone"
    else:
        calibration, note = _calibrate(seen, usual, fitted=fitted)
        if calibration is not None:
            network = divide(network, by=calibration)
            seen = seen and seen._replace(logits=seen.logits / calibration.temperature)
    class_sets = seen and fit_class_sets(
        seen.logits.softmax(dim=1).numpy(), seen.labels.numpy(), weights=_as_array(seen.weights)
    )
    metadata = network.metadata.model_copy(update={"calibration": calibration, "class_sets": class_sets})
    return Network(network.module, metadata), seen, note


@torch.no_grad()
def _look(
    network: Network, features: Tensor, labels: Tensor, *, logits: Tensor | None = None, coming: Tensor | None
) -> _Seen:
    if logits is None:
        logits = network.module.head(features.to(network.device)).float().cpu()
    if coming is None:
        return _Seen(features, logits, labels, None)
    weights = weigh(labels, coming=coming)
    weights = weights / weights.mean()
    are_equal = torch.allclose(weights, torch.ones_like(weights), rtol=1e-4)
    return _Seen(features, logits, labels, None if are_equal else weights)


def _as_array(weights: Tensor | None) -> NDArray[np.float64] | None:
    return None if weights is None else weights.double().numpy()


def _calibrate(
    seen: _Seen | None, usual: float | None, *, fitted: Calibration | None
) -> tuple[Calibration | None, str]:
    if seen is None:
        if usual is None:
            return None, "not calibrated: no images are held out"
        found = Calibration(temperature=usual)
        return found, found.words
    if fitted is not None and fitted.out_of_folds:  # which show every class, and need no mistakes
        return fitted, fitted.words
    logits, labels = seen.logits.numpy(), seen.labels.numpy()
    if obstacle := find_obstacle(logits, labels):
        return None, f"not calibrated: {obstacle}"
    if fitted is not None:
        return fitted, fitted.words
    temperature = fit_temperature(logits, labels, weights=_as_array(seen.weights))
    found = Calibration(temperature=temperature, num_images=len(labels))
    return found, found.words


def weigh(labels: Tensor, *, coming: Tensor) -> Tensor:
    """Return weights of images with labels (H,) for the expected class frequencies `coming` (K,)."""
    return (coming / labels.bincount(minlength=len(coming)))[labels]


@torch.no_grad()
def divide(network: Network, *, by: Calibration) -> Network:
    """Divide the logits by a temperature, by changing the head in place, and record the calibration."""
    head = network.module.head
    head.weight.div_(by.temperature)
    if head.bias is not None:
        head.bias.div_(by.temperature)
    metadata = network.metadata.model_copy(update={"calibration": by})
    return Network(network.module, metadata, network.familiarity)


def _few(labels: Tensor, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Choose the indices of the few training images per class that familiarity compares with."""
    return limit(labels.numpy(), classes=classes, num=-(-MOST // len(classes)))

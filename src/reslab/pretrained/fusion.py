"""A network fused with a pretrained one: both unchanged, with a common head that is still to be solved.

Axes: N images, D features.
"""

import numpy as np
import torch
from torch import Tensor, nn

from reslab import models
from reslab.data.images import ImageSet
from reslab.models.fusion import FusionClassifier
from reslab.network.inference import place_on
from reslab.network.network import Network
from reslab.pretrained import Pretrained, standardize_for, start_from
from reslab.recipe.networks import Fusion


def fuse(base: Network, options: Fusion, *, num_classes: int) -> FusionClassifier:
    """Fuse the base with the pretrained network; the head's rows of old classes are the base's, the rest are 0."""
    channels = base.channels
    with torch.random.fork_rng(devices=[]):
        module = models.build(options, num_classes=num_classes, channels=channels)
    assert isinstance(module, FusionClassifier)
    if isinstance(base.module, FusionClassifier):
        _load(module, base.module)
    else:
        pretrained = start_from(_name(options), options.pretrained, num_classes=1, channels=channels)
        _load(module.base, base.module)
        _load(module.pretrained, pretrained)
        own, wanted = base.metadata.standardize, standardize_for(channels)
        with torch.no_grad():
            for channel in range(channels):
                module.scale[channel] = own.std[channel] / wanted.std[channel]
                module.shift[channel] = (own.mean[channel] - wanted.mean[channel]) / wanted.std[channel]
    old = base.module.head
    with torch.no_grad():
        module.head.weight.zero_()[: old.out_features, : old.in_features] = old.weight
        module.head.bias.zero_()[: old.out_features] = 0.0 if old.bias is None else old.bias
    module.eval().settle()
    return place_on(module, base.device)


def _load(module: nn.Module, source: nn.Module) -> None:
    """Load all weights but the head's."""
    tensors = {name: value for name, value in source.state_dict().items() if not name.startswith("head.")}
    module.load_state_dict(module.state_dict() | tensors)


def compute_fused(network: Network, images: ImageSet) -> Tensor:
    """Compute features (N, D), the input of a fused network's head.

    Those of the pretrained network are cached, unless its weights have been trained further.
    """
    module, options = network.module, network.metadata.model
    assert isinstance(module, FusionClassifier)
    assert isinstance(options, Fusion)
    assert options.pretrained.resize is not None
    if not _is_published(module.pretrained, options, channels=network.channels):
        return network.features(images.images)
    second = Pretrained(_name(options), image_size=options.pretrained.resize).features(images.images)
    if module.is_twin:
        return torch.from_numpy(np.concatenate([second, second], axis=1))
    first = Network(module.base, network.metadata).features(images.images)
    return torch.cat([first, torch.from_numpy(second)], dim=1)


def _is_published(pretrained: nn.Module, options: Fusion, *, channels: int) -> bool:
    """Return whether the layers below the head have the weights that they began with."""
    published = start_from(_name(options), options.pretrained, num_classes=1, channels=channels).state_dict()
    return all(torch.equal(value.cpu(), published[name]) for name, value in pretrained.state_dict().items())


def _name(options: Fusion) -> str:
    return f"efficientnet_lite{options.pretrained.size}"

"""Grad-CAM: which places of an image spoke for the class that the network named.

Source: Selvaraju et al. 2017, "Grad-CAM", arXiv:1610.02391, as captum's LayerGradCam computes it.
Axes: N images, C channels, H rows, W columns; h, w of the last layer that has places.
"""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reslab.models.layers import Classifier

BATCH = 8


def heat_maps(model: Classifier, images: Tensor) -> NDArray[np.uint8] | None:
    """Compute heat maps (N, h, w) for standardised images (N, C, H, W), each one's largest value 255.

    What spoke against the class counts as 0. Nothing where captum is not installed or no layer has places.
    """
    try:
        from captum.attr import LayerGradCam
    except ModuleNotFoundError:
        return None
    device = next(model.parameters()).device
    layer = find_last_layer(model, images[:1].to(device))
    if layer is None:
        return None
    looking = LayerGradCam(model, layer)
    found = [_maps_of(looking, chunk.to(device), model) for chunk in torch.split(images, BATCH)]
    maps = torch.cat(found)
    peaks = maps.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    scaled: NDArray[np.uint8] = (255 * maps / peaks).round().byte().numpy()
    return scaled


def _maps_of(looking: object, images: Tensor, model: Classifier) -> Tensor:
    with torch.no_grad():
        predicted = model(images).argmax(dim=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum's hooks on layers that work in place
        maps: Tensor = looking.attribute(images, target=predicted, relu_attributions=True)  # type: ignore[attr-defined]
    return maps.detach().float().mean(dim=1).cpu()


@torch.no_grad()
def find_last_layer(model: Classifier, images: Tensor) -> nn.Module | None:
    """Find the last layer of the features whose output (N, C, h, w) still has several places."""
    found: list[nn.Module] = []

    def note(layer: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            found.append(layer)

    layers = [layer for layer in model.modules() if not list(layer.children())]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        model.features(images)
    finally:
        for handle in handles:
            handle.remove()
    return found[-1] if found else None

"""Heat maps: where in an image the evidence for a class lies.

Source: Selvaraju et al. 2017, "Grad-CAM", arXiv:1610.02391.
Differs from it: each position is multiplied by its own gradient instead of their mean, as Draelos and Carin 2020 do
(HiResCAM, arXiv:2011.08891) and captum's LayerGradientXActivation computes; if a network averages its last map
directly, both are the same.
Axes: N images, C channels, H rows, W columns, T classes of each image; h, w of the last map with spatial extent.
"""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reslab.errors import without_widgets
from reslab.models.layers import ImageClassifier

BATCH = 16  # gradients need the activations of every layer


def heat_maps(model: ImageClassifier, images: Tensor) -> NDArray[np.uint8] | None:
    """Compute heat maps (N, h, w) for the predicted classes, each scaled to a maximum of 255.

    Evidence against the class counts as 0. Empty if no layer has spatial extent; None if captum is not installed.
    """
    images = images.to(next(model.parameters()).device)
    with torch.no_grad():
        named = model(images).argmax(dim=1, keepdim=True)
    try:
        maps = evidence_maps(model, images, classes=named)
    except ModuleNotFoundError:
        return None
    if maps is None:
        return np.empty((0, 0, 0), np.uint8)
    heat = maps[:, 0].clamp(min=0)
    peaks = heat.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    scaled: NDArray[np.uint8] = (255 * heat / peaks).round().byte().numpy()
    return scaled


def evidence_maps(model: ImageClassifier, images: Tensor, *, classes: Tensor) -> Tensor | None:
    """Spread the logits of `classes` (N, T) over the last feature map of standardised images: (N, T, h, w).

    If the features are pooled from that map by a mean or a maximum, the evidence adds up to the logit without the
    head's bias. None if no layer has spatial extent. Raises: ModuleNotFoundError without captum.
    """
    with without_widgets():
        from captum.attr import LayerGradientXActivation

    layer = find_last_layer(model, images[:1])
    if layer is None:
        return None
    num = classes.shape[1]
    spreading = LayerGradientXActivation(model, layer)
    expanded = images.repeat_interleave(num, dim=0)
    parts = zip(torch.split(expanded, BATCH), torch.split(classes.flatten(), BATCH), strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum's hooks on layers that work in place
        maps = torch.cat([spreading.attribute(some, target=labels).detach().sum(dim=1) for some, labels in parts])
    return maps.float().cpu().reshape(len(images), num, *maps.shape[1:])


@torch.no_grad()
def find_last_layer(model: ImageClassifier, images: Tensor) -> nn.Module | None:
    """Find the last feature layer whose output (N, C, h, w) still has spatial extent."""
    found: list[nn.Module] = []

    def note(layer: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            found.append(layer)

    handles = [layer.register_forward_hook(note) for layer in model.modules()]
    try:
        model.features(images)
    finally:
        for handle in handles:
            handle.remove()
    return found[-1] if found else None

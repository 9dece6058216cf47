"""Where in an image the evidence for a class lies.

Source: Draelos and Carin 2020, "Use HiResCAM instead of Grad-CAM for faithful explanations", arXiv:2011.08891; for a
network that averages its last map it is the class activation map of Zhou et al. 2016, arXiv:1512.04150.
Axes: N images, C channels, H rows, W columns, T classes of each image, K classes.
"""

import torch
from torch import Tensor

from reslab.models import Classifier

IMAGES_AT_ONCE = 16  # every layer's results are kept, so that a gradient can be taken


def evidence_maps(model: Classifier, images: Tensor, *, classes: Tensor) -> Tensor:
    """Spread the logits of `classes` (N, T) over the last map of features of standardised images: (N, T, h, w).

    Where the features are pooled from that map by a mean or a maximum, the evidence adds up to the logit without the
    head's bias.
    """
    parts = zip(torch.split(images, IMAGES_AT_ONCE), torch.split(classes, IMAGES_AT_ONCE), strict=True)
    return torch.cat([_spread(model, *part) for part in parts])


def _spread(model: Classifier, images: Tensor, classes: Tensor) -> Tensor:
    last: dict[str, Tensor] = {}

    def keep(_module: object, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            last["map"] = output

    hooks = [module.register_forward_hook(keep) for module in model.modules()]
    try:
        with torch.enable_grad():
            # Frozen or not: what depends on the images has a gradient.
            logits = model(images.requires_grad_()).gather(1, classes)
            gradients = [torch.autograd.grad(each.sum(), last["map"], retain_graph=True)[0] for each in logits.T]
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack([(last["map"] * gradient).sum(1) for gradient in gradients], dim=1).detach()

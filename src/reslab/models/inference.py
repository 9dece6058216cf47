"""Images to logits, without gradients and in bounded memory; with or without test-time augmentation.

Axes: N images, C channels, H rows, W columns, K classes.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from reslab.models.layers import Classifier

VIEWS = (1, 2, 6)


def predict_logits(
    model: Classifier, images: Tensor, *, prepare: Callable[[Tensor], Tensor], views: int = 1, batch_size: int = 500
) -> Tensor:
    """Compute logits (N, K) float32 on the CPU for stored images (N, C, H, W), the mean over `views` of each.

    `prepare` turns stored pixels into what the network takes. One view is the image itself; two add its mirror image;
    six are both of them as they are, moved one pixel up and left, and one down and right, the border repeated.
    """
    if views not in VIEWS:
        raise ValueError(f"{views} views: choose one of {VIEWS}")
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        logits = [
            _mean_logits(model, prepare(chunk.to(device)), views).cpu() for chunk in torch.split(images, batch_size)
        ]
    model.train(was_training)
    return torch.cat(logits)


def _mean_logits(model: Classifier, batch: Tensor, views: int) -> Tensor:
    logits = [model(view).float() for view in _views(batch, views)]
    return torch.stack(logits).mean(0) if len(logits) > 1 else logits[0]


def _views(batch: Tensor, views: int) -> Iterator[Tensor]:
    rows, columns = batch.shape[2:]
    padded = F.pad(batch, (1,) * 4, mode="replicate") if views == 6 else batch
    for place in (1, 0, 2) if views == 6 else (0,):
        moved = padded[:, :, place : place + rows, place : place + columns]
        yield moved
        if views > 1:
            yield moved.flip(3)

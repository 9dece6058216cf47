"""Inference: logits of images, without gradients and in bounded memory, optionally with test-time augmentation.

Axes: N images, C channels, H rows, W columns, K classes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reslab.data.progress import counting
from reslab.errors import UserError
from reslab.models.layers import ImageClassifier
from reslab.network.folding import fold
from reslab.network.texture import describe_texture

VIEWS = (1, 2, 6)
# Few enough for activations to stay in a processor's cache, and many enough to keep a GPU busy.
IMAGES_PER_THREAD, IMAGES_ON_A_GPU = 64, 500

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Stored(Protocol):
    """Images (N, C, H, W) uint8, in memory or not."""

    def __len__(self) -> int: ...

    def __getitem__(self, places: slice, /) -> Tensor: ...


def place_on(module: ModuleT, device: torch.device) -> ModuleT:
    """Move a network to a device in channels-last memory format, which is fastest for convolutions."""
    return module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def predict_logits(
    model: ImageClassifier,
    images: Stored,
    *,
    prepare: Callable[[Tensor], Tensor],
    views: int = 1,
) -> Tensor:
    """Compute logits (N, K) float32 on the CPU for stored images (N, C, H, W), the mean over `views` of each.

    `prepare` turns stored pixels into the network's input, on its device. One view is the image itself; two add its
    mirror image; six are both of them unshifted, shifted one pixel up and left, and one down and right, with the border
    repeated.
    """
    if views not in VIEWS:
        raise UserError(f"{views} views: choose one of {VIEWS}")
    with _evaluating(model), torch.inference_mode():
        network = fold(model)
        logits = [_mean_logits(network, prepare(batch), views).cpu() for batch in _split(images, model)]
    return torch.cat(logits)


def predict_features(model: ImageClassifier, images: Stored, *, prepare: Callable[[Tensor], Tensor]) -> Tensor:
    """Compute features (N, D) float32 on the CPU for stored images (N, C, H, W); they may be used in training."""
    with _evaluating(model), torch.no_grad():
        return torch.cat([model.features(prepare(batch)).float().cpu() for batch in _split(images, model)])


def predict_texture(model: ImageClassifier, images: Stored, *, prepare: Callable[[Tensor], Tensor]) -> Tensor:
    """Compute the statistics (N, P) float32 on the CPU of the texture of stored images (N, C, H, W)."""
    with torch.inference_mode():
        return torch.cat([describe_texture(prepare(batch)).cpu() for batch in _split(images, model)])


def predict_with(
    model: ImageClassifier,
    images: Stored,
    *,
    prepare: Callable[[Tensor], Tensor],
    measure: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Compute the logits as `predict_logits`, and the values (N,) of `measure` for each batch.

    It is given features, logits and input of the network.
    """
    with _evaluating(model), torch.inference_mode():
        network = fold(WithFeatures(model))
        parts = []
        for batch in _split(images, model):
            prepared = prepare(batch)
            features, logits = (each.float().cpu() for each in network(prepared))
            parts.append((logits, measure(features, logits, prepared.cpu())))
    logits, measured = zip(*parts, strict=True)
    return torch.cat(logits), torch.cat(measured)


class WithFeatures(nn.Module):
    """A network that returns both features and logits."""

    def __init__(self, model: ImageClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.features(images)
        return features, self.model.head(features)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode within the block."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _split(images: Stored, model: nn.Module) -> Iterator[Tensor]:
    """Yield batches of images sized for the model's device; without images, one empty batch."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    batch_size = IMAGES_PER_THREAD * torch.get_num_threads() if on_cpu else IMAGES_ON_A_GPU
    for start in range(0, max(1, len(images)), batch_size):
        yield images[start : start + batch_size]


def _mean_logits(network: nn.Module, batch: Tensor, views: int) -> Tensor:
    logits: list[Tensor] = [network(view).float() for view in _views(batch, views)]
    return torch.stack(logits).mean(0)


def _views(batch: Tensor, views: int) -> Iterator[Tensor]:
    """Yield views into the batch and into its mirror image, so that memory holds only these two."""
    rows, columns = batch.shape[2:]
    batch = batch.contiguous(memory_format=torch.channels_last)
    padded = F.pad(batch, (1,) * 4, mode="replicate") if views == 6 else batch
    mirrored = padded.flip(3) if views > 1 else padded
    for place in (1, 0, 2) if views == 6 else (0,):
        down = slice(place, place + rows)
        yield padded[:, :, down, place : place + columns]
        if views > 1:
            yield mirrored[:, :, down, padded.shape[3] - columns - place : padded.shape[3] - place]


@contextmanager
def watching(images: Stored, what: str) -> Iterator[Stored]:
    """Yield the same images (N, C, H, W), showing progress by `counting` while they are read in order."""
    with counting(what, total=len(images), unit="images") as show:
        yield _Watched(images, show)


class _Watched:
    def __init__(self, images: Stored, show: Callable[[int], None]) -> None:
        self.images, self.show = images, show

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, places: slice, /) -> Tensor:
        self.show(places.start)
        return self.images[places]

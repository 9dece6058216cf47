"""Pictures from files to classes, by a run folder or a weights file alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from reslab.data.batches import standardize
from reslab.data.folder import decode
from reslab.errors import UserError
from reslab.evaluation.predict import load_classifier
from reslab.metrics import softmax
from reslab.models.inference import predict_logits

# The weights of red, green and blue in a grey value (ITU-R BT.601), as Pillow has them.
LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Answer:
    """What the network says of one file: its most probable classes, the first one first, with their probabilities."""

    file: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


def classify(files: Sequence[Path], *, weights: Path, top: int = 3, device: str = "auto") -> list[Answer]:
    """Name the `top` most probable classes of each picture.

    Raises: UserError where the weights or a picture cannot be read, or the network takes neither grey nor RGB images.
    """
    model, known = load_classifier(weights, device=device)
    if known.channels not in (1, 3):
        raise UserError(f"{weights} is for images of {known.channels} channels: pictures are grey or RGB, with 1 or 3")
    pixels = np.stack([_with_channels(decode(file, image_size=known.image_size), known.channels) for file in files])
    logits = predict_logits(
        model, torch.from_numpy(pixels), prepare=lambda images: standardize(images, by=known.standardize)
    )
    probabilities = softmax(logits.numpy())
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [
        Answer(
            file=str(file),
            classes=tuple(known.classes[place] for place in places),
            probabilities=tuple(float(row[place]) for place in places),
        )
        for file, row, places in zip(files, probabilities, best, strict=True)
    ]


def _with_channels(image: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Turn (3, H, W) into grey (1, H, W) where the network was trained on grey images."""
    if channels == 3:
        return image
    return np.rint(np.tensordot(LUMA, image, axes=1))[None].astype(np.uint8)

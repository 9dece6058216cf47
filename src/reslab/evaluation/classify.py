"""Pictures from files to classes, by a run folder or a weights file alone."""

from collections.abc import Sequence
from pathlib import Path

import torch

from reslab.data.batches import standardize
from reslab.data.pictures import Answer, name_best, read_pictures
from reslab.evaluation.predict import load_classifier
from reslab.measure.metrics import softmax
from reslab.network.inference import predict_logits


def classify(files: Sequence[Path], *, weights: Path, top: int = 3, device: str = "auto") -> list[Answer]:
    """Name the `top` most probable classes of each picture.

    Raises: UserError where the weights or a picture cannot be read, or the network takes neither grey nor RGB images.
    """
    model, known = load_classifier(weights, device=device)
    pixels = torch.from_numpy(read_pictures(files, image_size=known.image_size, channels=known.channels))
    logits = predict_logits(model, pixels, prepare=lambda images: standardize(images, by=known.standardize))
    return name_best(files, probabilities=softmax(logits.numpy()), classes=known.classes, top=top)

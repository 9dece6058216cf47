"""Pictures from files to classes, by a run folder or a weights file alone."""

from collections.abc import Sequence
from pathlib import Path

import torch

from reslab.data.pictures import Answer, name_best, read_pictures
from reslab.machine import kernels
from reslab.measure.metrics import softmax
from reslab.network.network import Network


def classify(files: Sequence[Path], *, weights: Path, top: int = 3, device: str = "auto") -> list[Answer]:
    """Name the `top` most probable classes of each picture.

    Raises: UserError where the weights or a picture cannot be read, or the network takes neither grey nor RGB images.
    """
    network = Network.load(weights, device=device)
    kernels.enable(network.device)
    pixels = torch.from_numpy(
        read_pictures(files, image_size=network.image_size, channels=network.channels, resize=network.resizing)
    )
    return name_best(files, probabilities=softmax(network.logits(pixels).numpy()), classes=network.classes, top=top)

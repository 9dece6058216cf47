"""Pictures from files to classes, by a run folder or a weights file alone."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reslab.data.answers import Unread, all_read, answer_all
from reslab.data.pictures import Answer
from reslab.machine import kernels
from reslab.measure.metrics import softmax
from reslab.network.network import Network


def classify(files: Sequence[Path], *, weights: Path, top: int = 3, device: str = "auto") -> list[Answer]:
    """Name the most probable classes of pictures.

    Parameters
    ----------
    files : sequence of Path
        The pictures; they are resized to the size that the network takes.
    weights : Path
        A run folder, or a `model.safetensors`.
    top : int, default 3
        How many classes to name of each picture.
    device : str, default "auto"
        `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU where there is one.

    Returns
    -------
    list of Answer
        For each file its `classes`, the most probable one first, and their `probabilities`.

    Raises
    ------
    UserError
        Where the weights or a picture cannot be read, or the network takes neither grey nor RGB images.

    Examples
    --------
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> import reslab
    >>> Image.fromarray(reslab.load("digits:7", "test", image_size=8).images[0, 0].numpy()).save("seven.png")
    >>> (answer,) = reslab.classify([Path("seven.png")], weights=Path("runs/digits"), top=2)
    >>> answer.file, answer.classes[0]
    ('seven.png', '7')
    """
    return all_read(classify_each(files, weights=weights, top=top, device=device))


def classify_each(
    files: Sequence[Path], *, weights: Path, top: int = 3, device: str = "auto"
) -> Iterator[Answer | Unread]:
    """Name the `top` most probable classes of each picture, or say why it cannot be read, a few at a time.

    Raises: UserError where the weights cannot be read, or the network takes neither grey nor RGB images.
    """
    network = Network.load(weights, device=device)
    kernels.enable(network.device)

    def probabilities(images: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
        return softmax(network.logits(torch.from_numpy(images)).numpy())

    return answer_all(
        files,
        probabilities,
        classes=network.classes,
        image_size=network.image_size,
        channels=network.channels,
        resize=network.resizing,
        top=top,
    )

"""Pictures from files to classes, by a run folder or a weights file alone."""

from collections.abc import Sequence
from pathlib import Path

import torch

from reslab.data.pictures import Answer, name_best, read_pictures
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
    network = Network.load(weights, device=device)
    kernels.enable(network.device)
    pixels = torch.from_numpy(read_pictures(files, image_size=network.image_size, channels=network.channels))
    return name_best(files, probabilities=softmax(network.logits(pixels).numpy()), classes=network.classes, top=top)

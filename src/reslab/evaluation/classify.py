"""Classify picture files by a run folder, or by a weights file alone."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from reslab.data.answers import Unread, all_read, answer_all
from reslab.data.pictures import ANSWERED, Answer, Said, Wanted
from reslab.machine import kernels
from reslab.measure.class_sets import find_threshold
from reslab.network.network import Network


def classify(
    files: Sequence[Path | str],
    *,
    weights: Path | str,
    top: int = 3,
    answer: float = ANSWERED,
    coverage: float | None = None,
    device: str = "auto",
) -> list[Answer]:
    """Return the most probable classes of pictures.

    Parameters
    ----------
    files : sequence of Path or str
        The pictures; they are resized to the size that the network takes.
    weights : Path or str
        A run folder, a `model.safetensors`, or `demo`: a CIFAR-10 network that comes with reslab.
    top : int, default 3
        Number of classes to return for each picture.
    answer : float, default 0.95
        The share of pictures like the training images to answer. Others are guessed: their `answered` is False.
    coverage : float, optional
        Also return a `class_set` for each answered picture, which contains the true class in this share of cases.
    device : str, default "auto"
        `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU if there is one.

    Returns
    -------
    list of Answer
        For each file its `classes`, the most probable one first, their `probabilities`, and whether it is `answered`.

    Raises
    ------
    UserError
        If the weights or a picture cannot be read, the network takes neither grey nor RGB images, or too few images
        were held out for the coverage.

    Examples
    --------
    >>> from PIL import Image
    >>> import reslab
    >>> Image.fromarray(reslab.load("digits:7", "test", image_size=8).images[0, 0].numpy()).save("seven.png")
    >>> (answer,) = reslab.classify(["seven.png"], weights="runs/digits", top=2)
    >>> answer.file, answer.classes[0]
    ('seven.png', '7')
    """
    paths = [Path(file) for file in files]
    return all_read(classify_each(paths, weights=weights, top=top, answer=answer, coverage=coverage, device=device))


def classify_each(
    files: Sequence[Path],
    *,
    weights: Path | str,
    top: int = 3,
    answer: float = ANSWERED,
    coverage: float | None = None,
    device: str = "auto",
) -> Iterator[Answer | Unread]:
    """Yield the `top` most probable classes of each picture, or why it cannot be read, a few at a time.

    Raises: UserError if the weights cannot be read, the network takes neither grey nor RGB images, or too few images
    were held out for the coverage.
    """
    network = Network.load(weights, device=device)
    threshold = None if coverage is None else find_threshold(network.metadata.class_sets, coverage=coverage)
    kernels.enable(network.device)

    def say(images: NDArray[np.uint8]) -> Said:
        probabilities, familiarity = network.answer(torch.from_numpy(images))
        return Said(probabilities.numpy(), None if familiarity is None else familiarity.numpy())

    return answer_all(
        files,
        say,
        classes=network.classes,
        image_size=network.image_size,
        channels=network.channels,
        resize=network.resize,
        white=network.white,
        wanted=Wanted(top, answer, threshold),
    )

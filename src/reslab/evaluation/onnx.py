"""Compare exported files with the network that they were made from, in accuracy and speed.

Axes: N images, C channels, H rows, W columns, K classes.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from reslab.data.images import ImageSet
from reslab.data.recipe_data import describe_change, read_split_of
from reslab.errors import UserError, in_shell
from reslab.machine import kernels
from reslab.measure.estimates import gain, share_of
from reslab.network.folding import fold
from reslab.network.network import Network
from reslab.network.onnx_file import OnnxFile
from reslab.records import Estimate
from reslab.runs import Run

BATCH = 100

ToLogits = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # stored pixels (N, C, H, W) to logits (N, K)


class Raced(NamedTuple):
    """Which images (N,) a network classified correctly, and its images per second."""

    right: NDArray[np.bool_]
    images_per_second: float


@dataclass(frozen=True)
class Measured:
    """A file's accuracy, its change from PyTorch's with a paired interval (None for PyTorch itself), and its speed."""

    file: str
    accuracy: Estimate
    change: Estimate | None
    images_per_second: float


@dataclass(frozen=True)
class OnnxEvaluation:
    """Files measured on the test split; the first entry is PyTorch itself."""

    num_images: int
    files: tuple[Measured, ...]


def evaluate_onnx(
    run: Run, *, files: Sequence[Path], data_dir: Path | None = None, allow_remote: bool = False
) -> OnnxEvaluation:
    """Measure exported files on the test split of the run that they were made from, on the CPU.

    Parameters
    ----------
    run : Run
        The run, evaluated on its test split.
    files : sequence of Path
        ONNX files written by `export`.
    data_dir : Path, optional
        Folder of downloaded data, instead of `$RESLAB_DATA` or the cache directory.
    allow_remote : bool, default False
        Whether machines named in the run's recipe may be contacted.

    Returns
    -------
    OnnxEvaluation
        Accuracy in [0, 1] and images per second of PyTorch, then of each file, with the change in accuracy.

    Raises
    ------
    UserError
        If a file is not for the run's classes, or the test split is not the one that was evaluated.

    Examples
    --------
    >>> from pathlib import Path
    >>> import reslab
    >>> found = reslab.evaluate_onnx(reslab.Run.open("runs/digits"), files=[Path("digits.onnx")])
    >>> found.num_images, found.files[1].file, found.files[1].change.value
    (108, 'digits.onnx', 0.0)
    """
    network = Network.load(run.path, device="cpu")
    kernels.enable(network.device)
    opened = [OnnxFile(file, threads=torch.get_num_threads()) for file in files]
    for each in opened:
        known = each.description
        images_of = (known.channels, known.image_size, known.resize, known.white)
        wanted = (network.channels, network.image_size, network.resize, network.white)
        if known.classes != network.classes or images_of != wanted:
            raise UserError(f"{each.path} is not for the classes and images of {run.path}: export that run")
    images = read_split_of(run, "test", data_dir=data_dir, allow_remote=allow_remote)
    recorded = run.environment.data
    if "test" not in {data.split for data in recorded}:
        raise UserError(
            f"{run.path} has not been evaluated on its test split: run reslab evaluate {in_shell(run.path)} first"
        )
    if change := describe_change(images, recorded=recorded):
        raise UserError(f"{change}, so {run.path} was evaluated on other images: train it again")
    raced = race([_by_pytorch(network), *(each.predict_logits for each in opened)], images)
    names = ["PyTorch", *map(str, files)]
    return OnnxEvaluation(
        num_images=len(images.labels),
        files=tuple(_measure(name, each, raced[0]) for name, each in zip(names, raced, strict=True)),
    )


def _by_pytorch(network: Network) -> ToLogits:
    folded = fold(network.module)

    def predict(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: torch.Tensor = folded(network.prepare(torch.from_numpy(pixels)))
        return logits.numpy()

    return predict


def race(networks: Sequence[ToLogits], images: ImageSet) -> list[Raced]:
    """Time networks on the same images, in turn batch by batch, so that other load slows all of them alike."""
    for network in networks:
        network(images.images[:BATCH].numpy())  # the first call allocates memory
    predicted: list[list[NDArray[np.int64]]] = [[] for _ in networks]
    seconds = [0.0] * len(networks)
    for start in range(0, len(images.labels), BATCH):
        batch = images.images[start : start + BATCH].numpy()
        for place, network in enumerate(networks):
            began = time.perf_counter()
            logits = network(batch)
            seconds[place] += time.perf_counter() - began
            predicted[place].append(logits.argmax(axis=1))
    labels = images.labels.numpy()
    return [
        Raced(np.concatenate(each) == labels, len(labels) / taken)
        for each, taken in zip(predicted, seconds, strict=True)
    ]


def _measure(name: str, raced: Raced, reference: Raced) -> Measured:
    return Measured(
        file=name,
        accuracy=share_of(raced.right),
        change=None if raced is reference else gain(reference.right, after=raced.right),
        images_per_second=raced.images_per_second,
    )

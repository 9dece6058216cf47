"""A trained network with everything needed for prediction: stored pixels in, logits out.

Axes: N images, C channels, H rows, W columns, D features, K classes.
"""

from pathlib import Path

import torch
from torch import Tensor

from reslab import models
from reslab.data.batches import standardize
from reslab.data.images import ImageSet
from reslab.data.storage.blocks import resize
from reslab.errors import UserError
from reslab.machine.device import pick_device
from reslab.machine.memory import keep_freed_memory
from reslab.models.layers import ImageClassifier
from reslab.network.familiarity import Familiarity, read_familiarity
from reslab.network.inference import (
    Stored,
    place_on,
    predict_features,
    predict_logits,
    predict_texture,
    predict_with,
)
from reslab.recipe.recipe import Recipe, Standardize
from reslab.recipe.shapes import Resizing
from reslab.records import FAMILIARITY, Weights
from reslab.runs import pack_weights, read_weights, write_bytes


class Network:
    """A trained network: its layers, class names, image size and normalisation.

    Convolutions are PyTorch's unless `reslab.machine.kernels.enable` was called, as reslab's commands do.

    Parameters
    ----------
    module : ImageClassifier
        The layers, which take standardised images; they are not copied or moved.
    metadata : Weights
        Architecture, classes and preprocessing: the metadata of a `model.safetensors`.
    familiarity : Familiarity, optional
        Measures how similar a picture is to the training images.

    Attributes
    ----------
    classes : tuple of str
        The names of the K classes, in the order of the logits.
    channels : int
        Channels of its images: 1 is grey, 3 is RGB.
    image_size : int
        Side in pixels of the images that `module` takes; others are resized.
    device : torch.device
        The device of `module`.

    Examples
    --------
    >>> import reslab
    >>> network = reslab.Network.load("runs/digits")
    >>> network.classes, network.channels, network.image_size
    (('1', '4', '7'), 1, 8)
    >>> images = reslab.load("digits:1,4,7", "train").images[:4]
    >>> [network.classes[label] for label in network.logits(images, views=2).argmax(1)]
    ['1', '4', '7', '1']
    >>> network.save("digits.safetensors")
    >>> again = reslab.Network.load("digits.safetensors")
    >>> bool((again.logits(images) == network.logits(images)).all())
    True
    """

    def __init__(self, module: ImageClassifier, metadata: Weights, familiarity: Familiarity | None = None) -> None:
        self.module, self.metadata, self.familiarity = module, metadata, familiarity

    @classmethod
    def load(cls, path: Path | str, *, device: str = "auto") -> "Network":
        """Load the network of a finished run.

        Parameters
        ----------
        path : Path or str
            A run folder, a `model.safetensors` of any name, or `demo`: a CIFAR-10 network that comes with reslab.
        device : str, default "auto"
            `cpu`, `cuda` or `cuda:N`; `auto` is the first GPU if there is one.

        Returns
        -------
        Network
            Ready to predict.

        Raises
        ------
        UserError
            If the file is missing or damaged, its weights do not fit the network that it names, or the device is not
            available.
        """
        keep_freed_memory()
        chosen = pick_device(device)
        tensors, metadata = read_weights(Path(path))
        module = models.restore(
            metadata.model,
            {name: value for name, value in tensors.items() if not name.startswith(FAMILIARITY)},
            num_classes=len(metadata.classes),
            channels=metadata.channels,
            where=f"the weights in {path}",
        )
        if len(metadata.standardize.mean) != metadata.channels:
            raise UserError(
                f"{path} is damaged: it standardises {len(metadata.standardize.mean)} channels of {metadata.channels}"
            )
        if metadata.image_size < metadata.model.smallest_image:
            raise UserError(
                f"{path} is damaged: its images have {metadata.image_size} pixels a side, its network needs "
                f"{metadata.model.smallest_image} or more"
            )
        image = metadata.channels, metadata.image_size
        familiarity = read_familiarity(tensors, num_features=module.head.in_features, image=image, path=Path(path))
        return cls(place_on(module, chosen), metadata, familiarity)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.metadata.classes

    @property
    def channels(self) -> int:
        return self.metadata.channels

    @property
    def image_size(self) -> int:
        return self.metadata.image_size

    @property
    def resize(self) -> Resizing:
        """How images that are not square become square."""
        return self.metadata.resize

    @property
    def white(self) -> int | None:
        """The value that becomes white in grey pictures of more than 8 bits; None if it has learned from none."""
        return self.metadata.white

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def logits(self, pixels: Stored, *, views: int = 1) -> Tensor:
        """Compute logits.

        Parameters
        ----------
        pixels : Tensor
            Stored images (N, C, H, W), uint8, of any size.
        views : {1, 2, 6}, default 1
            Test-time augmentation: average over this many views of each image. Two add its mirror image; six also
            shift both by a pixel up and left, and down and right.

        Returns
        -------
        Tensor
            (N, K), float32, on the CPU.

        Raises
        ------
        UserError
            If the images have another number of channels, or are not uint8.
        """
        return predict_logits(self.module, pixels, prepare=self.prepare, views=views)

    def features(self, pixels: Stored) -> Tensor:
        """Compute features (N, D) float32 on the CPU, the head's input, for images (N, C, H, W) as in `logits`."""
        return predict_features(self.module, pixels, prepare=self.prepare)

    def texture(self, pixels: Stored) -> Tensor:
        """Compute the statistics (N, P) float32 of colours and contours that familiarity compares, as in `logits`."""
        return predict_texture(self.module, pixels, prepare=self.prepare)

    def answer(self, pixels: Stored) -> tuple[Tensor, Tensor | None]:
        """Compute probabilities and familiarity.

        Parameters
        ----------
        pixels : Tensor
            Stored images (N, C, H, W), uint8, of any size.

        Returns
        -------
        probabilities : Tensor
            (N, K), float32: calibrated if images were held out.
        familiarity : Tensor or None
            (N,), in (0, 1]: the share of held-out images that are no more like the training images. Of pictures like
            those, at most 5 % have 0.05 or less. None if too few were held out.
        """
        logits, familiarity = self.logits_and_familiarity(pixels)
        return logits.softmax(dim=1), familiarity

    def logits_and_familiarity(self, pixels: Stored) -> tuple[Tensor, Tensor | None]:
        """Compute logits (N, K), and familiarity (N,) as in `answer`, of stored images (N, C, H, W)."""
        if self.familiarity is None:
            return self.logits(pixels), None
        return predict_with(self.module, pixels, prepare=self.prepare, measure=self.familiarity)

    def prepare(self, pixels: Tensor) -> Tensor:
        """Turn stored images (N, C, H, W) uint8 into the input of `module`: resized, standardised, on its device.

        Raises: UserError if the images have another number of channels, or are not uint8.
        """
        if pixels.ndim != 4 or pixels.shape[1] != self.channels or pixels.dtype != torch.uint8:
            raise UserError(
                f"images of shape {tuple(pixels.shape)} and type {pixels.dtype} are not for this network: give it "
                f"(N, {self.channels}, H, W) of torch.uint8"
            )
        if pixels.shape[2:] != (self.image_size, self.image_size):
            pixels = torch.from_numpy(resize(pixels.cpu().numpy(), self.image_size, self.resize))
        standardized = standardize(pixels.to(self.device), by=self.metadata.standardize)
        return standardized.contiguous(memory_format=torch.channels_last)

    def to_bytes(self, *, compact: bool = False) -> bytes:
        """Serialize to a self-contained `model.safetensors`, with 8-bit weights if `compact`."""
        tensors = {name: value.cpu().numpy() for name, value in self.module.state_dict().items()}
        known = self.familiarity.to_tensors() if self.familiarity is not None else {}
        return pack_weights(tensors | known, self.metadata, compact=compact)

    def save(self, path: Path | str) -> None:
        """Write a `model.safetensors` atomically. Raises: Failure if it cannot be written."""
        write_bytes(Path(path), self.to_bytes())


def describe_weights(recipe: Recipe, images: ImageSet, *, by: Standardize) -> Weights:
    """Describe a network of a recipe that was trained on `images`, standardised by `by`, and is not calibrated yet."""
    return Weights(
        model=recipe.model,
        classes=images.classes,
        channels=images.images.shape[1],
        image_size=recipe.image_size,
        resize=recipe.resize,
        white=images.white,
        standardize=by,
    )

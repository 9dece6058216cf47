"""A network as it is exported: a picture's pixels in, logits and probabilities out.

Axes: N images, P channels of a picture, C channels of the network, H rows, W columns, S side of its squares, K classes.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from reslab.data.pictures import LUMA
from reslab.errors import UserError
from reslab.exporting.resizing import resize_any
from reslab.network.network import Network
from reslab.network.onnx_file import AXES, INPUT, picture_channels
from reslab.recipe.networks import Fusion, Model, Module, Timm


class Deployed(nn.Module):
    """A classifier with everything before and after it: resizing, standardisation, and familiarity if it has one.

    Without `any_size`, pictures must have the network's own size, and the graph does not resize.
    """

    mean: Tensor
    std: Tensor
    luma: Tensor

    def __init__(self, network: Network, *, any_size: bool) -> None:
        super().__init__()
        by = network.metadata.standardize
        self.model, self.familiarity = network.module, network.familiarity
        self.side, self.resize, self.any_size = network.image_size, network.resize, any_size
        self.is_grey = network.channels == 1
        self.register_buffer("mean", torch.tensor(by.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(by.std)[:, None, None])
        self.register_buffer("luma", torch.tensor(LUMA, dtype=torch.float32)[:, None, None])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Turn pixels (N, H, W, P) uint8 into logits (N, K), probabilities (N, K) and familiarity (N,)."""
        pixels = images.permute(0, 3, 1, 2)
        pixels = resize_any(pixels, side=self.side, resize=self.resize) if self.any_size else pixels.float()
        if self.is_grey:
            pixels = (pixels * self.luma).sum(dim=1, keepdim=True).round()
        standardized = (pixels - self.mean) / self.std
        features = self.model.features(standardized)
        logits = self.model.head(features)
        answers = logits, logits.softmax(dim=1)
        return answers if self.familiarity is None else (*answers, self.familiarity(features, logits, standardized))


def trace(network: Network, *, any_size: bool = True) -> ExportedProgram:
    """Trace the graph of a network, for any number of images of any size; convolutions are PyTorch's own."""
    # Made for this: with a view into a data set, the file would contain the whole set.
    sides = (2 * network.image_size + 3, 3 * network.image_size + 1) if any_size else [network.image_size] * 2
    example = torch.zeros(2, *sides, picture_channels(network.channels), dtype=torch.uint8)
    free = AXES if any_size else AXES[:1]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            Deployed(network, any_size=any_size).eval(),
            (example,),
            dynamic_shapes={INPUT: {place: Dim(name) for place, name in enumerate(free)}},
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names folders of this machine
    return program


@contextmanager
def naming_foreign(model: Model) -> Iterator[None]:
    """Within the block, say in a sentence that PyTorch cannot export a user's own network, whose code may do anything.

    Raises: UserError instead of PyTorch's errors.
    """
    own = model.base if isinstance(model, Fusion) else model
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not isinstance(own, Module | Timm):
            raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"PyTorch cannot export {own.title} ({reason}): change what in its code depends on the values of images"
        ) from None


def run_reference(network: Network, images: Tensor) -> tuple[Tensor, ...]:
    """Compute the outputs that the file should have, with the network as it is evaluated."""
    logits, familiarity = network.logits_and_familiarity(images)
    answers = logits, logits.double().softmax(dim=1).float()
    return answers if familiarity is None else (*answers, familiarity)

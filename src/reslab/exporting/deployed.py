"""A network as it leaves the laboratory: stored pixels in, logits and probabilities out.

Axes: N images, C channels, H rows, W columns, K classes.
"""

import warnings

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from reslab.models.layers import Classifier
from reslab.network.familiarity import Familiarity
from reslab.network.network import Network
from reslab.network.onnx_file import INPUT
from reslab.recipe.recipe import Standardize


class Deployed(nn.Module):
    """A classifier with its standardisation and, where it has one, its familiarity inside."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Classifier, *, by: Standardize, familiarity: Familiarity | None) -> None:
        super().__init__()
        self.model, self.familiarity = model, familiarity
        self.register_buffer("mean", torch.tensor(by.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(by.std)[:, None, None])

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Turn stored pixels (N, C, H, W) uint8 into logits (N, K), probabilities (N, K) and familiarity (N,)."""
        features = self.model.features((images.float() - self.mean) / self.std)
        logits = self.model.head(features)
        answers = logits, logits.softmax(dim=1)
        return answers if self.familiarity is None else (*answers, self.familiarity(features, logits))


def trace(network: Network) -> ExportedProgram:
    """Record the graph of a network, for any number of images; convolutions are PyTorch's own."""
    # Made for this: a view into a data set would take the whole of it into the file.
    example = torch.zeros(2, network.channels, *[network.image_size] * 2, dtype=torch.uint8)
    deployed = Deployed(network.module, by=network.metadata.standardize, familiarity=network.familiarity).eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(deployed, (example,), dynamic_shapes={INPUT: {0: Dim("num_images")}})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # which names folders of this machine
    return program


def run_reference(network: Network, images: Tensor) -> tuple[Tensor, ...]:
    """Compute what the file should say, by the network as it is evaluated."""
    logits = network.logits(images)
    _, familiarity = network.answer(images)
    answers = logits, logits.double().softmax(dim=1).float()
    return answers if familiarity is None else (*answers, familiarity)

"""Ways to compute a network's features from stored pixels on a CPU, chosen by measured speed.

Depthwise convolutions multiply little, so the overhead around them matters. In `benchmarks/features.json` ONNX Runtime
is the fastest by far; without it, PyTorch with folded batch norms and channels-last images.
Axes: N images, C channels, H rows, W columns, D features.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reslab.data.batches import standardize
from reslab.models.efficientnet_lite import EfficientNetLiteClassifier, resample
from reslab.network.folding import fold
from reslab.pretrained.graph import INPUT, write_graph
from reslab.recipe.recipe import Standardize

Route = Literal["onnxruntime", "folded"]
Compute = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # (N, C, H, W) to (N, D)


def choose_route() -> Route:
    """Choose the fastest route that is installed."""
    return "onnxruntime" if find_spec("onnx") and find_spec("onnxruntime") else "folded"


def open_route(route: Route, model: EfficientNetLiteClassifier, *, by: Standardize) -> Compute:
    """Prepare a network in evaluation mode to compute features."""
    return by_onnxruntime(model, by=by) if route == "onnxruntime" else by_folding(model, by=by)


def by_onnxruntime(model: EfficientNetLiteClassifier, *, by: Standardize) -> Compute:
    """Compute with ONNX Runtime, using as many threads as PyTorch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # leave the cores to other programs
    graph = write_graph(model)
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def compute(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = standardize(torch.from_numpy(images), by=by)
        pixels = pixels if model.resize is None else resample(pixels, model.resize)
        (features,) = session.run(None, {INPUT: pixels.numpy()})
        return np.asarray(features)

    return compute


def by_folding(model: EfficientNetLiteClassifier, *, by: Standardize) -> Compute:
    """Compute with PyTorch, with folded batch norms and channels last."""
    network = fold(Body(model).eval())

    @torch.inference_mode()
    def compute(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
        features: Tensor = network(standardize(pixels, by=by))
        return features.numpy()

    return compute


class Body(nn.Module):
    """A network without its head."""

    def __init__(self, model: EfficientNetLiteClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.features(images)

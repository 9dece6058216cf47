"""EfficientNet-Lite's features as an ONNX graph, written layer by layer: a second, where a recorded graph takes many.

`SAME_UPPER` is TensorFlow's `same`, so that one graph takes images of every size. Batch norms lie in the convolutions.
Axes: N images, C channels, H rows, W columns, D features.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from reslab.errors import extra
from reslab.models.efficientnet_lite import EfficientNetLiteClassifier
from reslab.recipe.recipe import Standardize

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUT = "images", "features"
OPSET, FORMAT = 17, 8  # those of ONNX 1.12, which every runtime of these years reads
FLOAT = 1  # as ONNX numbers the types of tensors


def write_graph(model: EfficientNetLiteClassifier, *, by: Standardize) -> bytes:
    """Write the graph from stored pixels (N, C, H, W) uint8 to features (N, D) of a network in evaluation mode."""
    with extra("export"):
        import onnx
    graph = _Graph()
    x = graph.standardize(INPUT, by)
    x = graph.convolve(x, model.stem)
    for block in model.blocks:
        before = x
        for layers in (block.expand, block.depthwise, block.project):
            x = graph.convolve(x, layers) if isinstance(layers, nn.Sequential) else x
        x = graph.add("Add", x, before) if block.adds else x
    x = graph.convolve(x, model.last)
    graph.add("Flatten", graph.add("GlobalAveragePool", x), output=OUTPUT)
    channels = len(by.mean)
    made = onnx.helper.make_graph(
        graph.nodes,
        "features",
        [onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.UINT8, ["N", channels, "H", "W"])],
        [onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["N", model.head.in_features])],
        graph.constants,
    )
    opset = onnx.helper.make_opsetid("", OPSET)
    return bytes(onnx.helper.make_model(made, opset_imports=[opset], ir_version=FORMAT).SerializeToString())


class _Graph:
    """Nodes in their order, and the constants that they read; a value goes by its name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operation: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node; returns the name of its output."""
        import onnx

        output = output or f"{operation}{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(operation, inputs, [output], **attributes))
        return output

    def hold(self, values: Tensor) -> str:
        """Keep a constant; returns its name."""
        import onnx

        name = f"constant{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(values.detach().numpy(), name))
        return name

    def standardize(self, x: str, by: Standardize) -> str:
        """Turn stored pixels into what the network takes."""
        mean, deviation = (self.hold(torch.tensor(values)[:, None, None]) for values in (by.mean, by.std))
        return self.add("Div", self.add("Sub", self.add("Cast", x, to=FLOAT), mean), deviation)

    def convolve(self, x: str, layers: nn.Sequential) -> str:
        """Convolve by the one convolution of `layers` with its norm in it, and activate where they do."""
        (conv,) = (layer for layer in layers if isinstance(layer, nn.Conv2d))
        (norm,) = (layer for layer in layers if isinstance(layer, nn.BatchNorm2d))
        fused = fuse_conv_bn_eval(conv, norm)
        assert fused.bias is not None
        x = self.add(
            "Conv",
            x,
            self.hold(fused.weight),
            self.hold(fused.bias),
            auto_pad="SAME_UPPER",
            strides=fused.stride,
            group=fused.groups,
        )
        if not isinstance(layers[-1], nn.ReLU6):
            return x
        return self.add("Clip", x, self.hold(torch.tensor(0.0)), self.hold(torch.tensor(6.0)))

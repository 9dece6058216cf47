"""The file formats of an exported network, and predictions by a file that is read back."""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram

from reslab.errors import extra
from reslab.network.onnx_file import AXES, INPUT, OUTPUTS, Description, Outputs, to_pictures

Predict = Callable[[NDArray[np.uint8]], Outputs]


def to_onnx(program: ExportedProgram, *, known: Description, opset: int) -> bytes:
    """Convert a graph to an ONNX file that names classes and image size in its metadata."""
    with extra("export"):
        import onnx
        import onnxscript  # noqa: F401 - what torch.onnx needs

    num_outputs = len(program.graph_signature.user_outputs)
    with _quietly(logging.getLogger("torch.onnx")):  # it warns that torchvision, which no network here needs, is absent
        exported = torch.onnx.export(
            program,
            (),
            input_names=[INPUT],
            output_names=list(OUTPUTS[:num_outputs]),
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    assert exported is not None
    model = exported.model_proto
    _forget_origin(model.graph)
    _name_axes(model.graph)
    onnx.helper.set_model_props(model, known.to_metadata())
    return bytes(model.SerializeToString())


@contextmanager
def _quietly(logger: logging.Logger) -> Iterator[None]:
    """Hide the warnings of a logger, and Python's, within the block."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _forget_origin(graph: "onnx.GraphProto") -> None:  # type: ignore[name-defined]  # noqa: F821
    """Remove where in PyTorch's graph each part came from: a third of a small file, and useless without that graph."""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]


def _name_axes(graph: "onnx.GraphProto") -> None:  # type: ignore[name-defined]  # noqa: F821
    """Name the dynamic axes of the input, and the same axes of the outputs."""
    axes = [value.type.tensor_type.shape.dim for value in (*graph.input, *graph.output)]
    names = {axis.dim_param: name for axis, name in zip(axes[0], AXES, strict=False) if axis.dim_param}
    for axis in (each for dims in axes for each in dims if each.dim_param):
        axis.dim_param = names[axis.dim_param]


def to_pt2(program: ExportedProgram, *, known: Description) -> bytes:
    """Write a graph as `torch.export.load` reads it; classes and image size are extra files of the archive."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, buffer, extra_files=known.to_metadata())
    return buffer.getvalue()


def open_pt2(path: Path) -> Predict:
    """Open a `.pt2` file that was just written, for prediction."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.load(path).module()

    def predict(images: NDArray[np.uint8]) -> Outputs:
        with torch.inference_mode():
            return Outputs(*(each.numpy() for each in module(torch.from_numpy(to_pictures(images)))))

    return predict

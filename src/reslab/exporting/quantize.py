"""Quantise an ONNX file to 8-bit integers, by ONNX Runtime's static quantisation.

Weights are scaled per output channel, activations by their minimum and maximum over the calibration images.
Weights use only 7 bits, since otherwise 16-bit sums overflow on processors that lack VNNI.
"""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reslab.errors import UserError, extra
from reslab.network.onnx_file import INPUT, OUTPUTS, Description, to_pictures

BATCH = 32


def quantize(model: bytes, *, images: NDArray[np.uint8], known: Description) -> bytes:
    """Quantise an ONNX file, calibrated on stored images (N, C, H, W)."""
    with extra("export"):
        import onnx
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Calibration(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[Any] = iter(np.split(to_pictures(images), range(BATCH, len(images), BATCH)))

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    logging.disable(logging.WARNING)  # on the root logger: advice on preprocessing, which gained nothing here
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "int8.onnx"
            exact = onnx.load_model_from_string(model)
            quantize_static(
                exact,
                path,
                Calibration(),
                nodes_to_exclude=_outside_the_network(exact),
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            quantized = onnx.load(path)
    finally:
        logging.disable(logging.NOTSET)
    onnx.helper.set_model_props(quantized, known.to_metadata())
    return bytes(quantized.SerializeToString())


def describe_anew(model: bytes, *, known: Description) -> bytes:
    """Replace the metadata of an ONNX file."""
    with extra("export"):
        import onnx

    found = onnx.load_model_from_string(model)
    del found.metadata_props[:]
    onnx.helper.set_model_props(found, known.to_metadata())
    return bytes(found.SerializeToString())


def _outside_the_network(model: "onnx.ModelProto") -> list[str]:  # type: ignore[name-defined]  # noqa: F821
    """Return the nodes before the convolutions, which resize and standardise, and those that the logits do not need.

    8 bits would blur their matrix products. Raises: UserError if there is no convolution.
    """
    nodes = list(model.graph.node)
    if all(node.op_type != "Conv" for node in nodes):
        raise UserError("--int8 quantises convolutions, and this network has none: omit it")
    behind, needed = set[str](), {OUTPUTS[0]}  # tensors behind a convolution, and those that the logits need
    for node in nodes:  # in the order of computation
        if node.op_type == "Conv" or behind.intersection(node.input):
            behind.update(node.output)
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
    return [node.name for node in nodes if not (behind.intersection(node.output) and needed.intersection(node.output))]

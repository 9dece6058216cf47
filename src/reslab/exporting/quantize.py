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

from reslab.errors import extra
from reslab.network.onnx_file import INPUT, Description, to_pictures

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
                nodes_to_exclude=_before_the_network(exact),
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


def _before_the_network(model: "onnx.ModelProto") -> list[str]:  # type: ignore[name-defined]  # noqa: F821
    """Return the nodes that resize and standardise, whose matrix products 8 bits would blur."""
    names = [node.name for node in model.graph.node]
    return names[: [node.op_type for node in model.graph.node].index("Conv")]

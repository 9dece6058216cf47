"""A self-contained web page: a network, and the runtime that computes it in the browser.

It holds ONNX Runtime (onnxruntime-web, WebAssembly), kept in this folder by tools/onnxruntime_web.py. To keep it small,
weights keep 15 fraction bits, all parts are compressed, and the page is UTF-16, in which each character holds 15
bits: 7 % more than the bytes themselves, while base64 takes 33 % more.
"""

import base64
import gzip
import hashlib
import json
import lzma
from importlib.resources import files

import jinja2
import numpy as np
from numpy.typing import NDArray

from reslab.errors import extra
from reslab.network.onnx_file import Description

KEPT_BITS = 15  # of the 23 of a weight's fraction
CHARACTER_BITS, FIRST_CHARACTER = 15, 0x3400  # from here, 32,768 characters are single UTF-16 units


def to_page(model: bytes, *, known: Description) -> bytes:
    """Build a page around an ONNX file from `round_weights`."""
    environment = jinja2.Environment(loader=jinja2.PackageLoader("reslab.exporting", "page"), autoescape=True)
    runtime = {"runtime": "runtime.mjs.xz", "loader": "loader.mjs.xz", "wasm": "runtime.wasm.xz"}
    parts = {name: _unpack(file) for name, file in runtime.items()} | {"model": model}
    packed = {name: gzip.compress(content, mtime=0) for name, content in parts.items()}
    script = environment.get_template("page.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    html = environment.get_template("page.html.jinja").render(
        licence=_read("LICENSE.onnxruntime").decode(),
        classes=known.classes,
        known=json.dumps(known.to_plain()).replace("<", "\\u003c"),
        parts={name: (len(content), to_characters(content)) for name, content in packed.items()},
        script=script,
        digest=digest,
    )
    return html.encode("utf-16")


def round_weights(model: bytes) -> bytes:
    """Round the weights of an ONNX file, which then compress by a quarter."""
    with extra("export"):
        import onnx
    opened = onnx.load_model_from_string(model)
    for each in opened.graph.initializer:
        if each.data_type == onnx.TensorProto.FLOAT:
            values = _round(onnx.numpy_helper.to_array(each))
            each.CopyFrom(onnx.numpy_helper.from_array(values, each.name))
    return bytes(opened.SerializeToString())


def _round(values: NDArray[np.float32]) -> NDArray[np.float32]:
    lost = 23 - KEPT_BITS
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + (1 << (lost - 1))) >> lost << lost).view(np.float32)


def to_characters(content: bytes) -> str:
    """Write bytes as characters of 15 bits each, the last one padded with zeros."""
    bits = np.unpackbits(np.frombuffer(content, np.uint8))
    padded = np.pad(bits, (0, -len(bits) % CHARACTER_BITS)).reshape(-1, CHARACTER_BITS)
    numbers = padded.astype(np.float32) @ (2.0 ** np.arange(CHARACTER_BITS)[::-1]).astype(np.float32)
    return (FIRST_CHARACTER + numbers.astype("<u2")).astype("<u2").tobytes().decode("utf-16-le")


def _unpack(name: str) -> bytes:
    return lzma.decompress(_read(name))


def _read(name: str) -> bytes:
    return files("reslab.exporting.page").joinpath(name).read_bytes()

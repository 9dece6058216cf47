"""The web page that is one file: what it holds. benchmarks/page.py opens one in a browser."""

import gzip
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from reslab import exporting
from reslab.data.load import load
from reslab.errors import Failure
from reslab.exporting import export
from reslab.exporting.page import round_weights, to_characters
from reslab.network.onnx_file import OnnxFile
from reslab.runs import Run


def to_bytes(characters: str, size: int) -> bytes:
    """The way back, as page.js has it."""
    bits = "".join(format(ord(character) - 0x3400, "015b") for character in characters)
    return bytes(int(bits[8 * place : 8 * place + 8], 2) for place in range(size))


@pytest.mark.parametrize("size", [0, 1, 14, 15, 16, 1000])
def test_characters_hold_all_bytes(size: int) -> None:
    content = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
    characters = to_characters(content)
    assert to_bytes(characters, size) == content
    assert characters.encode("utf-16-le").decode("utf-16-le") == characters
    assert len(characters) == -(-8 * size // 15)


def test_the_page_holds_the_network_and_asks_for_nothing(finished: Run, exported: Path, tmp_path: Path) -> None:
    (written,) = export(finished, to=tmp_path / "page.html").files
    assert written.num_bytes < 4_000_000
    assert written.largest_difference < 1e-3
    html = (tmp_path / "page.html").read_bytes().decode("utf-16")
    assert "It knows 3 classes: 1, 4, 7." in html
    assert "default-src 'none'" in html
    size, characters = re.search(r'id="model" data-size="(\d+)">([^<]+)<', html).groups()
    (tmp_path / "model.onnx").write_bytes(gzip.decompress(to_bytes(characters, int(size))))
    images = load(finished.recipe.data, "train", image_size=8).images.numpy()
    found, wanted = (OnnxFile(folder / "model.onnx").predict(images) for folder in (tmp_path, exported))
    np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-3)
    assert not np.array_equal(found.probabilities, wanted.probabilities)


def test_weights_keep_fifteen_bits(exported: Path) -> None:
    exact = (exported / "model.onnx").read_bytes()
    before, after = (onnx.load_model_from_string(each).graph.initializer for each in (exact, round_weights(exact)))
    for one, other in zip(before, after, strict=True):
        values, rounded = map(onnx.numpy_helper.to_array, (one, other))
        np.testing.assert_allclose(rounded, values, rtol=2**-16)
        if values.dtype == np.float32:
            assert not (rounded.view(np.uint32) & 255).any()


def test_a_page_that_differs_is_not_written(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "LARGEST_DIFFERENCE_IN_A_PAGE", 0.0)
    with pytest.raises(Failure, match=r"a page would differ from PyTorch by \S+ in a probability, more than 0: write"):
        export(finished, to=tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()

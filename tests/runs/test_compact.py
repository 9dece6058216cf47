"""Weights in 8 bits: near the originals, stable, and told where a file is damaged."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from reslab.runs import DEMO_FOLDER, Damaged, Run, read_weights
from reslab.runs.compact import compress, expand
from reslab.runs.files import read_safetensors


def test_compressed_tensors_are_near_and_do_not_drift() -> None:
    tensors = {
        "conv": np.random.default_rng(0).normal(size=(20, 60, 3, 3)).astype(np.float32),
        "head": np.ones((3, 7), np.float32),
    }
    tensors["conv"][0] = 0  # an output channel that is never used has no scale of its own
    compact = compress(tensors)
    assert {name: value.dtype.name for name, value in compact.items()} == {
        "conv": "int8",
        "conv.int8_scale": "float32",
        "head": "float32",
    }
    again = expand(compact)
    largest = np.abs(tensors["conv"]).max(axis=(1, 2, 3), keepdims=True)
    assert (np.abs(again["conv"] - tensors["conv"]) <= largest / 254 + 1e-6).all()
    assert again["head"] is tensors["head"]
    assert (compress(again)["conv"] == compact["conv"]).all()


@pytest.mark.parametrize("scale", [np.ones(3, np.float32), np.ones((2, 1), np.float32)])
def test_a_scale_that_does_not_fit_is_damage(tmp_path: Path, scale: np.ndarray) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors.numpy.save({"w": np.ones((3, 4), np.int8), "w.int8_scale": scale}))
    with pytest.raises(Damaged, match=r"w.int8_scale has the shape"):
        read_safetensors(path)


def test_the_network_that_comes_along_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tensors, weights = read_weights(Path("demo"))
    assert sum(value.size for name, value in tensors.items() if "conv" in name) > 1_900_000
    assert (DEMO_FOLDER / "model.safetensors").stat().st_size < 3_200_000
    assert weights.calibration is not None
    assert weights.classes == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    run = Run(DEMO_FOLDER)
    assert run.recipe.validation == 5000
    assert len(run.log) == run.recipe.epochs

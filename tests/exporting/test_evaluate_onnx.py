"""Exported files on the test split, beside the network that they were made from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reslab.data.load import load
from reslab.errors import UserError
from reslab.evaluation.onnx import evaluate_onnx
from reslab.network.onnx_file import OnnxFile
from reslab.records import DataSet
from reslab.runs import Run, pack_weights, read_weights


def test_files_beside_pytorch(finished: Run, exported: Path) -> None:
    files = [exported / "model.onnx", exported / "model-int8.onnx"]
    found = evaluate_onnx(finished, files=files)
    assert found.num_images == 108
    assert [each.file for each in found.files] == ["PyTorch", *map(str, files)]
    pytorch, exact, small = found.files
    assert pytorch.accuracy == exact.accuracy == finished.evaluation.splits["test"].accuracy
    assert pytorch.change is None
    assert exact.change.value == 0
    assert exact.change.low == pytest.approx(-exact.change.high)
    assert 0 < exact.change.high < 0.05  # on other images they may yet differ
    test = load(finished.recipe.data, "test", image_size=8)
    right = OnnxFile(files[1]).predict_logits(test.images.numpy()).argmax(axis=1) == test.labels.numpy()
    assert small.accuracy.value == pytest.approx(right.mean())
    assert small.change.value == pytest.approx(right.mean() - pytorch.accuracy.value)
    assert small.change.low <= small.change.value <= small.change.high
    assert all(np.isfinite(each.images_per_second) and each.images_per_second > 0 for each in found.files)


def test_a_split_that_was_not_evaluated_is_refused(finished: Run, exported: Path) -> None:
    environment = finished.environment
    before, test = environment.data[:2], environment.data[2]
    for data, complaint in (
        (before, r"has not been evaluated on its test split: run reslab evaluate \S+ first"),
        ((*before, _altered(test)), rf"has changed: its fingerprint was 0{{12}}… and is {test.fingerprint[:12]}…"),
    ):
        finished.write_environment(environment.model_copy(update={"data": data}))
        with pytest.raises(UserError, match=complaint):
            evaluate_onnx(finished, files=[exported / "model.onnx"])


def _altered(data: DataSet) -> DataSet:
    return data.model_copy(update={"fingerprint": "0" * 64})


def test_a_file_of_another_run_is_refused(finished: Run, exported: Path) -> None:
    tensors, weights = read_weights(finished.path)
    finished.write_weights(pack_weights(tensors, weights.model_copy(update={"classes": ("1", "4", "8")})))
    with pytest.raises(UserError, match=r"model\.onnx is not for the classes and images of \S+small: export that run"):
        evaluate_onnx(finished, files=[exported / "model.onnx"])


def test_the_commands(
    finished: Run, exported: Path, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from reslab.cli import main

    def run(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["reslab", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0
        return capsys.readouterr().out

    told = run("export", finished.path, "--to", tmp_path / "model.pt2")
    assert "model.pt2: 0.2" in told
    assert " from PyTorch on 111 training images" in told
    (file,) = json.loads(run("export", finished.path, "--to", tmp_path / "model.pt2", "--json"))["files"]
    assert file["largest_difference"] <= 1e-4
    files = ("--onnx", exported / "model.onnx", "--onnx", exported / "model-int8.onnx")
    assert "Test split, 108 images" in run("evaluate", finished.path, *files)
    before = (finished.path / "evaluation.json").read_bytes()
    found = json.loads(run("evaluate", finished.path, *files, "--json"))
    assert [each["file"] for each in found["files"]] == ["PyTorch", *map(str, files[1::2])]
    assert (finished.path / "evaluation.json").read_bytes() == before

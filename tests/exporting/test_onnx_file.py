"""An exported file alone: pictures without torch, and files that are none."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from reslab.data.load import load
from reslab.errors import UserError
from reslab.evaluation.classify import classify
from reslab.network.onnx_file import Description, OnnxFile, classify_each_by_onnx
from reslab.runs import Run

# Any import of torch is an error there.
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; import reslab.cli; reslab.cli.main()"


@pytest.fixture
def pictures(finished: Run, tmp_path: Path) -> list[Path]:
    """Some training images of the run, as files."""
    images = load(finished.recipe.data, "train", image_size=8).images[:10]
    paths = [tmp_path / f"{place}.png" for place in range(10)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image[0].numpy()).save(path)
    return paths


def test_the_file_names_the_classes_that_the_run_does(finished: Run, exported: Path, pictures: list[Path]) -> None:
    wanted = classify(pictures, weights=finished.path, top=3, coverage=0.9)
    found = classify_each_by_onnx(pictures, onnx=exported / "model.onnx", coverage=0.9)
    for answer, other in zip(found, wanted, strict=True):
        assert (answer.file, answer.classes, answer.class_set) == (other.file, other.classes, other.class_set)
        assert answer.probabilities == pytest.approx(other.probabilities, abs=1e-4)
    best = classify_each_by_onnx(pictures[:2], onnx=exported / "model.onnx", top=1)
    assert [len(each.classes) for each in best] == [1, 1]


def test_the_command_needs_no_torch_and_less_than_a_second(exported: Path, pictures: list[Path]) -> None:
    """In seconds of the processor: on a machine with nothing else to do they are the seconds that a person waits."""
    spent = []
    for _ in range(3):
        before = os.times()
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_TORCH, "predict", exported / "model.onnx", pictures[0], "--json"],
            check=True,
            capture_output=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        after = os.times()
        spent.append(after.children_user - before.children_user + after.children_system - before.children_system)
    (answer,) = json.loads(done.stdout)
    (wanted,) = classify_each_by_onnx(pictures[:1], onnx=exported / "model.onnx")
    assert answer["classes"] == list(wanted.classes)
    assert min(spent) < 1


def with_metadata(path: Path, **changes: str) -> None:
    model = onnx.load(path)
    metadata = {each.key: each.value for each in model.metadata_props} | changes
    onnx.helper.set_model_props(model, {name: value for name, value in metadata.items() if value})
    onnx.save(model, path)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (lambda path: path.unlink(), "cannot be read: No such file"),
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:1000]), "is not a valid ONNX file: "),
    "empty": (lambda path: path.write_bytes(b""), "is not a valid ONNX file: "),
    "without classes": (lambda path: with_metadata(path, classes=""), "does not say what it classifies"),
    "without sense": (lambda path: with_metadata(path, classes="{"), "does not say what it classifies"),
    "numbers for names": (lambda path: with_metadata(path, classes="[1, 2, 3]"), "does not say what it classifies"),
    "no number": (lambda path: with_metadata(path, image_size="true"), "does not say what it classifies"),
    "no threshold": (lambda path: with_metadata(path, threshold="[]"), "does not say what it classifies"),
    "sets of nothing": (lambda path: with_metadata(path, class_sets="{}"), "does not say what it classifies"),
    "other channels": (lambda path: with_metadata(path, channels="4"), "does not match its metadata"),
    "fewer classes": (lambda path: with_metadata(path, classes='["1"]'), "does not match its metadata"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_file_that_is_none_is_told_in_a_sentence(exported: Path, kind: str) -> None:
    damage, message = DAMAGE[kind]
    damage(exported / "model.onnx")
    with pytest.raises(UserError, match=message):
        OnnxFile(exported / "model.onnx").read_class_sets()


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such devices")
def test_a_device_and_a_file_that_is_too_large_are_refused_before_they_are_read(tmp_path: Path) -> None:
    device, large = tmp_path / "device.onnx", tmp_path / "large.onnx"
    device.symlink_to(os.devnull)  # which does not block, as a pipe would
    with pytest.raises(UserError, match=r"device\.onnx is not a file: move it away"):
        OnnxFile(device)
    with large.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(UserError, match=r"large\.onnx has 2,147,483,648 bytes, but at most 2,147,483,647 are read"):
        OnnxFile(large)


def test_another_network_is_told_in_a_sentence(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "other", [value], [other])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(UserError, match="does not say what it classifies: reslab export did not write it"):
        OnnxFile(tmp_path / "other.onnx")
    with_metadata(tmp_path / "other.onnx", **Description(("a", "b"), 3, 8, "pad").to_metadata())
    with pytest.raises(UserError, match="does not match its metadata"):
        OnnxFile(tmp_path / "other.onnx")


def test_without_the_runtime_the_extra_is_named(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime is not installed: pip install 'reslab\[export\]'"):
        OnnxFile(exported / "model.onnx")


def test_images_of_any_kind_of_memory_are_taken(exported: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8).transpose(0, 3, 1, 2)
    network = OnnxFile(exported / "model.onnx", threads=1)
    np.testing.assert_array_equal(network.predict_logits(images), network.predict_logits(images.copy()))

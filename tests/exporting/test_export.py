"""Exported files against PyTorch and against arithmetic done here; what is refused; what int8 costs."""

import json
import logging
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from reslab import exporting
from reslab.data.load import load
from reslab.data.recipe_data import read_split
from reslab.errors import Failure, UserError
from reslab.evaluation.classify import classify
from reslab.exporting import Export, export
from reslab.exporting.deployed import trace
from reslab.exporting.formats import open_pt2, to_onnx
from reslab.exporting.quantize import _outside_the_network
from reslab.measure.class_sets import fit_class_sets
from reslab.models import build
from reslab.models.fusion import SplitLinear
from reslab.network.familiarity import fit_familiarity, fit_frozen
from reslab.network.finishing import finish
from reslab.network.network import Network
from reslab.network.onnx_file import AXES, INPUT, Description, OnnxFile, classify_each_by_onnx, to_pictures
from reslab.recipe.networks import Module
from reslab.recipe.recipe import Standardize, derive
from reslab.records import ClassSets
from reslab.report.card import is_card, write_card
from reslab.runs import DEMO_FOLDER, Run, read_weights
from reslab.serving.served import Served

KNOWN = {
    "classes": ["1", "4", "7"],
    "channels": 1,
    "image_size": 8,
    "resize": "squeeze",
    "threshold": 0.05,
    "white": None,
    "colours": "RGB",
}
BRANCHING = """
from torch import nn

class Net(nn.Module):
    def __init__(self, *, num_classes, channels):
        super().__init__()
        self.head = nn.Linear(channels, num_classes)

    def features(self, images):
        means = images.mean(dim=(2, 3))
        return means if means.sum() > 0 else -means
"""
NUM_TRAINING, NUM_VALIDATION = 111, 9


@pytest.fixture
def images(finished: Run) -> NDArray[np.uint8]:
    """Real ones: the training images of the run."""
    return load(finished.recipe.data, "train", image_size=8).images.numpy()


def expected_logits(run: Run, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Standardise by hand, in double precision throughout."""
    network = Network.load(run.path)
    by = network.metadata.standardize
    mean, deviation = (np.array(values)[:, None, None] for values in (by.mean, by.std))
    with torch.inference_mode():
        return network.module.double()(torch.from_numpy((images - mean) / deviation)).numpy()


def initial_types(path: Path) -> set[int]:
    return {tensor.data_type for tensor in onnx.load(path).graph.initializer}


# ---- what the files say


@pytest.mark.parametrize("num", [1, 3, 111])
def test_onnx_says_what_pytorch_says_for_any_number_of_images(
    finished: Run, exported: Path, images: NDArray[np.uint8], num: int
) -> None:
    logits, probabilities, familiarity = OnnxFile(exported / "model.onnx").predict(images[:num])
    wanted = expected_logits(finished, images[:num])
    assert logits.shape == (num, 3)
    np.testing.assert_allclose(logits, wanted, atol=1e-4)
    powers = np.exp(wanted)
    np.testing.assert_allclose(probabilities, powers / powers.sum(axis=1, keepdims=True), atol=1e-4)
    assert familiarity is None  # nine held-out images are too few


def test_files_the_app_and_the_command_say_the_same_calibrated_probabilities_and_what_is_familiar(
    finished: Run, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    plain = Network.load(finished.path)
    before = plain.logits(torch.from_numpy(images))
    network = finish(plain, images=load(finished.recipe.data, "train", image_size=8), held_out=None, usual=2.0).network
    features = network.features(torch.from_numpy(images))
    logits = network.logits(torch.from_numpy(images))
    texture = network.texture(torch.from_numpy(images))
    network.familiarity = fit_familiarity(
        features[:60], torch.arange(60) % 3, features[60:], logits[60:], statistics=(texture[:60], texture[60:])
    )
    network.save(finished.weights_path)
    wanted = (before / 2).softmax(1)[:20].numpy()
    first = [tmp_path / "first.png"]
    Image.fromarray(images[0, 0]).save(first[0])
    files, app = [tmp_path / "model.onnx", tmp_path / "model.pt2"], Served(finished.path, name="small")
    for file in files:
        export(finished, to=file)
    said: list[Any] = [find(images[:20]).probabilities for find in (OnnxFile(files[0]).predict, open_pt2(files[1]))]
    for each in (
        *said,
        app.compute(torch.from_numpy(images[:20]))[0].softmax(1),
        network.answer(torch.from_numpy(images[:20]))[0],
    ):
        np.testing.assert_allclose(each, wanted, atol=1e-4)
    for answer in (classify(first, weights=finished.path), list(classify_each_by_onnx(first, onnx=files[0]))):
        assert answer[0].probabilities[0] == pytest.approx(wanted[0].max(), abs=1e-4)
    assert "calibrated on trials of the recipe: temperature 2.00" in write_card(
        finished, weights=network.metadata, files=[]
    )
    pictures = np.concatenate([images[:20], 255 - images[:20]])

    def compare(file: Path, network: Network) -> None:
        familiarity = OnnxFile(file).predict(pictures).familiarity
        assert familiarity is not None
        np.testing.assert_allclose(familiarity, network.answer(torch.from_numpy(pictures))[1], atol=0.04)
        assert len(np.unique(familiarity)) > 5

    compare(tmp_path / "model.onnx", network)
    network.familiarity = fit_frozen(features, features, logits)
    network.save(finished.weights_path)
    export(finished, to=tmp_path / "frozen.onnx")
    compare(tmp_path / "frozen.onnx", Network.load(finished.path))


def test_the_metadata_name_classes_and_images(finished: Run, exported: Path) -> None:
    for name in ("model.onnx", "model-int8.onnx"):
        metadata = {each.key: json.loads(each.value) for each in onnx.load(exported / name).metadata_props}
        assert ClassSets.model_validate(metadata.pop("class_sets")) == Network.load(finished.path).metadata.class_sets
        assert metadata == KNOWN
        onnx.checker.check_model(exported / name, full_check=True)


def test_pt2_says_what_pytorch_says_and_names_the_classes(
    finished: Run, exported: Path, images: NDArray[np.uint8]
) -> None:
    extra = dict.fromkeys(KNOWN, "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.load(exported / "model.pt2", extra_files=extra)
    assert {name: json.loads(extra[name]) for name in KNOWN} == KNOWN
    for num in (1, 5):
        logits, probabilities = program.module()(torch.from_numpy(to_pictures(images[:num])))
        np.testing.assert_allclose(logits.detach(), expected_logits(finished, images[:num]), atol=1e-4)
        np.testing.assert_allclose(probabilities.detach().sum(dim=1), np.ones(num), rtol=1e-6)


def test_a_picture_of_any_size_gets_the_answer_that_the_run_gives(
    finished: Run, exported: Path, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 21, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    (wanted,) = classify([tmp_path / "picture.png"], weights=finished.path, top=3)
    found = OnnxFile(exported / "model.onnx").predict_pictures(pixels[None]).probabilities[0]
    assert sorted(found, reverse=True) == pytest.approx(wanted.probabilities, abs=1e-5)
    assert wanted.classes[0] == KNOWN["classes"][found.argmax()]
    axes = onnx.load(exported / "model.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [axis.dim_param for axis in axes] == [*AXES, ""]


def test_a_file_of_fixed_size_and_older_operators_holds_no_resizing(
    finished: Run, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    export(finished, to=tmp_path / "model.onnx", fixed_size=True, opset=18)
    model = onnx.load(tmp_path / "model.onnx")
    assert model.opset_import[0].version == 18
    assert [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim] == [0, 8, 8, 3]
    assert {"MatMul", "Range", "Shape"}.isdisjoint(node.op_type for node in model.graph.node)
    logits = OnnxFile(tmp_path / "model.onnx").predict_logits(images)
    np.testing.assert_allclose(logits, expected_logits(finished, images), atol=1e-4)


def test_a_failed_conversion_leaves_the_logger_as_it_was(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **options: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr("torch.onnx.export", fail)
    network, level = Network.load(finished.path, device="cpu"), logging.getLogger("torch.onnx").level
    with pytest.raises(RuntimeError, match="no"):
        to_onnx(trace(network), known=Description(("1", "4", "7"), 1, 8, "squeeze"), opset=20)
    assert logging.getLogger("torch.onnx").level == level


def test_an_unknown_opset_is_refused(finished: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="opset 99 is not one that can be written: choose 18 to 23"):
        export(finished, to=tmp_path / "model.onnx", opset=99)


def test_no_file_tells_of_the_machine_that_wrote_it_or_holds_images(exported: Path, finished: Run) -> None:
    here = str(Path(exporting.__file__).parents[2]).encode()
    for path in exported.iterdir():
        assert here not in path.read_bytes(), path
        assert path.stat().st_size < 2 * finished.weights_path.stat().st_size + 100_000


def test_the_convolutions_are_plain_ones_although_winograd_would_pay(finished: Run, exported: Path) -> None:
    graph = onnx.load(exported / "model.onnx").graph
    convolutions = [each for each in Network.load(finished.path).module.modules() if isinstance(each, nn.Conv2d)]
    assert sum(node.op_type == "Conv" for node in graph.node) == len(convolutions)
    assert {node.domain for node in graph.node} == {""}


# ---- what it is checked on


def test_the_largest_difference_is_that_on_the_training_images(export_said: Export) -> None:
    assert export_said.images == f"{NUM_TRAINING} training images"
    differences = {Path(file.file).name: file.largest_difference for file in export_said.files}
    assert differences["model-int8.onnx"] is None
    assert all(0 < differences[name] <= 1e-4 for name in ("model.onnx", "model.pt2"))


def test_without_the_data_generated_images_do(finished: Run, tmp_path: Path) -> None:
    finished.write_recipe(derive(finished.recipe, name="gone", data=f"npz:{tmp_path}/gone.npz"))
    assert export(finished, to=tmp_path / "new/folder/model.pt2").images == "256 generated images"
    with pytest.raises(UserError, match=r"is gone from .*gone\.npz: put it back"):
        export(finished, to=tmp_path / "model.onnx", int8=True)


def test_a_file_that_differs_is_refused_and_removed(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trace_another(network: Network, **options: Any) -> Any:
        by = network.metadata.standardize
        shifted = Standardize(mean=tuple(value + 1 for value in by.mean), std=by.std)
        return trace(Network(network.module, network.metadata.model_copy(update={"standardize": shifted})), **options)

    monkeypatch.setattr(exporting, "trace", trace_another)
    with pytest.raises(Failure, match=r"model\.pt2 differs from PyTorch by \S+, more than 0\.000\d+"):
        export(finished, to=tmp_path / "model.pt2")
    assert not (tmp_path / "model.pt2").exists()


# ---- int8


def test_int8_computes_in_integers_and_answers_alike(
    finished: Run, exported: Path, images: NDArray[np.uint8], export_said: Export
) -> None:
    exact, small = (OnnxFile(exported / name).predict_logits(images) for name in ("model.onnx", "model-int8.onnx"))
    assert onnx.TensorProto.INT8 in initial_types(exported / "model-int8.onnx")
    assert onnx.TensorProto.INT8 not in initial_types(exported / "model.onnx")
    assert not np.array_equal(exact, small)
    assert (exact.argmax(axis=1) == small.argmax(axis=1)).mean() > 0.95
    cost = export_said.int8
    assert cost is not None
    assert (cost.split, cost.num_images) == ("validation", NUM_VALIDATION)
    assert min(cost.images_per_second, cost.images_per_second_float) > 0
    held_out = read_split(finished.recipe, "validation")
    right = OnnxFile(exported / "model-int8.onnx").predict_logits(held_out.images.numpy()).argmax(axis=1)
    assert cost.accuracy == pytest.approx((right == held_out.labels.numpy()).mean())


def test_sets_of_int8_are_those_of_its_own_answers(finished: Run, exported: Path) -> None:
    held_out = read_split(finished.recipe, "validation")
    small = OnnxFile(exported / "model-int8.onnx")
    probabilities = small.predict(held_out.images.numpy()).probabilities
    assert small.read_class_sets() == fit_class_sets(probabilities, held_out.labels.numpy())
    assert small.read_class_sets() is not None


def test_int8_without_held_out_images_promises_no_sets(finished: Run, tmp_path: Path) -> None:
    finished.write_recipe(derive(finished.recipe, name="all", validation=0))
    export(finished, to=tmp_path / "model.onnx", int8=True)
    exact, small = (OnnxFile(tmp_path / name).read_class_sets() for name in ("model.onnx", "model-int8.onnx"))
    assert exact is not None
    assert small is None


def test_int8_is_not_measured_on_held_out_images_that_starting_weights_have_learned(
    finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "leave_out_seen", lambda held_out, run: held_out.subset(np.arange(4)))
    assert len(exporting._read_int8_images(finished, None, False)[1].labels) == 4
    monkeypatch.setattr(exporting, "leave_out_seen", lambda held_out, run: None)
    _, measured = exporting._read_int8_images(finished, None, False)
    assert (measured.split, len(measured.labels)) == ("train", NUM_TRAINING - NUM_TRAINING // 2)


def test_half_of_a_few_training_images_calibrate_int8_and_the_others_measure_it(finished: Run) -> None:
    finished.write_recipe(derive(finished.recipe, name="few", validation=0))
    num = NUM_TRAINING + NUM_VALIDATION
    calibration, measured = exporting._read_int8_images(finished, None, False)
    assert (len(calibration), len(measured.labels), measured.split) == (num // 2, num // 2, "train")


def test_int8_is_measured_on_images_of_all_classes(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the images come class by class."""
    held_out = read_split(finished.recipe, "validation")
    sorted_by_class = held_out.subset(held_out.labels.argsort(stable=True))
    monkeypatch.setattr(exporting, "read_split_of", lambda run, split, **options: sorted_by_class)
    monkeypatch.setattr(exporting, "NUM_MEASURED", 3)
    _, measured = exporting._read_int8_images(finished, None, False)
    assert len(measured.labels) == 3
    assert len(measured.labels.unique()) > 1


# ---- where to


def test_a_folder_gets_the_weights_and_a_card(finished: Run, exported: Path, export_said: Export) -> None:
    names = ["model.onnx", "model-int8.onnx", "model.safetensors", "model.pt2"]
    assert [Path(file.file).name for file in export_said.files] == names
    assert {path.name for path in exported.iterdir()} == {*names, "README.md"}
    assert [file.num_bytes for file in export_said.files] == [(exported / name).stat().st_size for name in names]
    assert read_weights(exported / "model.safetensors")[1] == read_weights(finished.path)[1]
    card = (exported / "README.md").read_text()
    assert "# small" in card
    assert "grey, 8x8 pixels" in card
    assert all(f"- `{name}`: " in card for name in names[:3])


@pytest.mark.parametrize(
    ("to", "options", "message"),
    [
        ("model.pt2", {"int8": True}, "model.pt2 cannot be in int8"),
        ("model.pt2", {"opset": 18}, "model.pt2 has no ONNX operators: omit --opset, or write model.onnx"),
        ("page.html", {"fixed_size": True}, "page.html takes pictures of any size: omit --fixed-size"),
        ("taken", {}, "taken is a file: write model.onnx"),
        ("out.tflite", {}, "no .tflite file can be written: choose a name that ends in .onnx, .pt2 or .html"),
    ],
)
def test_what_is_no_place_for_it(finished: Run, tmp_path: Path, to: str, options: dict[str, Any], message: str) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(UserError, match=message):
        export(finished, to=tmp_path / to, **options)


def test_another_runs_weights_are_not_replaced(finished: Run, tmp_path: Path) -> None:
    other = Path(shutil.copytree(finished.path, tmp_path / "other"))
    with pytest.raises(UserError, match="other is another run, whose weights it would replace: choose another folder"):
        export(finished, to=other)
    assert not (other / "model.onnx").exists()
    assert any(file.file == str(finished.path / "model.onnx") for file in export(finished, to=finished.path).files)


def test_a_readme_of_somebody_elses_stays(finished: Run, tmp_path: Path) -> None:
    """That of an earlier export is written anew, also if somebody has added to it."""
    (tmp_path / "README.md").write_text("# My project\n")
    with pytest.raises(
        UserError, match=r"README\.md is not a model card of reslab, and would be replaced by one: choose"
    ):
        export(finished, to=tmp_path)
    assert (tmp_path / "README.md").read_text() == "# My project\n"
    assert not (tmp_path / "model.onnx").exists()
    weights = read_weights(finished.path)[1]
    for card in (write_card(finished, weights=weights, files=()), "---\r\nlibrary_name: reslab\r\nlicense: mit\r\n---"):
        assert is_card(card.encode())


def test_a_network_of_ones_own_that_pytorch_cannot_export_is_named(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "branching.py").write_text(BRANCHING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("RESLAB_CODE", "branching")
    model, known = Module(name="branching:Net"), Network.load(finished.path).metadata
    built = build(model, num_classes=len(known.classes), channels=known.channels)
    Network(built, known.model_copy(update={"model": model})).save(finished.weights_path)
    with pytest.raises(UserError, match=r"PyTorch cannot export branching:Net \(.+\): change what in its code") as told:
        export(finished, to=tmp_path / "model.onnx")
    assert len(str(told.value).splitlines()) == 1


def test_an_unfinished_run_is_refused(finished: Run, tmp_path: Path) -> None:
    finished.weights_path.unlink()
    with pytest.raises(UserError, match="holds no finished network"):
        export(finished, to=tmp_path / "model.onnx")


def test_without_the_packages_the_extra_is_named(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"onnxscript is not installed: pip install 'reslab\[export\]'"):
        export(finished, to=tmp_path / "model.onnx")


# ---- kept classes


class Scaled(nn.Module):
    """A network of pixels and one layer, which is given as many as it takes."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images.float().flatten(1)[:, : self.layer.in_features] / 255)


def test_only_the_network_is_quantised_not_what_resizes_pictures_or_knows_the_familiar() -> None:
    """Two branches, the second of which resizes behind the first one's convolution."""
    node = onnx.helper.make_node
    nodes = [
        node("Cast", ["images"], ["pixels"], name="cast"),
        node("MatMul", ["pixels", "r"], ["resized"], name="resize"),
        node("Conv", ["resized", "w"], ["one"], name="conv"),
        node("MatMul", ["pixels", "r"], ["larger"], name="resize again"),
        node("Conv", ["larger", "w"], ["other"], name="conv again"),
        node("Add", ["one", "other"], ["features"], name="add"),
        node("MatMul", ["features", "h"], ["logits"], name="head"),
        node("Softmax", ["logits"], ["probabilities"], name="softmax"),
        node("MatMul", ["features", "k"], ["familiarity"], name="compare"),
    ]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "two", [], []))
    assert _outside_the_network(model) == ["cast", "resize", "resize again", "softmax", "compare"]
    with pytest.raises(UserError, match="this network has none: omit it"):
        _outside_the_network(onnx.helper.make_model(onnx.helper.make_graph(nodes[:2], "none", [], [])))


def test_kept_rows_have_the_bits_of_the_smaller_layer_in_onnx_too() -> None:
    torch.manual_seed(0)
    small, layer = nn.Linear(17, 4), SplitLinear(64, 9, blocks=[(4, 17)])
    with torch.no_grad():
        layer.weight[:4, :17], layer.bias[:4] = small.weight, small.bias
    images = torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8)
    answers = []
    for each in (small, layer):
        model = Scaled(each).eval()
        file = to_onnx(torch.export.export(model, (images,)), known=Description(("a", "b"), 1, 8, "squeeze"), opset=18)
        answers.append(onnxruntime.InferenceSession(file).run(None, {INPUT: images.numpy()})[0])
    before, after = answers
    np.testing.assert_array_equal(after[:, :4].copy().view(np.int32), before.view(np.int32))
    np.testing.assert_allclose(after, model(images).detach(), rtol=1e-5, atol=1e-5)


def test_the_answers_that_other_languages_compare_with_are_those_of_the_network() -> None:
    golden = json.loads((Path(__file__).parents[2] / "docs/node/demo.json").read_text(encoding="utf-8"))
    pictures = sorted((DEMO_FOLDER / "pictures").iterdir())
    assert list(golden["answers"]) == [picture.name for picture in pictures]
    for answer, wanted in zip(
        classify(pictures, weights=DEMO_FOLDER, top=10, device="cpu"), golden["answers"].values(), strict=True
    ):
        found = dict(zip(answer.classes, answer.probabilities, strict=True))
        assert [found[name] for name in golden["classes"]] == pytest.approx(wanted, abs=1e-4)

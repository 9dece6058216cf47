"""Pictures to classes, by networks for grey and for colour, from a run folder and from a weights file alone."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from reslab.data.recipe_data import read_split
from reslab.errors import UserError
from reslab.evaluation.classify import classify
from reslab.models import build
from reslab.recipe.networks import PreActResNet
from reslab.recipe.recipe import Standardize
from reslab.records import Weights
from reslab.runs import Run, pack_weights

NAMES = ("ant", "bee", "cat", "dog")


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum()


@pytest.fixture
def pictures(finished: Run, tmp_path: Path) -> list[Path]:
    """The first ten test images of the run, as files."""
    images = read_split(finished.recipe, "test").images[:10]
    paths = [tmp_path / f"{place}.png" for place in range(10)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image[0].numpy()).save(path)
    return paths


def test_grey_pictures_get_the_probabilities_of_their_predictions(finished: Run, pictures: list[Path]) -> None:
    answers = classify(pictures, weights=finished.path)
    for answer, path, logits in zip(answers, pictures, finished.read_predictions("test").logits, strict=False):
        assert answer.file == str(path)
        expected = dict(zip(("1", "4", "7"), softmax(logits), strict=True))
        assert dict(zip(answer.classes, answer.probabilities, strict=True)) == pytest.approx(expected, abs=1e-5)
        assert answer.classes == tuple(sorted(expected, key=lambda name: -expected[name]))
    assert len({answer.classes[0] for answer in answers}) > 1


def test_the_weights_alone_and_under_another_name_are_enough(finished: Run, pictures: list[Path]) -> None:
    expected = classify(pictures, weights=finished.path, top=2)
    elsewhere = finished.path.parent / "elsewhere"
    elsewhere.mkdir()
    copied = shutil.copy(finished.weights_path, elsewhere / "my network")
    shutil.rmtree(finished.path)
    assert classify(pictures, weights=Path(copied), top=2) == expected


@pytest.mark.parametrize(("top", "num"), [(1, 1), (2, 2), (3, 3), (100, 3)])
def test_top_cuts_the_list(finished: Run, pictures: list[Path], top: int, num: int) -> None:
    whole = classify(pictures, weights=finished.path, top=3)
    for answer, full in zip(classify(pictures, weights=finished.path, top=top), whole, strict=True):
        assert answer.classes == full.classes[:num]
        assert answer.probabilities == full.probabilities[:num]


# The weights of ITU-R BT.601, rounded by hand: red 76.245, green 149.685, blue 29.07, the mixture 96.18.
@pytest.mark.parametrize(
    ("colour", "grey"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29), ((200, 50, 60), 96)]
)
def test_a_network_for_grey_sees_colours_as_grey(finished: Run, tmp_path: Path, colour: tuple, grey: int) -> None:
    for name, mode, value in (("colour", "RGB", colour), ("grey", "L", grey), ("next", "L", grey + 1)):
        Image.new(mode, (20, 30), value).save(tmp_path / f"{name}.png")
    seen, expected, other = classify([tmp_path / f"{n}.png" for n in ("colour", "grey", "next")], weights=finished.path)
    # Rounding may hang on an image's place in the batch; a grey that is off by one changes far more.
    assert seen.classes == expected.classes
    assert seen.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
    assert seen.probabilities != pytest.approx(other.probabilities, abs=1e-6)


def write_network(path: Path, *, channels: int) -> torch.nn.Module:
    """Save a network with random weights for images of 16 pixels."""
    torch.manual_seed(3)
    model = PreActResNet(depth=8, width=8)
    network = build(model, num_classes=len(NAMES), channels=channels)
    pixels = Standardize(mean=tuple(range(100, 100 + channels)), std=tuple(range(50, 50 + channels)))
    weights = Weights(model=model, classes=NAMES, channels=channels, image_size=16, standardize=pixels)
    Run.create(path).write_weights(
        pack_weights({name: value.numpy() for name, value in network.state_dict().items()}, weights)
    )
    return network.eval()


def test_a_network_for_colour_sees_every_channel(tmp_path: Path) -> None:
    network = write_network(tmp_path / "run", channels=3)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    (answer,) = classify([tmp_path / "picture.png"], weights=tmp_path / "run/model.safetensors", top=4)
    standardised = (pixels - np.array([100, 101, 102])) / np.array([50, 51, 52])
    with torch.no_grad():
        logits = network(torch.from_numpy(standardised.transpose(2, 0, 1).astype(np.float32))[None])[0].numpy()
    expected = dict(zip(NAMES, softmax(logits), strict=True))
    assert dict(zip(answer.classes, answer.probabilities, strict=True)) == pytest.approx(expected, abs=1e-5)


def test_a_grey_picture_is_colour_with_equal_channels(tmp_path: Path) -> None:
    write_network(tmp_path / "run", channels=3)
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8))
    grey.save(tmp_path / "grey.png")
    Image.merge("RGB", [grey] * 3).save(tmp_path / "colour.png")
    files = [tmp_path / "grey.png", tmp_path / "colour.png"]
    one, other = classify(files, weights=tmp_path / "run/model.safetensors")
    assert one.probabilities == pytest.approx(other.probabilities)


@pytest.mark.parametrize("channels", [2, 4])
def test_a_network_for_neither_is_refused(tmp_path: Path, channels: int) -> None:
    write_network(tmp_path / "run", channels=channels)
    Image.new("L", (8, 8)).save(tmp_path / "picture.png")
    with pytest.raises(UserError, match=f"for images of {channels} channels: pictures are grey or RGB"):
        classify([tmp_path / "picture.png"], weights=tmp_path / "run/model.safetensors")

"""Images to logits against plain loops: views written out pixel by pixel, batches of any size."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reslab.errors import UserError
from reslab.machine.device import pick_device
from reslab.models import build
from reslab.models.layers import ImageClassifier
from reslab.network import inference
from reslab.network.inference import _views, predict_logits, watching
from reslab.recipe.networks import MODELS, Plain, ResNet

CLASSES, CHANNELS, ROWS, COLUMNS = 7, 2, 4, 5


class Squares(ImageClassifier):
    """Every pixel counts by its place, and the mean of logits is not the logits of a mean; keeps what it was shown.

    To ask for the length of a batch is what torch.fx cannot trace, so this network is never folded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(CHANNELS * ROWS * COLUMNS, CLASSES)
        self.shown: list[Tensor] = []

    def features(self, images: Tensor) -> Tensor:
        assert len(images) > 0
        self.shown.append(images.clone())
        return images.flatten(1) ** 2


@pytest.fixture
def model() -> Squares:
    torch.manual_seed(0)
    return Squares()


@pytest.fixture
def images() -> Tensor:
    return torch.randint(256, (6, CHANNELS, ROWS, COLUMNS), dtype=torch.uint8)


def prepare(images: Tensor) -> Tensor:
    return (images.float() - 100) / 50


def moved(image: Tensor, down: int, right: int) -> Tensor:
    """Move one image (C, H, W) by whole pixels; what comes in at a border is the border again."""
    result = torch.empty_like(image)
    rows, columns = image.shape[1:]
    for row in range(rows):
        for column in range(columns):
            source = min(max(row - down, 0), rows - 1), min(max(column - right, 0), columns - 1)
            result[:, row, column] = image[:, source[0], source[1]]
    return result


def mirrored(image: Tensor) -> Tensor:
    columns = image.shape[2]
    return torch.stack([image[:, :, columns - 1 - column] for column in range(columns)], dim=2)


def views_of(image: Tensor, num: int) -> list[Tensor]:
    moves = {1: [(0, 0)], 2: [(0, 0)], 6: [(0, 0), (1, 1), (-1, -1)]}[num]
    shifted = [moved(image, *move) for move in moves]
    return shifted if num == 1 else [view for each in shifted for view in (each, mirrored(each))]


@pytest.mark.parametrize("views", [1, 2, 6])
def test_logits_are_the_mean_over_views_written_out_by_hand(model: Squares, images: Tensor, views: int) -> None:
    found = predict_logits(model, images, prepare=prepare, views=views)
    assert found.shape == (6, CLASSES)
    assert found.dtype == torch.float32
    with torch.no_grad():
        for image, logits in zip(images, found, strict=True):
            naive = torch.stack([model(view[None])[0] for view in views_of(prepare(image), views)]).mean(0)
            torch.testing.assert_close(logits, naive, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("views", [1, 2, 6])
def test_the_first_view_is_the_image_as_it_is(model: Squares, images: Tensor, views: int) -> None:
    predict_logits(model, images, prepare=prepare, views=views)
    assert len(model.shown) == views
    torch.testing.assert_close(model.shown[0], prepare(images), rtol=0, atol=0)
    assert len({view.numpy().tobytes() for view in model.shown}) == views


@pytest.mark.parametrize("views", [1, 6])
def test_the_size_of_the_batches_changes_nothing(
    model: Squares, images: Tensor, views: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    whole = predict_logits(model, images, prepare=prepare, views=views)
    for size in (1, 4, 6, 100):
        monkeypatch.setattr(inference, "IMAGES_PER_THREAD", size)
        in_parts = predict_logits(model, images, prepare=prepare, views=views)
        torch.testing.assert_close(in_parts, whole, rtol=1e-5, atol=1e-5)
    assert max(len(batch) for batch in model.shown[-6 * views :]) <= 6


def test_a_network_in_training_is_used_as_in_evaluation_and_goes_on_training() -> None:
    network = build(Plain(depth=8), num_classes=CLASSES, channels=CHANNELS)
    images = torch.randint(256, (4, CHANNELS, 8, 8), dtype=torch.uint8)
    evaluating = predict_logits(network.eval(), images, prepare=prepare)
    assert not network.training
    state = {name: value.clone() for name, value in network.state_dict().items()}
    training = predict_logits(network.train(), images, prepare=prepare)
    assert network.training
    torch.testing.assert_close(training, evaluating, rtol=0, atol=0)
    torch.testing.assert_close(dict(network.state_dict()), state, rtol=0, atol=0)
    assert not training.requires_grad


@pytest.mark.parametrize("name", ["preact_resnet20", "resnet20", "plain20", "elu_resnet20", "fast_conv"])
@pytest.mark.parametrize("views", [1, 6])
def test_logits_are_those_of_the_network_itself(name: str, views: int) -> None:
    torch.manual_seed(0)
    network = build(MODELS[name], num_classes=CLASSES)
    images = torch.randint(256, (5, 3, 16, 16), dtype=torch.uint8)
    network(prepare(images))  # moves the running statistics
    found = predict_logits(network, images, prepare=prepare, views=views)
    with torch.no_grad():
        shown = [torch.stack(views_of(image, views)) for image in prepare(images)]
        expected = torch.stack([network.eval()(each).mean(0) for each in shown])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert found.std() > 1e-3


def test_the_same_network_gives_the_same_bytes() -> None:
    network = build(MODELS["resnet20"], num_classes=CLASSES)
    images = torch.randint(256, (40, 3, 16, 16), dtype=torch.uint8)
    first, second = (predict_logits(network, images, prepare=prepare, views=2) for _ in range(2))
    assert torch.equal(first, second)


def test_weights_that_have_changed_are_not_remembered() -> None:
    network = build(ResNet(depth=8), num_classes=CLASSES)
    images = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8)
    before = predict_logits(network, images, prepare=prepare)
    with torch.no_grad():
        network.blocks[0].norm1.bias += 1
    assert (predict_logits(network, images, prepare=prepare) - before).abs().max() > 1e-3


def test_views_take_the_memory_of_the_images_and_their_mirror_images_alone() -> None:
    batch = torch.randn(2, 3, 8, 8)
    places = {view.untyped_storage().data_ptr() for view in list(_views(batch, 6))}
    assert len(places) == 2


def test_another_number_of_views_is_refused(model: Squares, images: Tensor) -> None:
    with pytest.raises(UserError, match="3 views: choose one of"):
        predict_logits(model, images, prepare=prepare, views=3)


# ---- devices


def set_gpus(monkeypatch: pytest.MonkeyPatch, num: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num)


@pytest.mark.parametrize(
    ("num_gpus", "name", "expected"),
    [(0, "auto", "cpu"), (2, "auto", "cuda"), (2, "cpu", "cpu"), (2, "cuda", "cuda"), (2, "cuda:1", "cuda:1")],
)
def test_devices_by_name(monkeypatch: pytest.MonkeyPatch, num_gpus: int, name: str, expected: str) -> None:
    set_gpus(monkeypatch, num_gpus)
    assert pick_device(name) == torch.device(expected)


@pytest.mark.parametrize(("name", "is_allowed"), [("cpu", True), ("cuda", False)])
def test_float32_on_a_gpu_is_float32(name: str, is_allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch would let convolutions round to 11 significant bits."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    pick_device(name)
    assert torch.backends.cudnn.allow_tf32 == is_allowed


# PyTorch would take cuda:256 for the first and cuda:200 for a GPU before it.
@pytest.mark.parametrize("name", ["cuda:2", "cuda:200", "cuda:256", "cuda:99999999999999999999"])
def test_absent_devices_are_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    set_gpus(monkeypatch, 2)
    with pytest.raises(UserError, match=f"'{name}' not found: 2 CUDA devices"):
        pick_device(name)


@pytest.mark.parametrize("name", ["", "gpu", "CPU", "cpu:0", "cuda:", "cuda:-1", "cuda:1 ", "mps", "meta"])
def test_unknown_devices_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="choose auto, cpu, cuda or cuda:N"):
        pick_device(name)


def test_a_long_evaluation_says_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("reslab.data.progress.PATIENCE", 0.0)
    images = torch.arange(5, dtype=torch.uint8).reshape(5, 1, 1, 1)
    with watching(images, "evaluating") as watched:
        assert len(watched) == 5
        assert torch.equal(torch.cat([watched[0:2], watched[2:5]]), images)
    assert capsys.readouterr().err.startswith("reslab: evaluating: 0 of 5 images")

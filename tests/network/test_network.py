"""One object from a file to logits: what it takes, what it refuses in a sentence, and that saving loses nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import reslab
from reslab import Network, UserError
from reslab.data.pictures import read_pictures
from reslab.recipe.networks import FastConv, PreActResNet
from reslab.recipe.recipe import Standardize
from reslab.records import Weights
from reslab.runs import Run, pack_weights, read_weights
from reslab.runs.files import to_safetensors, write_bytes

TINY = Path(__file__).parents[1] / "fixtures/tiny"


@pytest.fixture(scope="module")
def network() -> Network:
    return Network.load(TINY, device="cpu")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(256, (5, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_logits_and_features_are_those_of_the_layers(network: Network, images: torch.Tensor) -> None:
    by = network.metadata.standardize
    with torch.no_grad():
        standardized = (images.float() - by.mean[0]) / by.std[0]
        features = network.module.features(standardized)
        logits = network.module.head(features)
    torch.testing.assert_close(network.logits(images), logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(network.features(images), features, rtol=1e-4, atol=1e-4)
    mirrored = (network.logits(images) + network.logits(images.flip(3))) / 2
    torch.testing.assert_close(network.logits(images, views=2), mirrored, rtol=1e-4, atol=1e-4)


def test_features_can_be_trained_on(network: Network, images: torch.Tensor) -> None:
    head = torch.nn.Linear(network.module.head.in_features, 2)
    head(network.features(images)).sum().backward()
    assert head.weight.grad is not None


@pytest.mark.parametrize("shape", [(20, 30), (8, 11), (4, 4)])
def test_images_of_any_other_size_are_resized_as_pillow_does(network: Network, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(3, 1, *shape), dtype=np.uint8)
    small = np.stack(
        [np.asarray(Image.fromarray(each[0]).resize((8, 8), Image.Resampling.BILINEAR)) for each in pixels]
    )
    wanted = network.prepare(torch.from_numpy(small)[:, None])
    one = 1.01 / network.metadata.standardize.std[0]  # Pillow rounds otherwise
    assert (network.prepare(torch.from_numpy(pixels)) - wanted).abs().max() <= one
    assert network.logits(torch.from_numpy(pixels)).shape == (3, 3)


def test_no_images_have_no_logits(network: Network, images: torch.Tensor) -> None:
    assert network.logits(images[:0]).shape == (0, 3)


@pytest.mark.parametrize(
    "wrong",
    [torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.zeros(1, 8, 8, dtype=torch.uint8), torch.zeros(2, 1, 8, 8)],
)
def test_what_is_no_stored_image_of_its_channels_is_refused(network: Network, wrong: torch.Tensor) -> None:
    with pytest.raises(UserError, match=r"are not for this network: give it \(N, 1, H, W\) of torch.uint8"):
        network.logits(wrong)
    with pytest.raises(UserError, match="are not for this network"):
        network.features(wrong)


def test_what_is_saved_is_what_was_loaded_byte_for_byte(finished: Run, tmp_path: Path) -> None:
    Network.load(finished.path, device="cpu").save(tmp_path / "other.safetensors")
    assert (tmp_path / "other.safetensors").read_bytes() == finished.weights_path.read_bytes()


def test_a_network_of_ones_own_layers_can_be_saved_and_loaded(tmp_path: Path) -> None:
    options = PreActResNet(depth=8, width=8)
    module = reslab.build(options, num_classes=2, channels=2)
    metadata = Weights(
        model=options,
        classes=("a", "b"),
        channels=2,
        image_size=9,
        standardize=Standardize(mean=(1, 2), std=(3, 4)),
    )
    Network(module, metadata).save(tmp_path / "own.safetensors")
    loaded = Network.load(tmp_path / "own.safetensors", device="cpu")
    assert (loaded.classes, loaded.channels, loaded.image_size) == (("a", "b"), 2, 9)
    images = torch.randint(256, (3, 2, 9, 9), dtype=torch.uint8)
    by_hand = (images - torch.tensor([1, 2])[:, None, None]) / torch.tensor([3, 4])[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(loaded.logits(images), module.eval()(by_hand), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("change", [{"model": PreActResNet(depth=14)}, {"classes": ("a",)}, {"channels": 3}])
def test_metadata_that_the_weights_do_not_fit_end_in_one_sentence(
    finished: Run, tmp_path: Path, change: dict[str, object]
) -> None:
    tensors, metadata = read_weights(finished.path)
    finished.write_weights(pack_weights(tensors, metadata.model_copy(update=change)))
    attempts = (
        lambda: Network.load(finished.path),
        lambda: reslab.evaluate(finished),
        lambda: reslab.extend(finished.path, data="digits:8@20", out=tmp_path / "more"),
        lambda: reslab.export(finished, to=tmp_path / "model.onnx"),
        lambda: reslab.classify([], weights=finished.path),
    )
    for attempt in attempts:
        with pytest.raises(UserError, match="do not fit the network that they name") as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_a_normalisation_of_other_channels_is_damage(finished: Run) -> None:
    tensors, metadata = read_weights(finished.path)
    wrong = metadata.model_copy(update={"standardize": Standardize(mean=(1, 2), std=(1, 2))})
    finished.write_weights(pack_weights(tensors, wrong))
    with pytest.raises(UserError, match="is damaged: it standardises 2 channels of 1"):
        Network.load(finished.path)


def test_images_too_small_for_the_network_are_damage(tmp_path: Path) -> None:
    options, standardize = FastConv(widths=(8, 8, 8)), Standardize(mean=(1,), std=(2,))
    metadata = Weights(model=options, classes=("a", "b"), channels=1, image_size=8, standardize=standardize)
    Network(reslab.build(options, num_classes=2, channels=1), metadata).save(tmp_path / "own.safetensors")
    with pytest.raises(UserError, match="is damaged: its images have 8 pixels a side, its network needs 9 or more"):
        Network.load(tmp_path / "own.safetensors")


@pytest.mark.parametrize("content", [b"", b"\x80\x02N.", b"{}" * 50])
def test_a_file_that_is_no_network_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "it").write_bytes(content)
    for path in (tmp_path / "it", tmp_path / "absent", tmp_path):
        with pytest.raises(UserError) as caught:
            Network.load(path)
        assert "\n" not in str(caught.value)


def test_resizing_is_the_same_as_at_rest(network: Network) -> None:
    pixels = torch.randint(256, (3, 1, 17, 13), dtype=torch.uint8)
    small = F.interpolate(pixels, size=(8, 8), mode="bilinear", antialias=True)
    assert torch.equal(network.logits(pixels), network.logits(small))


def test_a_network_makes_squares_as_its_weights_say(network: Network, tmp_path: Path) -> None:
    """Saved weights, stored pixels and picture files follow one rule."""
    padding = Network(network.module, network.metadata.model_copy(update={"resize": "pad"}))
    padding.save(tmp_path / "pads.safetensors")
    again = Network.load(tmp_path / "pads.safetensors", device="cpu")
    assert (network.resize, again.resize) == ("squeeze", "pad")
    wide = torch.full((1, 1, 8, 16), 200, dtype=torch.uint8)
    bars = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    bars[:, :, 2:6] = 200
    torch.testing.assert_close(again.logits(wide), network.logits(bars))
    Image.fromarray(wide[0, 0].numpy()).save(tmp_path / "wide.png")
    pixels = read_pictures([tmp_path / "wide.png"], image_size=8, channels=1, resize=again.resize)
    assert (torch.from_numpy(pixels) == bars).all()


def test_weights_without_a_way_to_squares_squeeze() -> None:
    content = Network.load(TINY, device="cpu").metadata.model_dump()
    del content["resize"]
    assert Weights.model_validate(content).resize == "squeeze"


@pytest.mark.parametrize(("name", "value"), [("head.weight", float("nan")), ("running_var", -1.0)])
def test_values_that_give_no_answer_are_damage(name: str, value: float, finished: Run, tmp_path: Path) -> None:
    tensors, metadata = read_weights(finished.path)
    (whole, *_) = [each for each in tensors if each.endswith(name)]
    tensors[whole].flat[0] = value
    write_bytes(tmp_path / "model.safetensors", to_safetensors(tensors, {"reslab": metadata.model_dump_json()}))
    with pytest.raises(UserError, match=rf"{whole} has values that give no answer"):
        Network.load(tmp_path / "model.safetensors")

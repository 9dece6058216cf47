from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reslab.data.load import load
from reslab.errors import UserError
from reslab.network.familiarity import FEWEST, fit_familiarity
from reslab.network.finishing import finish
from reslab.network.network import Network
from reslab.records import Calibration

TINY = Path(__file__).parents[1] / "fixtures/tiny"


@pytest.fixture
def network():
    return Network.load(TINY, device="cpu")


@pytest.fixture
def digits():
    return load("digits:1,4,7", "train", image_size=8)


@pytest.fixture
def held_out(digits):
    """Images of which every third has the next class's label."""
    labels = digits.labels.clone()
    labels[::3] = (labels[::3] + 1) % len(digits.classes)
    return replace(digits, labels=labels, split="validation")


def test_the_head_is_divided_so_that_whatever_reads_the_weights_is_calibrated(network, digits, held_out, tmp_path):
    before = network.logits(held_out.images)
    found = finish(network, images=digits, held_out=held_out)
    temperature = found.network.metadata.calibration.temperature
    assert temperature > 1.5
    assert found.note == f"calibrated on {len(held_out.labels):,} held-out images: temperature {temperature:.2f}"
    found.network.save(tmp_path / "model.safetensors")
    again = Network.load(tmp_path / "model.safetensors")
    torch.testing.assert_close(again.logits(held_out.images), before / temperature, rtol=1e-5, atol=1e-5)
    assert again.metadata.calibration == Calibration(temperature=temperature, num_images=len(held_out.labels))


def test_without_held_out_images_the_recipe_s_own_temperature_counts(network, digits):
    before = network.logits(digits.images)
    found = finish(network, images=digits, held_out=None, usual=2.0)
    assert found.network.metadata.calibration == Calibration(temperature=2.0)
    torch.testing.assert_close(found.network.logits(digits.images), before / 2, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_calibrated_stays_as_it_is(network, digits):
    before = network.logits(digits.images)
    assert finish(network, images=digits, held_out=None).note == "not calibrated: no images are held out"
    assert "show every class" in finish(network, images=digits, held_out=digits.subset([0])).note
    assert network.metadata.calibration is None
    assert torch.equal(network.logits(digits.images), before)


def test_the_share_of_unlike_pictures_among_like_ones_is_what_was_promised():
    """Features of one distribution: whatever it is, p values are uniform."""
    generator = torch.Generator().manual_seed(0)
    known, held_out, coming = (torch.randn(num, 16, generator=generator) for num in (300, 400, 4000))
    familiarity = fit_familiarity(known, held_out, held_out[:, :3])(coming, coming[:, :3])
    for share in (0.05, 0.2):
        assert float((familiarity <= share).float().mean()) == pytest.approx(share, abs=0.03)
    like, held = (torch.rand(num, 16, generator=generator) for num in (300, FEWEST))
    familiarity = fit_familiarity(like, held, held[:, :3])
    strange, unsure = -torch.ones(1, 16), torch.zeros(1, 3)  # far from all, and equal logits
    assert float(familiarity(strange, unsure)) == pytest.approx(1 / (1 + FEWEST))  # few images suffice to refuse
    assert float(familiarity(strange, held[:1, :3])) < 0.15
    assert float(familiarity(held[:1], unsure)) < 0.15
    assert fit_familiarity(known, held_out[: FEWEST - 1], held_out[: FEWEST - 1, :3]) is None


def test_a_network_knows_its_pictures_from_strange_ones_and_so_does_its_file(network, digits, tmp_path):
    known = finish(network, images=digits, held_out=load("digits:1,4,7", "test", image_size=8)).network
    known.save(tmp_path / "model.safetensors")
    again = Network.load(tmp_path / "model.safetensors")
    strange = load("digits:0,3,5,8", "test", image_size=8).images
    probabilities, own = again.answer(digits.images)
    torch.testing.assert_close(probabilities, again.logits(digits.images).softmax(1), rtol=1e-4, atol=1e-5)
    _, other = again.answer(strange)
    assert torch.equal(own, known.answer(digits.images)[1])
    assert float((own > 0.05).float().mean()) > 0.9
    assert float((other > 0.05).float().mean()) < float((own > 0.05).float().mean()) - 0.2
    assert network.answer(digits.images)[1] is None  # which was not finished


def test_a_file_with_a_familiarity_that_does_not_fit_is_told(network, digits, tmp_path):
    known = finish(network, images=digits, held_out=digits).network
    known.familiarity.known = known.familiarity.known[:, :3]
    known.save(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="the images that the network knows have the shape"):
        Network.load(tmp_path / "model.safetensors")

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reslab.data.load import load
from reslab.network.calibrating import calibrate
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


def test_the_head_is_divided_so_that_whatever_reads_the_weights_is_calibrated(network, held_out, tmp_path):
    before = network.logits(held_out.images)
    found = calibrate(network, held_out=held_out)
    temperature = found.network.metadata.calibration.temperature
    assert temperature > 1.5
    assert found.note == f"calibrated on {len(held_out.labels):,} held-out images: temperature {temperature:.2f}"
    found.network.save(tmp_path / "model.safetensors")
    again = Network.load(tmp_path / "model.safetensors")
    torch.testing.assert_close(again.logits(held_out.images), before / temperature, rtol=1e-5, atol=1e-5)
    assert again.metadata.calibration == Calibration(temperature=temperature, num_images=len(held_out.labels))


def test_without_held_out_images_the_recipe_s_own_temperature_counts(network, digits):
    before = network.logits(digits.images)
    found = calibrate(network, held_out=None, usual=2.0)
    assert found.network.metadata.calibration == Calibration(temperature=2.0)
    torch.testing.assert_close(found.network.logits(digits.images), before / 2, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_calibrated_stays_as_it_is(network, digits):
    before = network.logits(digits.images)
    assert calibrate(network, held_out=None).note == "not calibrated: no images are held out"
    assert "show every class" in calibrate(network, held_out=digits.subset([0])).note
    assert network.metadata.calibration is None
    assert torch.equal(network.logits(digits.images), before)

"""Feature fusion: the module gives the features that its head was solved on, and kept classes keep every bit."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from reslab import models
from reslab.data.load import load
from reslab.extension import extend
from reslab.models.fusion import SplitLinear
from reslab.network.network import Network
from reslab.pretrained.fusion import compute_fused, fuse
from reslab.recipe.networks import EfficientNetLite, FastConv, Fusion
from reslab.recipe.recipe import Standardize
from reslab.records import Weights
from reslab.runs import Run

PIXELS = Standardize(mean=(120.0, 110.0, 90.0), std=(60.0, 70.0, 80.0))


def make_base(channels: int) -> Network:
    torch.manual_seed(0)
    options = FastConv(widths=(8, 16, 16))
    standardize = Standardize(mean=PIXELS.mean[:channels], std=PIXELS.std[:channels])
    known = Weights(model=options, classes=("a", "b"), channels=channels, image_size=12, standardize=standardize)
    return Network(models.build(options, num_classes=2, channels=channels).eval(), known)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_network_computes_the_features_that_its_head_was_solved_on(channels: int) -> None:
    base = make_base(channels)
    options = Fusion(base=FastConv(widths=(8, 16, 16)), pretrained=EfficientNetLite(resize=40))
    fused = Network(fuse(base, options, num_classes=3), base.metadata.model_copy(update={"model": options}))
    images = load("digits", "train", image_size=12)
    images = images.subset(torch.arange(6))
    object.__setattr__(images, "images", images.images.expand(-1, channels, -1, -1).contiguous())
    solved_on, served = compute_fused(fused, images), fused.features(images.images)
    torch.testing.assert_close(served, solved_on, rtol=1e-3, atol=1e-4)
    assert solved_on[:, 16:].std() > 0.1
    torch.testing.assert_close(served[:, :16], base.features(images.images), rtol=0, atol=0)


def test_kept_rows_of_a_linear_layer_are_as_those_of_the_smaller_one() -> None:
    torch.manual_seed(0)
    x, small, layer = torch.randn(50, 30), nn.Linear(17, 4), SplitLinear(30, 9, blocks=[(4, 17)])
    with torch.no_grad():
        layer.weight[:4, :17], layer.bias[:4] = small.weight, small.bias
    assert torch.equal(layer(x)[:, :4], small(x[:, :17]))
    torch.testing.assert_close(layer(x)[:, 4:], (x @ layer.weight.T + layer.bias)[:, 4:])


def test_kept_classes_keep_every_bit_however_often_they_are_extended(base: Run, tmp_path: Path) -> None:
    images = load("digits", "test", image_size=8).images[:150]
    runs = [base]
    for number, data in enumerate(("digits:0,8@20", "digits:5@20")):
        runs.append(extend(runs[-1].path, data=data, out=tmp_path / str(number), method="fusion", keep_old="exact"))
    answers = [Network.load(run.path).logits(images) for run in runs]
    for before, after in pairwise(answers):
        assert torch.equal(after[:, : before.shape[1]], before)
        assert after[:, before.shape[1] :].isfinite().all()


def test_a_head_trained_further_keeps_no_rows_apart(base: Run, tmp_path: Path) -> None:
    kept = extend(base.path, data="digits:0@20", out=tmp_path / "kept", method="fusion", keep_old="exact")
    made = extend(kept.path, data="digits:8@20", out=tmp_path / "more", method="nearest-mean")
    network = Network.load(made.path)
    assert isinstance(network.metadata.model, Fusion)
    assert (network.metadata.model.kept, type(network.module.head)) == ((), nn.Linear)
    assert made.recipe.model == network.metadata.model

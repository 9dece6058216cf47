import numpy as np
import pytest
import torch
from torch import nn

from reslab import models
from reslab.evaluation.heat import BATCH, evidence_maps, find_last_layer, heat_maps
from reslab.models.layers import ImageClassifier
from reslab.recipe.networks import MODELS


@pytest.mark.parametrize("name", ["preact_resnet20", "resnet20", "plain20", "elu_resnet20", "fast_conv"])
def test_evidence_adds_up_to_the_logit_without_the_bias(name):
    torch.manual_seed(0)
    model = models.build(MODELS[name], num_classes=7).eval()
    nn.init.normal_(model.head.bias)
    images, classes = torch.randn(3, 3, 32, 32), torch.tensor([[0, 3], [1, 2], [6, 5]])
    with torch.no_grad():
        expected = (model(images) - model.head.bias).gather(1, classes)
    maps = evidence_maps(model, images, classes=classes)
    assert maps.shape[:2] == (3, 2)
    assert maps.shape[2] > 1
    torch.testing.assert_close(maps.sum((2, 3)), expected, rtol=1e-4, atol=1e-4)


def test_of_an_averaged_map_it_is_the_class_activation_map():
    model = models.build(MODELS["resnet20"], num_classes=4).eval()
    images = torch.randn(1, 3, 16, 16)
    kept = {}
    hook = model.blocks.register_forward_hook(lambda module, inputs, output: kept.update(map=output.detach()))
    with torch.no_grad():
        model(images)
    hook.remove()
    (height, width) = kept["map"].shape[2:]
    by_hand = torch.einsum("c,chw->hw", model.head.weight[2].detach(), kept["map"][0]) / (height * width)
    torch.testing.assert_close(evidence_maps(model, images, classes=torch.tensor([[2]]))[0, 0], by_hand)


def test_many_images_are_done_in_parts_and_no_hook_stays():
    model = models.build(MODELS["resnet20"], num_classes=4).eval()
    images = torch.randn(BATCH + 1, 3, 8, 8)
    classes = torch.zeros(len(images), 1, dtype=torch.int64)
    together = evidence_maps(model, images, classes=classes)
    torch.testing.assert_close(together[-1:], evidence_maps(model, images[-1:], classes=classes[-1:]))
    assert not any(module._forward_hooks for module in model.modules())


class OnePlace(ImageClassifier):
    """Names class 1 for what is bright at the upper left, through a layer that works in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(1)
        self.head = nn.Linear(1, 2)
        with torch.no_grad():
            self.conv.weight.fill_(1.0)
            self.head.weight.copy_(torch.tensor([[-1.0], [1.0]]))
            self.head.bias.zero_()

    def features(self, images):
        return torch.relu_(self.norm(self.conv(images))).mean(dim=(2, 3))


def test_heat_lies_where_the_network_looked():
    model, images = OnePlace().eval(), torch.zeros(2, 1, 4, 4)
    images[0, 0, 0, 0] = images[1, 0, 3, 2] = 5.0
    assert find_last_layer(model, images) is model.norm
    maps = heat_maps(model, images)
    assert np.argmax(maps[0]) == 0
    assert np.argmax(maps[1]) == 14
    assert maps[0].max() == maps[1].max() == 255
    assert (maps[0].ravel()[1:] == 0).all()
    assert model.norm._forward_hooks == {}


class NoPlace(OnePlace):
    def features(self, images):
        return super().features(images.mean(dim=(2, 3), keepdim=True))


def test_where_no_layer_has_places_there_are_no_maps():
    images = torch.zeros(2, 1, 4, 4)
    assert evidence_maps(NoPlace().eval(), images, classes=torch.zeros(2, 1, dtype=torch.int64)) is None
    assert heat_maps(NoPlace().eval(), images).shape == (0, 0, 0)

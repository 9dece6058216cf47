"""What a recipe's networks refuse, and what they are called."""

import pytest

from reslab.errors import UserError
from reslab.recipe.networks import (
    MODELS,
    EfficientNetLite,
    EluResNet,
    FastConv,
    Fusion,
    ImageNetResNet,
    LeNet,
    NiN,
    Plain,
    PreActResNet,
    ResNet,
    ResNeXt,
    Timm,
)
from reslab.recipe.recipe import RandomResizedCrop, Steps, derive, parse_recipe
from reslab.recipe.shipped import RECIPES
from reslab.report.words import augment_words

LAB = RECIPES["lab-resnet32"]


def complaint(**changes):
    with pytest.raises(UserError) as error:
        parse_recipe(LAB.model_dump(mode="json") | changes, where="file")
    return str(error.value)


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({"kind": "wide_resnet", "depth": 27, "widening": 2}, "depth 27 is not 6n+4; the nearest are 22 and 28"),
        ({"kind": "densenet", "depth": 99, "growth": 12}, "depth 99 is not 6n+4; the nearest are 94 and 100"),
        (
            {"kind": "resnext", "depth": 28, "cardinality": 4, "width": 64},
            "depth 28 is not 9n+2; the nearest are 20 and 29",
        ),
        (
            {"kind": "resnext", "depth": 29, "cardinality": 4, "width": 64, "reduction": 257},
            "a reduction of 257 leaves nothing of the first stage's 256 channels",
        ),
    ],
)
def test_a_network_that_cannot_be_is_refused(model, sentence):
    assert complaint(model=model) == f"file: model: {sentence}"


def test_a_depth_that_no_resnet_for_large_images_has_is_refused():
    sentence = complaint(model={"kind": "imagenet_resnet", "depth": 20})
    assert sentence == "file: model.depth should be 18, 34, 50, 101 or 152, not 20"


def test_images_must_leave_something_of_lenet():
    assert derive(LAB, name="x", model=LeNet(), image_size=16).image_size == 16
    sentence = complaint(model={"kind": "lenet"}, image_size=15)
    assert sentence == "file: lenet needs images of 16 pixels or more, not 15"


def test_images_must_leave_something_of_a_network_beside_a_pretrained_one():
    fusion = Fusion(base=LeNet(), pretrained=EfficientNetLite(resize=224))
    assert derive(LAB, name="x", model=fusion, image_size=16).image_size == 16
    sentence = complaint(model=fusion.model_dump(), image_size=15)
    assert sentence == "file: fusion needs images of 16 pixels or more, not 15"


@pytest.mark.parametrize(
    ("factor", "sentence"),
    [
        ([0.5], "file: schedule: 1 factors for 2 places: give one for each, or one number"),
        (2, "file: schedule.factor should be less than 1, not 2"),
        ([0.5, 0], "file: schedule.factor should be a number, not […]"),
    ],
)
def test_steps_have_one_factor_or_one_for_each_place(factor, sentence):
    steps = {"kind": "steps", "at": [100, 150], "factor": factor}
    assert complaint(schedule=steps) == sentence


def test_steps_multiply_what_is_left():
    steps = Steps(at=(100, 150), factor=(0.5, 0.2))
    assert [steps.share_after(num) for num in range(3)] == pytest.approx([1, 0.5, 0.1])
    assert [Steps(at=(1, 2), factor=0.3).share_after(num) for num in range(3)] == [1, 0.3, 0.3**2]


@pytest.mark.parametrize(("field", "ends"), [("area", [0.5, 0.1]), ("ratio", [2, 1])])
def test_the_smaller_end_of_a_window_comes_first(field, ends):
    sentence = complaint(augment=[{"kind": "random_resized_crop", field: ends}])
    expected = f"{field} runs from {ends[0]} down to {ends[1]}: write the smaller end first"
    assert sentence == f"file: augment.0: {expected}"


def test_networks_have_names_of_their_own_in_a_table_and_in_a_report():
    parts = MODELS.values()
    assert len({part.label for part in parts}) == len({part.words for part in parts}) == len(parts)
    assert {"wide_resnet28-10", "densenet100-12", "se_resnext29-4x64d", "imagenet_resnet50"} <= {
        part.label for part in parts
    }


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (LeNet(), "LeNet-5"),
        (NiN(dropout=0), "Network in Network (dropout 0)"),
        (Plain(depth=44, width=8), "plain network (44 layers, width 8, activation ReLU)"),
        (
            PreActResNet(depth=32, activation="elu", keras_padding=True),
            "pre-activation ResNet (32 layers, width 16, activation ELU, Keras padding)",
        ),
        (ResNet(depth=20, shortcut="B"), "ResNet (20 layers, width 16, activation ReLU, shortcut B)"),
        (EluResNet(depth=110), "ELU ResNet (110 layers, width 16, block conv-elu-conv-bn, shortcut A)"),
        (FastConv(), "FastConv (widths 64, 256 and 256)"),
        (
            ResNeXt(depth=29, cardinality=4, width=64, reduction=16),
            "ResNeXt (29 layers, cardinality 4, width 64, reduction 16)",
        ),
        (
            ImageNetResNet(depth=18),
            "ImageNet ResNet (18 layers, width 64, shortcut B, stride in 1x1, stem large)",
        ),
    ],
)
def test_a_report_names_every_option(network, words):
    assert network.words == words


@pytest.mark.parametrize(
    ("network", "label"),
    [
        (PreActResNet(depth=20), "preact_resnet20"),
        (ImageNetResNet(depth=18, width=8), "imagenet_resnet18 (width 8)"),
        (Timm(name="resnet18", options={"drop_rate": 0.1}), "resnet18 (drop_rate 0.1)"),
        (
            Fusion(base=EfficientNetLite(resize=256), pretrained=EfficientNetLite()),
            "efficientnet_lite0+efficientnet_lite0",
        ),
    ],
)
def test_a_table_names_the_options_that_differ_from_the_defaults(network, label):
    assert network.label_and_options == label


def test_words_of_a_report():
    assert augment_words([RandomResizedCrop()]).replace("\u00a0", " ") == (
        "a window of 8 % to 100 % of the area, 0.75 to 1.33 times as wide as high, stretched to the whole"
    )

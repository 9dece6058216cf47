"""Parameters and multiply-adds of every entry of `MODELS`, and those that papers and tables print."""

from typing import Any

import pytest
import torch

from reslab.models import build
from reslab.models.costs import count_multiply_adds, count_parameters
from reslab.models.layers import ImageClassifier
from reslab.recipe.networks import MODELS, DenseNet, ImageNetResNet, Model, ResNet, ResNeXt, WideResNet
from reslab.recipe.published import CIFAR10_NETWORKS

# Trained parameters; with the running statistics; multiply-adds of a colour image of the network's size. Ten classes.
COUNTS = {
    "preact_resnet20": (273_066, 274_442, 40_813_184),
    "preact_resnet32": (467_946, 470_218, 69_124_736),
    "preact_resnet44": (662_826, 665_994, 97_436_288),
    "preact_resnet56": (857_706, 861_770, 125_747_840),
    "preact_resnet110": (1_734_666, 1_742_762, 253_149_824),
    "resnet20": (269_722, 271_098, 40_551_040),
    "resnet32": (464_154, 466_426, 68_862_592),
    "resnet44": (658_586, 661_754, 97_174_144),
    "resnet56": (853_018, 857_082, 125_485_696),
    "resnet110": (1_727_962, 1_736_058, 252_887_680),
    "plain20": (269_722, 271_098, 40_551_040),
    "plain32": (464_154, 466_426, 68_862_592),
    "plain44": (658_586, 661_754, 97_174_144),
    "plain56": (853_018, 857_082, 125_485_696),
    "elu_resnet20": (269_386, 270_090, 40_551_040),
    "elu_resnet32": (463_594, 464_746, 68_862_592),
    "elu_resnet44": (657_802, 659_402, 97_174_144),
    "elu_resnet56": (852_010, 854_058, 125_485_696),
    "elu_resnet110": (1_725_946, 1_730_010, 252_887_680),
    "fast_conv": (1_971_352, 1_975_106, 118_147_360),
    "lenet": (62_006, 62_006, 651_720),
    "nin": (968_394, 971_210, 222_365_568),
    "vgg19": (38_961_610, 38_989_002, 417_046_528),
    "wrn16_8": (10_961_370, 10_968_570, 1_548_145_664),
    "wrn28_10": (36_479_194, 36_497_146, 5_243_328_768),
    "densenet_bc_100_12": (769_162, 793_150, 287_929_692),
    "densenet_bc_100_24": (3_020_506, 3_068_482, 1_150_384_824),
    "densenet_bc_160_24": (6_831_466, 6_943_642, 2_495_556_384),
    "resnext29_4x64d": (17_562_442, 17_598_410, 2_736_465_920),
    "se_resnext29_4x64d": (18_078_538, 18_114_506, 2_736_982_016),
    "resnet18": (11_181_642, 11_191_242, 1_813_566_464),
    "resnet34": (21_289_802, 21_306_826, 3_663_254_528),
    "resnet50": (23_528_522, 23_581_642, 3_855_945_728),
    "resnet101": (42_520_650, 42_625_994, 7_568_166_912),
    "resnet152": (58_164_298, 58_315_722, 11_280_388_096),
    "efficientnet_lite0": (3_383_818, 3_425_834, 383_920_352),
    "efficientnet_lite1": (4_148_490, 4_202_154, 598_918_032),
    "efficientnet_lite2": (4_823_882, 4_881_978, 858_469_072),
}


def build_shapes(options: Model, *, num_classes: int = 10) -> ImageClassifier:
    with torch.device("meta"):
        return build(options, num_classes=num_classes)


@pytest.mark.parametrize("entry", MODELS)
def test_counts(entry: str) -> None:
    model = build_shapes(MODELS[entry])
    counted = (
        count_parameters(model),
        count_parameters(model, trained_only=False),
        count_multiply_adds(model, image=torch.zeros(3, model.image_size, model.image_size)),
    )
    assert counted == COUNTS[entry]
    assert model.training  # counting leaves the mode as it was


# Millions, as printed, and the shortcuts that round to them. The parameters are option A's throughout. The field's
# multiply-adds are no one network's: 40.8 of depth 20 is option B's (A: 40.6), 125 of depth 56 is option A's (B: 126).
@pytest.mark.parametrize(
    ("depth", "parameters", "fit_parameters", "multiply_adds", "fit_multiply_adds"),
    [
        (20, "0.27", "AB", "40.8", "B"),
        (32, "0.46", "A", "69", "AB"),
        (44, "0.66", "AB", "97", "AB"),
        (56, "0.85", "A", "125", "A"),
        (110, "1.7", "AB", "253", "AB"),
    ],
)
def test_published_counts_of_resnets(
    depth: int, parameters: str, fit_parameters: str, multiply_adds: str, fit_multiply_adds: str
) -> None:
    fits = {parameters: "", multiply_adds: ""}
    for shortcut in ("A", "B"):
        model, image = build(ResNet(depth=depth, shortcut=shortcut), num_classes=10), torch.zeros(3, 32, 32)
        counts = {parameters: count_parameters(model), multiply_adds: count_multiply_adds(model, image=image)}
        for printed, count in counts.items():
            decimals = len(printed.partition(".")[2])
            fits[printed] += shortcut if f"{count / 1e6:.{decimals}f}" == printed else ""
    assert fits == {parameters: fit_parameters, multiply_adds: fit_multiply_adds}


# In millions, as the papers print them, some rounded and some cut.
@pytest.mark.parametrize(
    ("options", "printed"),
    [
        (WideResNet(depth=40, widening=4), 8.9),
        (WideResNet(depth=16, widening=8), 11.0),
        (WideResNet(depth=28, widening=10), 36.5),
        (DenseNet(depth=100, growth=12), 0.8),
        (DenseNet(depth=190, growth=40), 25.6),
        (ResNeXt(depth=29, cardinality=8, width=64), 34.4),
        (ResNeXt(depth=29, cardinality=16, width=64), 68.1),
    ],
    ids=str,
)
def test_published_counts_of_the_papers(options: Model, printed: float) -> None:
    assert count_parameters(build_shapes(options)) / 1e6 == pytest.approx(printed, abs=0.06)


# The table of `reslab.recipe.published` counts running statistics too; its networks are the scripts' or the papers'.
@pytest.mark.parametrize(
    ("entry", "script", "network", "nearest"),
    [
        ("lenet", {}, "LeNet", "paper"),
        ("nin", {}, "Network in Network", "paper"),
        ("vgg19", {}, "VGG-19", "paper"),
        ("preact_resnet20", {}, "Pre-activation ResNet-20", "paper"),
        ("preact_resnet32", {}, "Pre-activation ResNet-32", "paper"),
        ("preact_resnet110", {}, "Pre-activation ResNet-110", "paper"),
        ("wrn16_8", {"project_every_block": True}, "Wide ResNet 16-8", "script"),
        ("wrn28_10", {"project_every_block": True}, "Wide ResNet 28-10", "paper"),
        ("densenet_bc_100_12", {"last_transition": True}, "DenseNet-BC 100x12", "script"),
        ("densenet_bc_100_24", {"last_transition": True}, "DenseNet-BC 100x24", "script"),
        ("densenet_bc_160_24", {"last_transition": True}, "DenseNet-BC 160x24", "script"),
        ("resnext29_4x64d", {"keras_script": True}, "ResNeXt-29 4x64d", "script"),
        ("se_resnext29_4x64d", {"keras_script": True}, "SE-ResNeXt-29 4x64d", "script"),
    ],
)
def test_published_counts_of_the_table(entry: str, script: dict[str, Any], network: str, nearest: str) -> None:
    (printed,) = (row.parameters for row in CIFAR10_NETWORKS if row.network == network)
    counts = {
        name: count_parameters(build_shapes(MODELS[entry].model_copy(update=options)), trained_only=False)
        for name, options in (("paper", {}), ("script", script))
    }
    assert min(counts, key=lambda name: abs(counts[name] - printed)) == nearest
    assert counts[nearest] == pytest.approx(printed, rel=0.045)


# Parameters in a thousand classes, and 10^9 multiply-adds: those of He et al. 2015, table 1, whose figures are partly
# rounded and partly cut, and those that are given everywhere for the stride in the 3x3 convolution.
@pytest.mark.parametrize(
    ("depth", "parameters", "printed", "later"),
    [
        (18, 11_689_512, 1.8, "1.81"),
        (34, 21_797_672, 3.6, "3.66"),
        (50, 25_557_032, 3.8, "4.09"),
        (101, 44_549_160, 7.6, "7.80"),
        (152, 60_192_808, 11.3, "11.51"),
    ],
)
def test_published_counts_of_resnets_for_large_images(depth: int, parameters: int, printed: float, later: str) -> None:
    image = torch.zeros(3, 224, 224)
    first, second = (
        build_shapes(ImageNetResNet.model_validate({"depth": depth, "stride_in": stride}), num_classes=1000)
        for stride in ("1x1", "3x3")
    )
    assert count_parameters(first) == count_parameters(second) == parameters
    assert count_multiply_adds(first, image=image) / 1e9 == pytest.approx(printed, abs=0.07)
    assert f"{count_multiply_adds(second, image=image) / 1e9:.2f}" == later


# Millions of parameters and of multiply-adds in a thousand classes, as the Lite variant's page prints them; its counter
# takes in norms and additions too, a twentieth of all.
@pytest.mark.parametrize(("size", "parameters", "multiply_adds"), [(0, "4.7", 407), (1, "5.4", 631), (2, "6.1", 899)])
def test_published_counts_of_efficientnet_lite(size: int, parameters: str, multiply_adds: int) -> None:
    model = build_shapes(MODELS[f"efficientnet_lite{size}"], num_classes=1000)
    assert f"{count_parameters(model) / 1e6:.1f}" == parameters
    image = torch.zeros(3, model.image_size, model.image_size)
    assert 0.94 < count_multiply_adds(model, image=image) / 1e6 / multiply_adds < 0.96

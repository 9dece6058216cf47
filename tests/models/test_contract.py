"""The contract of a model, over every entry of `MODELS` and every option of the families.

A new entry is tested by being there; only its counts have to be written down, in `test_counts.py`. Values are compared
in double precision where rounding would hide a defect. `settle` gives the norms the statistics of a batch: without them
the logits of a deep network lie anywhere between 1e-5 and 1e8.
"""

from pathlib import Path
from pkgutil import resolve_name
from typing import Literal, get_args, get_origin

import numpy as np
import pytest
import safetensors.numpy
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from reslab.errors import UserError
from reslab.models import build, restore
from reslab.models.efficientnet_lite import EfficientNetLiteClassifier
from reslab.models.fusion import FusionClassifier
from reslab.models.layers import ImageClassifier
from reslab.models.preact_resnet import PreActResNetClassifier
from reslab.recipe.networks import (
    MODELS,
    Architecture,
    DenseNet,
    EfficientNetLite,
    EluResNet,
    FastConv,
    Foreign,
    Fusion,
    ImageNetResNet,
    Model,
    NiN,
    Plain,
    PreActResNet,
    ResNet,
    ResNeXt,
    Vgg19,
    WideResNet,
)

CLASSES = 7  # not 10: a hard-coded class count must fail

OPTIONS: dict[str, Model] = {
    "preact_resnet8-elu": PreActResNet(depth=8, activation="elu"),
    "preact_resnet8-keras": PreActResNet(depth=8, keras_padding=True),
    "resnet8-elu": ResNet(depth=8, activation="elu"),
    "resnet8-B": ResNet(depth=8, shortcut="B"),
    "plain8-elu-wide": Plain(depth=8, activation="elu", width=24),
    "elu_resnet8-elu-after": EluResNet(depth=8, block="elu-after-addition"),
    "elu_resnet8-bn-before": EluResNet(depth=8, block="bn-before-elu"),
    "elu_resnet8-conv-bn-elu": EluResNet(depth=8, block="conv-bn-elu"),
    "elu_resnet8-B": EluResNet(depth=8, shortcut="B"),
    "fast_conv-narrow": FastConv(widths=(8, 24, 16)),
    "nin-dropout": NiN(dropout=0.2),
    "vgg19-narrow": Vgg19(width=8, hidden=16, dropout=0.2),
    "wide_resnet10": WideResNet(depth=10, widening=1),
    "wide_resnet10-projected": WideResNet(depth=10, widening=2, project_every_block=True),
    "densenet10": DenseNet(depth=10, growth=12),
    "densenet16-last": DenseNet(depth=16, growth=4, last_transition=True),
    "resnext11": ResNeXt(depth=11, cardinality=3, width=8),
    "se_resnext11-script": ResNeXt(depth=11, cardinality=2, width=16, reduction=16, keras_script=True),
    "imagenet_resnet18-narrow": ImageNetResNet(depth=18, width=8),
    "imagenet_resnet18-A": ImageNetResNet(depth=18, width=8, shortcut="A"),
    "imagenet_resnet50-narrow": ImageNetResNet(depth=50, width=8),
    "fusion": Fusion(base=Plain(depth=8, width=8), pretrained=EfficientNetLite(resize=32)),
    "imagenet_resnet50-small": ImageNetResNet(depth=50, width=8, stride_in="3x3", stem="small"),
}
# Of these families the shipped networks are too large for a test: small ones of the same code stand above, and the
# large ones are only counted.
LARGE = ("vgg19", "wide_resnet", "densenet", "resnext", "imagenet_resnet")
ENTRIES = MODELS | OPTIONS


def make_model(name: str, *, channels: int = 3, seed: int = 0) -> ImageClassifier:
    torch.manual_seed(seed)
    return build(ENTRIES[name], num_classes=CLASSES, channels=channels)


def smallest_side(name: str) -> int:
    return max(8, ENTRIES[name].SMALLEST_IMAGE)


def draw_images(name: str, num_images: int = 4, *, side: int | None = None, channels: int = 3) -> Tensor:
    # Where sixteen blocks norm over four values each, gradients grow by a factor of millions.
    usual = 32 if ENTRIES[name].kind in ("efficientnet_lite", "fusion") else 10
    side = side or max(usual, smallest_side(name))
    return torch.randn(num_images, channels, side, side, generator=torch.Generator().manual_seed(1))


def settle(model: ImageClassifier, images: Tensor) -> ImageClassifier:
    """Take over the statistics of `images` into every norm; returns the model in evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
    return model.eval()


@pytest.fixture(params=[name for name in ENTRIES if name in OPTIONS or MODELS[name].kind not in LARGE])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("channels", [1, 3])
def test_logits_have_a_column_per_class(name: str, channels: int) -> None:
    model = make_model(name, channels=channels).eval()
    for side in (smallest_side(name), 16, 17, 32):
        with torch.inference_mode():
            logits = model(draw_images(name, 2 if side < 32 else 1, side=side, channels=channels))
        assert logits.shape == (2 if side < 32 else 1, CLASSES)
        assert logits.isfinite().all()


def test_images_of_the_smallest_size_and_no_smaller_ones_are_taken(name: str) -> None:
    model, smallest = make_model(name).eval(), ENTRIES[name].SMALLEST_IMAGE
    with torch.inference_mode():
        assert model(draw_images(name, 1, side=smallest)).shape == (1, CLASSES)
        if smallest > 1:
            with pytest.raises(RuntimeError, match="size"):
                model(draw_images(name, 1, side=smallest - 1))


def test_head_of_features_is_the_logits(name: str) -> None:
    model, images = make_model(name).eval(), draw_images(name)
    with torch.inference_mode():
        features = model.features(images)
        assert type(model.head) is nn.Linear
        assert features.shape == (len(images), model.head.in_features)
        torch.testing.assert_close(model.head(features), model(images), rtol=0, atol=0)


def test_logits_of_an_image_do_not_depend_on_its_batch(name: str) -> None:
    images = draw_images(name).double()
    model = settle(make_model(name).double(), images)
    with torch.inference_mode():
        alone = torch.cat([model(image[None]) for image in images])
        together = model(images)
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)
    assert (together - together[0])[1:].abs().max() > 0.01  # they do depend on the image


def gradient_norms(model: ImageClassifier, images: Tensor) -> dict[str, float]:
    logits = model(images)
    (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    norms = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, name
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        norms[name] = parameter.grad.norm().item()
    return norms


def cancelled(model: ImageClassifier) -> set[str]:
    """Name the parameters that a batch's norms make ineffective, so that their gradient is zero in training.

    In the pre-activation network a convolution's bias only moves a channel by a constant, and every way from there to
    the head goes through a norm first, which subtracts the batch's mean. So does the bias of the norm that ends a block
    of EfficientNet-Lite: 1x1 convolutions and their norms read it. Elsewhere a bias, if any, meets an ELU first.
    """
    if isinstance(model, EfficientNetLiteClassifier):
        return {f"blocks.{number}.project.1.bias" for number in range(len(model.blocks))}
    if isinstance(model, FusionClassifier):
        return {f"pretrained.{name}" for name in cancelled(model.pretrained)}
    if not isinstance(model, PreActResNetClassifier):
        return set()
    return {f"{name}.bias" for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}


def test_gradients_reach_every_parameter_in_training(name: str) -> None:
    model = make_model(name).double().train()
    norms = gradient_norms(model, draw_images(name).double())
    zero = cancelled(model)
    assert zero <= norms.keys()
    largest = max(norms.values())
    for parameter, norm in norms.items():
        if parameter in zero:
            assert norm < 1e-12 * largest, f"{parameter} should have no effect in training"
        else:
            assert norm > 1e-6 * largest, parameter


def test_gradients_reach_every_parameter_in_evaluation(name: str) -> None:
    images = draw_images(name).double()
    norms = gradient_norms(settle(make_model(name).double(), images), images)
    assert min(norms.values()) > 1e-6 * max(norms.values())


def test_channels_last_changes_only_the_rounding(name: str) -> None:
    model, images = make_model(name).eval(), draw_images(name)
    with torch.inference_mode():
        expected = model(images)
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        logits = model(images.contiguous(memory_format=torch.channels_last))
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()


def test_parameters_stand_in_the_order_of_the_forward_pass(name: str) -> None:
    model = make_model(name).eval()
    called: list[str] = []
    registered = [path for path, module in model.named_modules() if [*module.parameters(recurse=False)]]
    for path in registered:
        model.get_submodule(path).register_forward_pre_hook(lambda *_, path=path: called.append(path))
    with torch.inference_mode():
        model(draw_images(name, 1))
    assert called == registered


def test_weights_come_back_from_a_file(name: str, tmp_path: Path) -> None:
    images = draw_images(name, 2)
    model = settle(make_model(name), images)
    arrays = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    again = restore(ENTRIES[name], tensors, num_classes=CLASSES, channels=3)
    with torch.inference_mode():
        torch.testing.assert_close(again(images), model(images), rtol=0, atol=0)


def test_weights_of_another_network_are_refused() -> None:
    tensors = {key: tensor.numpy() for key, tensor in make_model("resnet20").state_dict().items()}
    with pytest.raises(UserError, match="size mismatch"):
        restore(MODELS["resnet20"], tensors, num_classes=CLASSES + 1, channels=3)
    with pytest.raises(UserError, match="Missing key"):
        restore(MODELS["resnet32"], tensors, num_classes=CLASSES, channels=3)


@pytest.mark.parametrize("joined", [False, True])
def test_a_network_deeper_than_its_weights_is_not_built(monkeypatch: pytest.MonkeyPatch, joined: bool) -> None:
    """A weights file can name any depth; a network of a million layers takes hours to build, even without memory."""
    monkeypatch.setattr("reslab.models.build", lambda *arguments, **options: pytest.fail("it is built"))
    deep = PreActResNet(depth=6_000_002)
    options = Fusion(base=deep, pretrained=EfficientNetLite(size=0)) if joined else deep
    with pytest.raises(UserError, match="1 tensors are too few for 6000002 layers"):
        restore(options, {"head.weight": np.zeros((CLASSES, 4))}, num_classes=CLASSES, channels=3)


def is_identity(kernels: Tensor) -> bool:
    """Whether 3x3 kernels hand their input on as it is: then the seed had nothing to decide."""
    expected = nn.init.dirac_(torch.empty_like(kernels)) if kernels.shape[2:] == (3, 3) else None
    return expected is not None and torch.equal(kernels, expected)


def test_only_the_fast_network_has_parameters_that_are_not_trained(name: str) -> None:
    untrained = [key for key, parameter in make_model(name).named_parameters() if not parameter.requires_grad]
    norms = [f"groups.{group}.norm{norm}.weight" for group in range(3) for norm in (1, 2)]
    assert untrained == (["stem.weight", *norms, "head.bias"] if name.startswith("fast_conv") else [])


def test_seed_decides_the_weights(name: str) -> None:
    first, again, other = (make_model(name, seed=seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[key], again[key]) for key in first)
    drawn = [key for key in first if first[key].ndim > 1 and not is_identity(first[key])]
    assert drawn
    assert not any(torch.equal(first[key], other[key]) for key in drawn)


FAMILIES: tuple[type[Architecture], ...] = get_args(get_args(Model)[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_named_as_its_module_and_its_classes_are(family: type[Architecture]) -> None:
    kind = family.model_fields["kind"].default
    if not issubclass(family, Foreign):
        assert f"{kind}:{family.__name__}Classifier" == family.NETWORK
        assert issubclass(resolve_name(f"reslab.models.{family.NETWORK}"), ImageClassifier)


def test_every_description_is_a_model_of_a_recipe(name: str) -> None:
    written = ENTRIES[name].model_dump(mode="json")
    assert TypeAdapter(Model).validate_python(written) == ENTRIES[name]


def test_every_family_and_every_choice_of_an_option_is_under_contract() -> None:
    for family in FAMILIES:
        if issubclass(family, Foreign):  # other people's networks: test_foreign.py
            continue
        entries = [entry for entry in ENTRIES.values() if isinstance(entry, family)]
        assert entries, family
        for field, info in family.model_fields.items():
            named = set(get_args(info.annotation)) if get_origin(info.annotation) is Literal else set()
            choices = {True, False} if info.annotation is bool else named
            assert choices <= {getattr(entry, field) for entry in entries}, (family, field)

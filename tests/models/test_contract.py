"""The contract of a model, over every entry of `MODELS` and every option of the families.

A new entry is tested by being there; only its counts have to be written into `COUNTS`. Values are compared in double
precision where rounding would hide a defect. `settle` gives the norms the statistics of a batch: without them the
logits of a deep network lie anywhere between 1e-5 and 1e8.
"""

import inspect
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import safetensors.numpy
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from reslab.models import FAMILIES, MODELS, Classifier, build, count_multiply_adds, count_parameters, restore
from reslab.models.preact_resnet import PreActResNet
from reslab.recipe import FastConv, Model, Part

CLASSES = 7  # not 10: a hard-coded class count must fail

OPTIONS: dict[str, dict[str, Any]] = {
    "preact_resnet8-elu": {"kind": "preact_resnet", "depth": 8, "activation": "elu"},
    "preact_resnet8-keras": {"kind": "preact_resnet", "depth": 8, "keras_padding": True},
    "resnet8-elu": {"kind": "resnet", "depth": 8, "activation": "elu"},
    "resnet8-B": {"kind": "resnet", "depth": 8, "shortcut": "B"},
    "plain8-elu-wide": {"kind": "plain", "depth": 8, "activation": "elu", "width": 24},
    "elu_resnet8-elu-after": {"kind": "elu_resnet", "depth": 8, "block": "elu-after-addition"},
    "elu_resnet8-bn-before": {"kind": "elu_resnet", "depth": 8, "block": "bn-before-elu"},
    "elu_resnet8-conv-bn-elu": {"kind": "elu_resnet", "depth": 8, "block": "conv-bn-elu"},
    "elu_resnet8-B": {"kind": "elu_resnet", "depth": 8, "shortcut": "B"},
    "fast_conv-narrow": {"kind": "fast_conv", "widths": (8, 24, 16)},
}
ENTRIES = MODELS | OPTIONS

# Trained parameters; with the running statistics; multiply-adds of an image of 3 x 32 x 32. Ten classes.
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
}


def make_model(name: str, *, channels: int = 3, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return build(ENTRIES[name], num_classes=CLASSES, channels=channels)


def smallest_side(name: str) -> int:
    return FastConv.SMALLEST_IMAGE if ENTRIES[name]["kind"] == "fast_conv" else 8


def draw_images(num_images: int = 4, *, side: int = 10, channels: int = 3) -> Tensor:
    return torch.randn(num_images, channels, side, side, generator=torch.Generator().manual_seed(1))


def settle(model: Classifier, images: Tensor) -> Classifier:
    """Take over the statistics of `images` into every norm; returns the model in evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
    return model.eval()


@pytest.fixture(params=ENTRIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("channels", [1, 3])
def test_logits_have_a_column_per_class(name: str, channels: int) -> None:
    model = make_model(name, channels=channels).eval()
    for side in (smallest_side(name), 16, 17, 32):
        with torch.inference_mode():
            logits = model(draw_images(2 if side < 32 else 1, side=side, channels=channels))
        assert logits.shape == (2 if side < 32 else 1, CLASSES)
        assert logits.isfinite().all()


def test_head_of_features_is_the_logits(name: str) -> None:
    model, images = make_model(name).eval(), draw_images()
    with torch.inference_mode():
        features = model.features(images)
        assert type(model.head) is nn.Linear
        assert features.shape == (len(images), model.head.in_features)
        torch.testing.assert_close(model.head(features), model(images), rtol=0, atol=0)


def test_logits_of_an_image_do_not_depend_on_its_batch(name: str) -> None:
    images = draw_images().double()
    model = settle(make_model(name).double(), images)
    with torch.inference_mode():
        alone = torch.cat([model(image[None]) for image in images])
        together = model(images)
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)
    assert (together - together[0])[1:].abs().max() > 0.01  # they do depend on the image


def gradient_norms(model: Classifier, images: Tensor) -> dict[str, float]:
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


def cancelled(model: Classifier) -> set[str]:
    """Name the parameters that a batch's norms make ineffective, so that their gradient is zero in training.

    In the pre-activation network a convolution's bias only moves a channel by a constant, and every way from there to
    the head goes through a norm first, which subtracts the batch's mean. Elsewhere a bias, if any, meets an ELU first.
    """
    if not isinstance(model, PreActResNet):
        return set()
    return {f"{name}.bias" for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}


def test_gradients_reach_every_parameter_in_training(name: str) -> None:
    model = make_model(name).double().train()
    norms = gradient_norms(model, draw_images().double())
    zero = cancelled(model)
    assert zero <= norms.keys()
    largest = max(norms.values())
    for parameter, norm in norms.items():
        if parameter in zero:
            assert norm < 1e-12 * largest, f"{parameter} should have no effect in training"
        else:
            assert norm > 1e-6 * largest, parameter


def test_gradients_reach_every_parameter_in_evaluation(name: str) -> None:
    images = draw_images().double()
    norms = gradient_norms(settle(make_model(name).double(), images), images)
    assert min(norms.values()) > 1e-6 * max(norms.values())


def test_channels_last_changes_only_the_rounding(name: str) -> None:
    model, images = make_model(name).eval(), draw_images()
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
        model(draw_images(1))
    assert called == registered


def test_weights_come_back_from_a_file(name: str, tmp_path: Path) -> None:
    images = draw_images(2)
    model = settle(make_model(name), images)
    arrays = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    again = restore(ENTRIES[name], tensors, num_classes=CLASSES, channels=3)
    with torch.inference_mode():
        torch.testing.assert_close(again(images), model(images), rtol=0, atol=0)


def test_weights_of_another_network_are_refused() -> None:
    tensors = {key: tensor.numpy() for key, tensor in make_model("resnet20").state_dict().items()}
    with pytest.raises(RuntimeError, match="size mismatch"):
        restore(MODELS["resnet20"], tensors, num_classes=CLASSES + 1, channels=3)
    with pytest.raises(RuntimeError, match="Missing key"):
        restore(MODELS["resnet32"], tensors, num_classes=CLASSES, channels=3)


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


@pytest.mark.parametrize("entry", MODELS)
def test_counts(entry: str) -> None:
    model = build(MODELS[entry], num_classes=10)
    counted = (
        count_parameters(model),
        count_parameters(model, trained_only=False),
        count_multiply_adds(model, image=torch.zeros(3, 32, 32)),
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
        model, image = build(MODELS[f"resnet{depth}"] | {"shortcut": shortcut}, num_classes=10), torch.zeros(3, 32, 32)
        counts = {parameters: count_parameters(model), multiply_adds: count_multiply_adds(model, image=image)}
        for printed, count in counts.items():
            decimals = len(printed.partition(".")[2])
            fits[printed] += shortcut if f"{count / 1e6:.{decimals}f}" == printed else ""
    assert fits == {parameters: fit_parameters, multiply_adds: fit_multiply_adds}


def recipe_classes() -> dict[str, type[Part]]:
    union, *_ = get_args(Model)
    return {part.model_fields["kind"].default: part for part in get_args(union)}


@pytest.mark.parametrize("family", FAMILIES)
def test_recipe_has_the_options_of_the_family(family: str) -> None:
    options = {
        option: parameter.default
        for option, parameter in inspect.signature(FAMILIES[family]).parameters.items()
        if option not in ("num_classes", "channels")
    }
    fields = {
        field: inspect.Parameter.empty if info.is_required() else info.default
        for field, info in recipe_classes()[family].model_fields.items()
        if field != "kind"
    }
    assert fields == options


def test_recipe_knows_no_other_families() -> None:
    assert recipe_classes().keys() == FAMILIES.keys()


def test_entry_is_a_model_of_a_recipe(name: str) -> None:
    part = TypeAdapter(Model).validate_python(ENTRIES[name])
    assert part.model_dump(exclude_unset=True) == ENTRIES[name]


def test_every_family_and_every_choice_of_an_option_is_under_contract() -> None:
    for family, part in recipe_classes().items():
        entries = [part.model_validate(entry) for entry in ENTRIES.values() if entry["kind"] == family]
        for field, info in part.model_fields.items():
            named = set(get_args(info.annotation)) if get_origin(info.annotation) is Literal else set()
            choices = {True, False} if info.annotation is bool else named
            assert choices <= {getattr(entry, field) for entry in entries}, (family, field)

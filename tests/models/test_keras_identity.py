"""`preact_resnet32` with `keras_padding` computes what the lab's Keras network computes.

`benchmarks/keras_reference.py` wrote the figures of Keras 3; here PyTorch gets the same weights and images. In
double precision logits of up to 8 agree to 3e-15, the loss to the last digit and the norms of all gradients to 4e-13
relative; in single precision logits agree to 2e-6. With symmetric padding they differ by 0.38.

One thing differs, on purpose: into the moving variance PyTorch mixes the batch's unbiased variance (divided by n - 1),
Keras 3 the biased one (by n), n being images times pixels. At batch 128 that is at most 1 part in 8,191, in the last
stage's norms; it touches neither training nor the moving means.
"""

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reslab.models import build
from reslab.models.costs import count_parameters
from reslab.models.layers import ImageClassifier
from reslab.recipe.networks import PreActResNet

REFERENCE = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "keras_reference.py"))
KERAS: dict[str, Any] = json.loads(Path(__file__).with_name("keras_preact_resnet32.json").read_text(encoding="utf-8"))


def make_model(*, dtype: torch.dtype = torch.float64, keras_padding: bool = True) -> ImageClassifier:
    model = build(PreActResNet(depth=32, keras_padding=keras_padding), num_classes=10).to(dtype)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(REFERENCE["draw"](name, tuple(tensor.shape))))
    return model


def draw_batch(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    images, labels = REFERENCE["draw_images"]()
    return torch.from_numpy(images).to(dtype), torch.from_numpy(labels)


@pytest.fixture(scope="module")
def trained() -> tuple[ImageClassifier, float, dict[str, int]]:
    """One forward and backward pass in training mode: the network, its loss, and n of every norm."""
    model = make_model().train()
    sizes: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda _, inputs, name=name: sizes.update({name: inputs[0][:, 0].numel()}))
    images, labels = draw_batch(torch.float64)
    loss = F.cross_entropy(model(images), labels)
    loss.backward()
    return model, loss.item(), sizes


def infer(*, dtype: torch.dtype, keras_padding: bool = True) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = make_model(dtype=dtype, keras_padding=keras_padding).eval()(draw_batch(dtype)[0])
    return logits


def test_parameters_are_as_many_as_in_keras() -> None:
    model = make_model()
    assert count_parameters(model, trained_only=False) == KERAS["fresh"]["parameters"] == 470_218
    assert count_parameters(model) == KERAS["fresh"]["trained_parameters"] == 467_946


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("float64", 1e-10)])
def test_logits_are_those_of_keras(precision: str, tolerance: float) -> None:
    logits = infer(dtype=getattr(torch, precision))
    expected = torch.tensor(KERAS[precision]["logits"], dtype=logits.dtype)
    torch.testing.assert_close(logits, expected, rtol=tolerance, atol=tolerance)


def test_channels_last_logits_are_those_of_keras() -> None:
    model = make_model(dtype=torch.float32).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        logits = model(draw_batch(torch.float32)[0].contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(logits, torch.tensor(KERAS["float32"]["logits"]), rtol=1e-4, atol=1e-4)


def test_symmetric_padding_gives_other_logits() -> None:
    logits = infer(dtype=torch.float64, keras_padding=False)
    difference = (logits - torch.tensor(KERAS["float64"]["logits"], dtype=logits.dtype)).abs()
    assert difference.max() > 0.01  # a million times the tolerance above


def test_training_loss_is_that_of_keras(trained: tuple[ImageClassifier, float, dict[str, int]]) -> None:
    assert trained[1] == pytest.approx(KERAS["float64"]["loss"], rel=1e-12)


def test_gradients_are_those_of_keras(trained: tuple[ImageClassifier, float, dict[str, int]]) -> None:
    gradients = {name: parameter.grad for name, parameter in trained[0].named_parameters()}
    assert gradients.keys() == KERAS["float64"]["gradients"].keys()
    for name, gradient in gradients.items():
        assert gradient is not None
        ours = REFERENCE["summarize"](name, gradient.numpy())
        # The biases of convolutions have no gradient here but rounding of 1e-16, for a norm takes out every constant.
        assert ours == pytest.approx(KERAS["float64"]["gradients"][name], rel=1e-9, abs=1e-12), name


def test_moving_means_are_those_of_keras(trained: tuple[ImageClassifier, float, dict[str, int]]) -> None:
    for name, buffer in trained[0].named_buffers():
        if name.endswith("running_mean"):
            ours = REFERENCE["summarize"](name, buffer.numpy())
            assert ours == pytest.approx(KERAS["float64"]["moving"][name], rel=1e-10), name


def test_moving_variances_are_those_of_keras_but_for_the_unbiased_variance(
    trained: tuple[ImageClassifier, float, dict[str, int]],
) -> None:
    model, _, sizes = trained
    for norm, n in sizes.items():
        name = f"{norm}.running_var"
        moved = model.get_buffer(name).numpy()
        kept = 0.9 * REFERENCE["draw"](name, moved.shape)
        biased = kept + (moved - kept) * (n - 1) / n
        expected = KERAS["float64"]["moving"][name]
        assert REFERENCE["summarize"](name, biased) == pytest.approx(expected, rel=1e-10), name
        assert np.linalg.norm(moved) > expected["norm"] * (1 + 1e-7), name


def test_fresh_kernels_have_the_spread_of_keras() -> None:
    torch.manual_seed(0)
    model = build(PreActResNet(depth=32, keras_padding=True), num_classes=10)
    kernel = model.get_parameter("blocks.14.conv2.weight").detach()
    expected = KERAS["fresh"]["kernel"]
    assert list(kernel.shape) == expected["shape"]
    # 36,864 numbers: the standard error of their deviation is under 0.3 %, the largest lies close to the cut.
    assert kernel.std().item() == pytest.approx(expected["deviation"], rel=0.015)
    assert kernel.abs().max().item() == pytest.approx(expected["largest"], rel=0.001)

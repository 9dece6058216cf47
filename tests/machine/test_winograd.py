"""The tile-wise convolution agrees with the plain one in float64, forward and backward, whatever path it takes here.

Without a C compiler `conv3x3` is PyTorch's own convolution, which has to pass the same tests.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reslab.machine import kernels, winograd
from reslab.machine.winograd import conv3x3, pays

# N, I, H, W, O: whole and cut tiles, one pixel, more channels than a block and a rest, H != W, a row of many tiles,
# more rows than are transformed at a time.
SHAPES = [
    (1, 1, 1, 1, 1),
    (2, 3, 4, 4, 5),
    (1, 24, 7, 7, 17),
    (3, 70, 5, 9, 130),
    (2, 16, 15, 11, 32),
    (4, 64, 3, 3, 64),
    (1, 8, 31, 2, 4),
    (2, 5, 3, 300, 6),
    (40, 16, 17, 9, 33),
]


@pytest.fixture(autouse=True, scope="module")
def _on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compile once for these tests, into a folder of theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(kernels, "_on", None)
        kernels._load.cache_clear()
        kernels.enable(torch.device("cpu"))
        yield
    kernels._load.cache_clear()


def make(shape: tuple[int, ...], *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Draw images, a weight and the gradient of the result, all of about unit size, channels last."""
    num, inputs, height, width, outputs = shape
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num, inputs, height, width, generator=generator)
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator) / (9 * inputs) ** 0.5
    gradient = torch.randn(num, outputs, height, width, generator=generator)
    last = torch.channels_last
    return x.to(memory_format=last), weight.to(memory_format=last), gradient.to(memory_format=last)


def run(x: Tensor, weight: Tensor, gradient: Tensor, conv: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
    """Return the result and the gradients of the images and the weight."""
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    result = conv(x, weight)
    return [result.detach(), *torch.autograd.grad(result, (x, weight), gradient)]


def run_exactly(x: Tensor, weight: Tensor, gradient: Tensor) -> list[Tensor]:
    return run(x.double(), weight.double(), gradient.double(), lambda x, weight: F.conv2d(x, weight, padding=1))


def assert_close(actual: list[Tensor], exact: list[Tensor]) -> None:
    """Allow an error of 1e-5 of the largest value: of several roundings, not of a wrong number in the matrices."""
    for mine, true in zip(actual, exact, strict=True):
        assert mine.shape == true.shape
        assert (mine.double() - true).abs().max() <= 1e-5 * true.abs().max()


# ---- numbers


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_result_and_gradients_agree_with_float64(shape):
    tensors = make(shape)
    assert_close(run(*tensors, conv3x3), run_exactly(*tensors))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_bias_is_added_and_has_a_gradient(shape):
    x, weight, gradient = make(shape)
    bias = torch.linspace(-1, 2, len(weight))
    tensors = [each.clone().requires_grad_() for each in (x, weight, bias)]
    exact = [each.detach().double().requires_grad_() for each in tensors]
    result, true = conv3x3(*tensors), F.conv2d(exact[0], exact[1], exact[2], padding=1)
    mine = torch.autograd.grad(result, tensors, gradient)
    assert_close([result, *mine], [true, *torch.autograd.grad(true, exact, gradient.double())])


def test_each_pixel_and_kernel_position_stands_where_it_should():
    """One pixel convolved with one position of the kernel is one pixel, moved."""
    for place in range(9):
        for pixel in range(6 * 7):
            x, weight = torch.zeros(1, 1, 6, 7), torch.zeros(1, 1, 3, 3)
            x.view(-1)[pixel], weight.view(-1)[place] = 1, 1
            down, right = pixel // 7 + 1 - place // 3, pixel % 7 + 1 - place % 3
            expected = torch.zeros(8, 9)
            if 0 <= down < 6 and 0 <= right < 7:
                expected[down, right] = 1
            torch.testing.assert_close(conv3x3(x, weight)[0, 0], expected[:6, :7], rtol=0, atol=1e-5)


def test_the_gradient_is_that_of_the_result():
    """By differences: the convolution is linear in each argument, so a large step is exact up to rounding."""
    x, weight, gradient = make((2, 5, 7, 6, 3))
    _, for_images, for_weight = run(x, weight, gradient, conv3x3)
    step_x, step_weight, _ = make((2, 5, 7, 6, 3), seed=1)
    change = ((conv3x3(x + step_x, weight) - conv3x3(x, weight)) * gradient).sum()
    torch.testing.assert_close((for_images * step_x).sum(), change, rtol=1e-4, atol=1e-4)
    change = ((conv3x3(x, weight + step_weight) - conv3x3(x, weight)) * gradient).sum()
    torch.testing.assert_close((for_weight * step_weight).sum(), change, rtol=1e-4, atol=1e-4)


def test_any_memory_order_is_taken_and_the_result_is_channels_last():
    tensors = make((2, 24, 7, 9, 16))
    expected = run(*tensors, conv3x3)
    assert expected[0].is_contiguous(memory_format=torch.channels_last)
    x, weight, gradient = (tensor.contiguous() for tensor in tensors)
    assert not x.is_contiguous(memory_format=torch.channels_last)
    assert_close(run(x, weight, gradient, conv3x3), [each.double() for each in expected])
    sliced = torch.cat([x, x], dim=2)[:, :, ::2], weight, gradient
    assert_close(run(*sliced, conv3x3), run_exactly(*sliced))


def test_a_gradient_without_memory_of_its_own_is_taken():
    x, weight, gradient = make((2, 6, 5, 5, 7))
    one = torch.ones(()).expand_as(gradient)
    assert_close(run(x, weight, one, conv3x3), run_exactly(x, weight, one))


def test_the_same_bits_twice_and_with_any_number_of_threads():
    tensors, before = make((40, 64, 13, 15, 70)), torch.get_num_threads()
    try:
        results = []
        for threads in (1, 1, 2, 3):
            torch.set_num_threads(threads)
            results.append(run(*tensors, conv3x3))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(map(torch.equal, other, results[0]))


def test_the_next_layer_may_change_the_result_in_place():
    x, weight, gradient = make((2, 16, 9, 8, 16))
    x, weight = x.requires_grad_(), weight.requires_grad_()
    mine, true = (
        list(torch.autograd.grad(F.elu_(conv(x, weight)), (x, weight), gradient))
        for conv in (conv3x3, lambda x, weight: F.conv2d(x, weight, padding=1))
    )
    assert_close(mine, [each.double() for each in true])


def test_no_images_are_no_error():
    x, weight, gradient = make((0, 4, 5, 5, 3))
    result, for_images, for_weight = run(x, weight, gradient, conv3x3)
    assert (result.shape, for_images.shape) == (gradient.shape, x.shape)
    assert not for_weight.any()


def test_other_types_go_through_pytorch():
    x, weight, gradient = (tensor.double() for tensor in make((2, 4, 5, 6, 3)))
    for mine, true in zip(run(x, weight, gradient, conv3x3), run_exactly(x, weight, gradient), strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-12, atol=1e-12)


def test_shapes_that_do_not_fit_are_refused():
    x, weight, _ = make((2, 64, 16, 16, 64))
    for images in (x[:, 1:], x[0, :, :, 0]):
        with pytest.raises(RuntimeError):
            conv3x3(images.contiguous(), weight)


# ---- autograd


@pytest.mark.parametrize("needed", ["x", "weight"])
def test_only_the_gradient_that_is_needed_is_made(needed, monkeypatch):
    called, call = [], winograd._call
    monkeypatch.setattr(winograd, "_call", lambda name, *rest, **more: (called.append(name), call(name, *rest, **more)))
    x, weight, gradient = make((2, 6, 7, 7, 5))
    exact = dict(zip(("x", "weight"), run_exactly(x, weight, gradient)[1:], strict=True))
    tensors = {"x": x, "weight": weight}
    tensors[needed].requires_grad_()
    result = conv3x3(**tensors)
    called.clear()
    result.backward(gradient)
    assert called == ["convolve" if needed == "x" else "differentiate"] * kernels.are_on()
    assert_close([tensors[needed].grad], [exact[needed]])
    assert [name for name, tensor in tensors.items() if tensor.grad is not None] == [needed]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_nothing_is_kept_where_no_gradient_is_asked_for(mode):
    x, weight, gradient = make((2, 6, 7, 7, 5))
    weight.requires_grad_()
    with mode():
        result = conv3x3(x, weight)
    assert result.grad_fn is None
    assert_close([result], run_exactly(x, weight, gradient)[:1])


def test_only_the_arguments_are_kept_for_the_gradient():
    x, weight, _ = make((2, 6, 7, 7, 5))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        conv3x3(x, weight.requires_grad_())
    assert {tensor.data_ptr() for tensor in kept} <= {x.data_ptr(), weight.data_ptr()}


# ---- where it is used


def test_without_the_kernels_pytorch_convolves(monkeypatch):
    monkeypatch.setattr(kernels, "_on", None)
    tensors = make((2, 64, 15, 15, 64))
    assert not pays(*tensors[:2])
    plain = run(*tensors, lambda x, weight: F.conv2d(x, weight, padding=1))
    assert all(map(torch.equal, run(*tensors, conv3x3), plain))


@pytest.mark.parametrize(
    ("num", "inputs", "outputs", "side", "training", "inference"),
    [
        (128, 64, 64, 15, True, True),
        (128, 24, 64, 32, True, True),
        (128, 32, 32, 16, True, True),
        (128, 16, 16, 32, True, False),
        (128, 3, 512, 32, False, False),  # too few channels
        (128, 64, 64, 5, False, False),  # tiles that are hardly filled
        (2, 64, 64, 8, False, False),  # too few of them
        (1, 64, 64, 32, True, True),
        (128, 256, 256, 6, True, True),
    ],
)
def test_many_channels_and_many_full_tiles_pay(num, inputs, outputs, side, training, inference, monkeypatch):
    monkeypatch.setattr(kernels, "are_on", lambda: True)
    x, weight = torch.empty(num, inputs, side, side), torch.empty(outputs, inputs, 3, 3)
    assert pays(x, weight) == training
    with torch.no_grad():
        assert pays(x, weight) == inference


def test_what_it_cannot_do_does_not_pay(monkeypatch):
    monkeypatch.setattr(kernels, "are_on", lambda: True)
    x, weight = torch.empty(8, 64, 16, 16), torch.empty(64, 64, 3, 3)
    assert pays(x, weight)
    assert not pays(x.double(), weight.double())
    assert not pays(x.to("meta"), weight.to("meta"))
    assert not pays(x, torch.empty(64, 64, 1, 1))


# ---- the process

PROGRAM = """
import pathlib, re, torch
from reslab.machine import kernels
from reslab.machine.winograd import conv3x3
def runtimes():
    maps = pathlib.Path("/proc/self/maps")  # only Linux has it, and only there something is loaded
    return set(re.findall(r"\\S*/lib(?:gomp|iomp5|omp)\\b\\S*", maps.read_text() if maps.exists() else ""))
torch.mm(torch.ones(300, 300), torch.ones(300, 300))
before = runtimes()
kernels.enable(torch.device("cpu"))
conv3x3(torch.ones(2, 8, 8, 8), torch.ones(8, 8, 3, 3))
assert runtimes() == before, (before, runtimes())
assert torch.tensor(1e-40).mul(0.5) > 0, "small numbers became zero"
"""


def test_the_process_keeps_one_openmp_and_its_small_numbers():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)


def test_a_graph_is_recorded_with_pytorchs_convolution():
    class Layer(torch.nn.Module):
        def forward(self, x: Tensor, weight: Tensor) -> Tensor:
            return conv3x3(x, weight)

    x, weight, _ = make((2, 64, 15, 15, 64))
    program = torch.export.export(Layer(), (x, weight))
    assert "conv2d" in str(program.graph)
    torch.testing.assert_close(program.module()(x, weight), F.conv2d(x, weight, padding=1))

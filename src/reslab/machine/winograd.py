"""Winograd's convolution F(4x4, 3x3) on CPUs: 3x3 kernels, forward and backward, with a quarter of the multiplications.

Every tile of 4x4 results and its 6x6 input pixels are transformed so that the convolution becomes 36 matrix products.
All of it is in `winograd.c`, a few tiles at a time, so that they are multiplied while in a fast cache.
`kernels.enable` switches it on. Otherwise PyTorch's convolution is used: slower, but the same up to rounding.

Source: Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308, the matrices for
F(4x4, 3x3).
Differs from it: the gradient of the weight goes back through the transposed transforms instead of a convolution of its
own.
Axes: N images, H rows, W columns, I input and O output channels, T tiles: N * ceil(H/4) * ceil(W/4).
"""

import ctypes
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from reslab.machine import kernels

TILE = 4

# Thresholds from which it was faster than oneDNN in nearly all layers of benchmarks/winograd_layers.json, for forward
# and backward together, and for forward alone.
MIN_REUSE, MIN_REUSE_FORWARD = 7.5, 12


# ---- when it is used


def pays(x: Tensor, weight: Tensor) -> bool:
    """Return whether `conv3x3` is faster than PyTorch's convolution for images (N, I, H, W) and a weight (O, I, 3, 3).

    Transforms take time for each value of images, results and kernels. So it pays off with many channels and tiles,
    which reuse each value often, but less if the last tiles extend beyond the image.
    """
    if not _suits(x, weight) or weight.shape[2:] != (3, 3):
        return False
    return reuse(x, weight) >= (MIN_REUSE if torch.is_grad_enabled() else MIN_REUSE_FORWARD)


def reuse(x: Tensor, weight: Tensor) -> float:
    """Estimate how often a transformed value is reused, reduced for partly filled tiles."""
    (outputs, inputs), (height, width) = weight.shape[:2], x.shape[2:]
    tiles_per_image = math.ceil(height / TILE) * math.ceil(width / TILE)
    filled = height * width / max(1, TILE**2 * tiles_per_image)
    return filled**2 / (1 / inputs + 1 / outputs + 3 / max(1, len(x) * tiles_per_image))


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve images (N, I, H, W), padded by a pixel of zeros, with a weight (O, I, 3, 3); add a bias (O,).

    The result (N, O, H, W) is channels last in memory. PyTorch's own convolution is used for anything but float32 on a
    CPU, and for everything while the kernels are off.
    """
    if not _suits(x, weight):
        return F.conv2d(x.contiguous(memory_format=torch.channels_last), weight, bias, padding=1)
    result: Tensor = _Conv3x3.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return result


def _suits(x: Tensor, weight: Tensor) -> bool:
    """Return whether the compiled convolution supports these; PyTorch's own reports shapes that do not fit.

    It is not used while PyTorch records a graph or dispatches to a mode that watches operations, for example to count
    them: these then see one convolution.
    """
    return (
        x.ndim == 4
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch._C._get_tracing_state()
        and not torch._C._len_torch_dispatch_stack()
        and kernels.are_on()
        and x.shape[1] == weight.shape[1]
    )


# ---- forward and backward


class _Conv3x3(torch.autograd.Function):
    """Saves images and weight for backward: transforming the images again is cheaper than keeping their tiles."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(_put_channels_last(x), _transpose(weight.permute(2, 3, 0, 1)), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        gradients = _put_channels_last(gradient)
        for_images, for_weight, for_bias = ctx.needs_input_grad
        image_gradient = weight_gradient = bias_gradient = None
        if for_images:  # the convolution of the gradients with the weight rotated by 180 degrees
            image_gradient = _convolve(gradients, weight.flip(2, 3).permute(2, 3, 0, 1), None)
        if for_weight or for_bias:
            images = _put_channels_last(x)
            bias_gradient = gradients.new_zeros(gradients.shape[3]) if for_bias else None
            by_place = gradients.new_zeros(3, 3, images.shape[3], gradients.shape[3])
            if images.numel():
                _call("differentiate", images, gradients, by_place, bias_gradient, outputs=gradients.shape[3])
            weight_gradient = _transpose(by_place).permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)
        return image_gradient, weight_gradient, bias_gradient


def _put_channels_last(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H, W, C), without a copy if it already has this memory layout."""
    return x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)


def _transpose(weight: Tensor) -> Tensor:
    """(3, 3, A, B) -> (3, 3, B, A), a copy; in two steps, because PyTorch is several times faster than in one."""
    return weight.contiguous().transpose(2, 3).contiguous()


def _convolve(images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve images (N, H, W, I) with a weight (3, 3, I, O) to results (N, O, H, W)."""
    outputs = weight.shape[3]
    num, height, width, _ = images.shape
    # Not a view of anything, since the next layer may change the result in place.
    results = torch.empty(num, outputs, height, width, memory_format=torch.channels_last)
    if images.numel():
        bias = None if bias is None else bias.contiguous()
        _call("convolve", images, weight.contiguous(), bias, results, outputs=outputs)
    return results


def _call(name: str, images: Tensor, *tensors: Tensor | None, outputs: int) -> None:
    """Call a function of winograd.c on images (N, H, W, I) and other tensors, all contiguous."""
    assert images.is_contiguous()
    shape = (ctypes.c_long * 5)(*images.shape, outputs)
    places = (ctypes.c_void_p(None if each is None else each.data_ptr()) for each in (images, *tensors))
    if not getattr(kernels.library(), name)(*places, shape, torch.get_num_threads()):
        raise MemoryError("no memory for the tiles of a convolution")

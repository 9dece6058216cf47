"""Winograd's convolution F(4x4, 3x3) on CPUs: 3x3 kernels, forward and backward, by a quarter of the multiplications.

Every tile of 4x4 results and the 6x6 pixels behind it are transformed so that the convolution becomes 36 products of
matrices, which `torch.bmm` does at a CPU's full rate. The transforms are loops in `winograd.c`, switched on
by `kernels.enable`. Without them the convolution is PyTorch's: slower, otherwise the same up to rounding.

Source: Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308, the matrices for
F(4x4, 3x3).
Differs from it: gradients go back through the transposed transforms instead of a Winograd convolution of their own.
Axes: N images, C channels, H rows, W columns, K output channels, T tiles: N * ceil(H/4) * ceil(W/4).
"""

import ctypes
import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from reslab.machine import kernels

TILE, PLANES = 4, 36
# As much memory as tiles and products take at once. Parts that fit into the cache are hardly faster on an idle machine,
# and on a busy one the threads wait for each other between all of them.
PART_BYTES = 128 * 2**20

# Multiplications for each transformed value from which on it was faster than oneDNN in nearly all of a hundred layers,
# 16 to 256 channels and 3 to 32 pixels wide, on two cores with AVX2: forward and backward together, and forward alone.
MIN_REUSE, MIN_REUSE_FORWARD = 16, 20


# ---- where it is used


def pays(x: Tensor, weight: Tensor) -> bool:
    """Say whether `conv3x3` is faster than PyTorch's convolution for images (N, C, H, W) and a weight (K, C, 3, 3).

    Transforms cost time for each value and products for each pair of channels, so many channels pay; pixels of the last
    tiles that lie outside of the image do not.
    """
    if weight.shape[2:] != (3, 3) or not _suits(x, weight):
        return False
    (outputs, inputs), (height, width) = weight.shape[:2], x.shape[2:]
    filled = height * width / (TILE**2 * _count_tiles(height, width))
    reuse = filled * inputs * outputs / (inputs + outputs)
    return reuse >= (MIN_REUSE if torch.is_grad_enabled() else MIN_REUSE_FORWARD)


def conv3x3(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve images (N, C, H, W), padded by a pixel of zeros, with a weight (K, C, 3, 3) to (N, K, H, W).

    The result lies channels last in memory. PyTorch's own convolution takes what is not float32 on a CPU, and
    everything while the kernels are off.
    """
    if not _suits(x, weight):
        return F.conv2d(x.contiguous(memory_format=torch.channels_last), weight, padding=1)
    result: Tensor = _Conv3x3.apply(x, weight)  # type: ignore[no-untyped-call]
    return result


def _suits(x: Tensor, weight: Tensor) -> bool:
    """Say whether the compiled transforms can take these.

    While PyTorch records a graph, there is nothing to take; and who watches its operations, to count them, sees one
    convolution.
    """
    return (
        x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch._C._get_tracing_state()
        and not torch._C._len_torch_dispatch_stack()
        and kernels.are_on()
    )


# ---- forward and backward


class _Conv3x3(torch.autograd.Function):
    """Keeps the images and the weight: transforming the images again costs less time than their tiles cost memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        images, kernels = _put_channels_last(x), _transform_kernels(_put_channels_last(weight))
        results = images.new_empty(*images.shape[:3], len(weight))
        for part, tiles, products in _split(images, results):
            _run("input_tiles", images[part], tiles)
            torch.bmm(tiles, kernels.transpose(1, 2), out=products)
            _run("output_tiles", results[part], products)
        return results.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        images, weight, gradients = map(_put_channels_last, (*ctx.saved_tensors, gradient))
        for_images, for_weight = ctx.needs_input_grad
        kernels = _transform_kernels(weight)
        image_gradients, weight_gradient = torch.empty_like(images), torch.empty_like(weight)
        kernel_gradients = torch.zeros_like(kernels)
        for part, tiles, products in _split(images, gradients):
            _run("output_tiles_adjoint", gradients[part], products)
            if for_weight:
                _run("input_tiles", images[part], tiles)
                torch.baddbmm(kernel_gradients, products.transpose(1, 2), tiles, out=kernel_gradients)
            if for_images:
                torch.bmm(products, kernels, out=tiles)
                _run("input_tiles_adjoint", image_gradients[part], tiles)
        _run("kernel_tiles_adjoint", weight_gradient, kernel_gradients)
        return (
            image_gradients.permute(0, 3, 1, 2) if for_images else None,
            weight_gradient.permute(0, 3, 1, 2) if for_weight else None,
        )


def _put_channels_last(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H, W, C), without a copy where it lies so already."""
    return x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)


def _transform_kernels(weight: Tensor) -> Tensor:
    """(K, 3, 3, C) -> (36, K, C)."""
    kernels = weight.new_empty(PLANES, len(weight), weight.shape[3])
    _run("kernel_tiles", weight, kernels)
    return kernels


def _split(images: Tensor, results: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Split images (N, H, W, C) and results (N, H, W, K) into parts of at most PART_BYTES, or one image.

    Yields the part's place among the images, and memory for its tiles (36, T, C) and products (36, T, K).
    """
    num_images, height, width, inputs = images.shape
    outputs = results.shape[3]
    tiles_per_image = _count_tiles(height, width)
    step = max(1, PART_BYTES // (4 * PLANES * tiles_per_image * (inputs + outputs)))
    memory = images.new_empty(2, PLANES * min(step, num_images) * tiles_per_image * max(inputs, outputs))
    for start in range(0, num_images, step):
        stop = min(start + step, num_images)
        num_tiles = (stop - start) * tiles_per_image
        tiles, products = (
            lines[: PLANES * num_tiles * channels].view(PLANES, num_tiles, channels)
            for lines, channels in zip(memory, (inputs, outputs), strict=True)
        )
        yield slice(start, stop), tiles, products


def _count_tiles(height: int, width: int) -> int:
    return math.ceil(height / TILE) * math.ceil(width / TILE)


# ---- the compiled transforms


def _run(name: str, images: Tensor, planes: Tensor) -> None:
    """Call a function of winograd.c on images (N, H, W, C) and planes (36, T, C), both contiguous."""
    num_images, height, width, channels = images.shape
    assert planes.shape == (PLANES, num_images * _count_tiles(height, width), channels)
    assert images.is_contiguous()
    assert planes.is_contiguous()
    shape = (ctypes.c_long * 4)(*images.shape)
    function = getattr(kernels.library(), name)
    function(ctypes.c_void_p(images.data_ptr()), ctypes.c_void_p(planes.data_ptr()), shape, torch.get_num_threads())

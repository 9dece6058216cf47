"""Costs of a network per image, counted without computing: parameters, multiply-adds, memory, receptive field.

Everything runs on PyTorch's `meta` device, where tensors have shapes but no values.
Axes: N images, C channels, H rows, W columns.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakTensorKeyDictionary

from reslab.models.layers import ImageClassifier

PAIR = 2  # images: batch norm needs more than one if maps have shrunk to a pixel


def count_parameters(model: ImageClassifier, *, trained_only: bool = True) -> int:
    """Count the trained parameters, or with `trained_only=False` also running means and variances."""
    if trained_only:
        return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return parameters + sum(buffer.numel() for buffer in model.buffers() if buffer.is_floating_point())


def count_multiply_adds(model: ImageClassifier, *, image: Tensor) -> int:
    """Count the multiply-adds of direct convolutions and of linear layers for one `image` (C, H, W)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        _without_norms(model)(image[None].to("meta"))
    return int(counter.get_total_flops()) // 2


def count_memory(model: ImageClassifier, *, image: Tensor) -> int:
    """Count the bytes that training keeps for one `image` (C, H, W) until gradients are computed."""
    network = _on_meta(model).train()
    _replace_norms(network, _Norm)
    own = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, tuple[int, Tensor]] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = (storage.nbytes(), tensor)  # a live tensor keeps this number unique
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(torch.empty(PAIR, *image.shape, device="meta"))
    return sum(size for size, _ in kept.values()) // PAIR


def measure_receptive_field(model: ImageClassifier, *, image: Tensor) -> int:
    """Compute the side in pixels of the receptive field of one pixel of the last feature maps.

    Squeeze and excitation, through which it depends slightly on everything, is ignored.
    """
    with _Reach() as reach, torch.no_grad():
        _without_norms(model).features(image[None].to("meta"))
    largest: int = reach.largest
    return largest


class _Reach(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tracks the receptive field of each map's pixels, and the distance between those of neighbouring pixels."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: Any = WeakTensorKeyDictionary()
        self.largest: int = 1

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [each for arg in args for each in (arg if isinstance(arg, list | tuple) else (arg,))]
        known = [self.seen[each] for each in tensors if isinstance(each, Tensor) and each in self.seen]
        side, step = (max(values) for values in zip(*known, strict=True)) if known else (1, 1)
        window, stride = _window(func, args)
        side, step = side + (window - 1) * step, step * stride
        self.largest = max(self.largest, side)
        for each in result if isinstance(result, list | tuple) else (result,):
            if isinstance(each, Tensor):
                self.seen[each] = (side, step)
        return result


def _window(func: Any, args: Sequence[Any]) -> tuple[int, int]:
    """Return the side and the stride of an operation's window."""
    match func.overloadpacket:
        case torch.ops.aten.convolution:
            return args[1].shape[2], args[3][0]
        case torch.ops.aten.max_pool2d_with_indices | torch.ops.aten.avg_pool2d:
            return args[1][0], args[2][0] if len(args) > 2 and args[2] else args[1][0]
    return 1, 1


def _on_meta(model: ImageClassifier) -> ImageClassifier:
    return copy.deepcopy(model).to("meta")


def _without_norms(model: ImageClassifier) -> ImageClassifier:
    """Remove batch norm, which affects neither counts nor receptive field, but takes most of the time on `meta`."""
    network = _on_meta(model).eval()
    _replace_norms(network, nn.Identity)
    return network


def _replace_norms(network: nn.Module, make: Callable[[], nn.Module]) -> None:
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, make())


class _Norm(nn.Module):
    """Keeps what batch norm keeps in training, its input and two numbers for each channel, without its computations."""

    def forward(self, maps: Tensor) -> Tensor:
        result: Tensor = _Keep.apply(maps, torch.empty_like(maps[0, :, 0, 0], requires_grad=True))  # type: ignore[no-untyped-call]
        return result


class _Keep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(maps, torch.empty_like(scale), torch.empty_like(scale))
        return torch.empty_like(maps)

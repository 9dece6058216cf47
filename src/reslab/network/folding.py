"""Folding of batch norm, which computes the same logits in fewer operations, for inference only.

A batch norm after a convolution, or after max pooling of one, becomes part of its kernel; any other one becomes a
multiplication and an addition in one pass. Convolutions use Winograd's algorithm if that is faster.
"""

from collections import Counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from reslab.machine import winograd


def fold(model: nn.Module) -> nn.Module:
    """Return a network with the same logits, up to rounding, as `model` in evaluation mode; `model` is not changed.

    Fold again after weights have changed. A network that `torch.fx` cannot trace is returned unchanged.
    """
    try:
        folded = fx.GraphModule(model, _Tracer().trace(model))
    except Exception:  # a network's own code can raise anything for tracing proxies
        return model
    calls = Counter(node.target for node in folded.graph.nodes if node.op == "call_module")
    for name in calls:
        module = folded.get_submodule(name)
        # Exact types only: subclasses may do anything.
        if type(module) is nn.Conv2d and module.padding_mode == "zeros":
            folded.add_submodule(name, _Convolution(module))
        elif type(module) is nn.BatchNorm2d and module.running_var is not None:
            folded.add_submodule(name, _Norm(module))
    called_once = {name: module for name, module in folded.named_modules() if calls[name] == 1}
    for node in list(folded.graph.nodes):
        norm = called_once.get(node.target)
        if isinstance(norm, _Norm) and (conv := _find_convolution(node, norm, called_once)):
            conv.absorb(norm)
            node.replace_all_uses_with(node.args[0])
            folded.graph.erase_node(node)
    folded.recompile()
    return folded


class _Tracer(fx.Tracer):
    """Traces every convolution as one operation, whatever its class does inside."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)


class _Norm(nn.Module):
    """Batch norm with its running statistics; scale and shift are (C, 1, 1)."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = (norm.running_var + norm.eps).rsqrt()
        if norm.affine:
            scale = scale * norm.weight.detach()
        shift = -norm.running_mean * scale
        if norm.affine:
            shift = shift + norm.bias.detach()
        self.scale, self.shift = scale[:, None, None], shift[:, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale)


class _Convolution(nn.Module):
    """A convolution with the faster algorithm."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = conv.weight.detach()
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.how: tuple[Any, ...] = (conv.stride, conv.padding, conv.dilation, conv.groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == ((1, 1), (1, 1), (1, 1), 1) and winograd.pays(x, self.weight):
            return winograd.conv3x3(x, self.weight, self.bias)
        return F.conv2d(x, self.weight, self.bias, *self.how)

    def absorb(self, norm: _Norm) -> None:
        """Fold a norm that follows the convolution into its weight and bias."""
        bias = norm.shift.flatten()
        self.bias = bias if self.bias is None else bias + self.bias * norm.scale.flatten()
        self.weight = self.weight * norm.scale[..., None]


def _find_convolution(node: fx.Node, norm: _Norm, modules: dict[str, nn.Module]) -> _Convolution | None:
    """Find the convolution whose output, or its max pooling, is read only by this norm."""
    (before,) = node.all_input_nodes
    # With a negative scale, the maximum would become the minimum.
    if before.target is F.max_pool2d and len(before.users) == 1 and bool((norm.scale > 0).all()):
        (before,) = before.all_input_nodes
    found = modules.get(str(before.target)) if before.op == "call_module" and len(before.users) == 1 else None
    return found if isinstance(found, _Convolution) else None

"""One update of the weights."""

from collections.abc import Sequence

import torch
from torch import Tensor

from reslab.machine import Precision
from reslab.machine.precision import multiplying
from reslab.training.objective import Forward, Objective


def make_forward(
    model: torch.nn.Module, *, device: torch.device, precision: Precision, compiled: bool = False
) -> Forward:
    """Wrap the forward pass, compiled or not, with multiplications in `precision`, also in the backward pass."""
    # There are few batch shapes: compile each separately, since code for any shape is slower.
    network = torch.compile(model, dynamic=False) if compiled else model
    if precision == "float32":
        return network

    def forward(images: Tensor) -> Tensor:
        with multiplying(precision, device=device):
            logits: Tensor = network(images)
        return logits

    return forward


def update(
    forward: Forward,
    optimizer: torch.optim.Optimizer,
    *,
    objective: Objective,
    chunks: Sequence[tuple[Tensor, Tensor]],
    rate: float | Tensor,
    weight: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Take one step on a batch given in chunks: images (N, C, H, W) float32 and labels (N,), or shares (N, K).

    `rate` is the share of each group's peak rate, a tensor () if a graph is recorded. The gradient is that of the mean
    over the whole batch; only batch norm sees each chunk separately. Return the batch's mean loss and its hits. If the
    batch is one process's part of a larger one, loss and gradient are multiplied by its `weight` in the mean.
    """
    num_images = sum(len(labels) for _, labels in chunks)
    losses, hits = [], []
    for images, labels in chunks:
        images = images.to(memory_format=torch.channels_last)
        logits = forward(images).float()
        loss = objective(logits, images, labels) * (len(labels) / num_images * weight)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        hits.append((logits.detach().argmax(1) == _most(labels)).sum())
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return torch.stack(losses).sum(), torch.stack(hits).sum()


def _most(labels: Tensor) -> Tensor:
    """Return the classes (N,); for mixed images, the class with the larger share."""
    return labels if labels.ndim == 1 else labels.argmax(1)

"""How long an update of a network takes on this machine.

Axes: N images, C channels, H rows, W columns.
"""

import copy
import time

import torch
import torch.nn.functional as F
from torch import nn

from reslab.models.precision import multiplying, pick_precision


def time_update(model: nn.Module, *, batch: tuple[int, ...]) -> float:
    """Time forward and backward of a copy for a batch (N, C, H, W), in seconds; the second of two."""
    trial = copy.deepcopy(model).train()
    device = next(trial.parameters()).device
    images = torch.zeros(batch, device=device).to(memory_format=torch.channels_last)
    labels = torch.zeros(batch[0], dtype=torch.int64, device=device)
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        with multiplying(pick_precision(device=device), device=device):
            logits = trial(images)
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - began
    return seconds

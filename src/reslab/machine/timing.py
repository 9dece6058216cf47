"""Timing of a network's updates on this machine.

Axes: N images, C channels, H rows, W columns.
"""

import copy
import time

import torch
import torch.nn.functional as F
from torch import nn

from reslab.machine import Precision
from reslab.machine.precision import multiplying, pick_precision

REPEATS = 3


def time_update(
    model: nn.Module, *, batch: tuple[int, ...], precision: Precision | None = None, compiled: bool = False
) -> float:
    """Time forward and backward of a copy on a batch (N, C, H, W) in seconds: the fastest after the first try.

    Dropout draws numbers of its own here, so a run does not depend on whether its network was timed.
    """
    trial = copy.deepcopy(model).train()
    device = next(trial.parameters()).device
    precision = precision or pick_precision(device=device)
    network = torch.compile(trial, dynamic=False) if compiled else trial
    images = torch.zeros(batch, device=device).to(memory_format=torch.channels_last)
    labels = torch.zeros(batch[0], dtype=torch.int64, device=device)
    seconds = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for _ in range(1 + REPEATS):
            began = time.perf_counter()
            with multiplying(precision, device=device):
                logits = network(images)
            F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - began)
    return min(seconds[1:])

"""GPU updates as CUDA graphs: small networks' kernels take less time than launching them from the CPU.

The first updates of each batch shape run normally, which lets the libraries choose their algorithms; then one is
recorded as a CUDA graph of forward, backward and optimizer, and every later one is a replay.
Axes: N images, C channels, H rows, W columns.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from reslab.training.objective import Forward, Objective
from reslab.training.step import update

Chunks = Sequence[tuple[Tensor, Tensor]]  # images (N, C, H, W) and labels (N,)
UPDATES_BEFORE = 3  # normal updates of a shape before recording


class Updater(Protocol):
    """Performs one update on a batch in chunks, at a share of the peak rate; returns the mean loss and the hits.

    `weight` is that of one process's part of a batch.
    """

    def __call__(self, chunks: Chunks, *, rate: float, weight: float = 1.0) -> tuple[Tensor, Tensor]: ...


def make_updater(
    forward: Forward,
    optimizer: torch.optim.Optimizer,
    *,
    objective: Objective,
    device: torch.device,
    alone: bool = True,
) -> Updater:
    """Return the updater for `device`: recorded graphs on a GPU, plain calls elsewhere.

    If several processes train together (not `alone`), nothing is recorded, because they wait for each other within an
    update. Make a new updater when the optimizer's state is replaced, since a recording refers to the old memory.
    """
    if device.type == "cuda" and alone:
        return GraphedUpdates(forward, optimizer, objective=objective, device=device)

    def take(chunks: Chunks, *, rate: float, weight: float = 1.0) -> tuple[Tensor, Tensor]:
        return update(forward, optimizer, objective=objective, chunks=chunks, rate=rate, weight=weight)

    return take


class GraphedUpdates:
    """One recording for each batch shape and each set of trained parameters."""

    def __init__(
        self, forward: Forward, optimizer: torch.optim.Optimizer, *, objective: Objective, device: torch.device
    ) -> None:
        self.forward, self.optimizer, self.objective = forward, optimizer, objective
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.rate = torch.ones((), device=device)
        self.pool = torch.cuda.graph_pool_handle()
        self.recordings: dict[Hashable, _Recording] = {}
        self.taken: Counter[Hashable] = Counter()
        if not torch.are_deterministic_algorithms_enabled():
            torch.backends.cudnn.benchmark = True  # shapes repeat, so trying algorithms pays off

    def __call__(self, chunks: Chunks, *, rate: float, weight: float = 1.0) -> tuple[Tensor, Tensor]:
        assert weight == 1.0, "a recording is of whole batches"
        key = self._key(chunks)
        if key not in self.recordings:
            self.taken[key] += 1
            if self.taken[key] <= UPDATES_BEFORE:
                return self._take(chunks, rate)
            self.recordings[key] = self._record(chunks)
        self.rate.fill_(rate)
        return self.recordings[key].replay(chunks)

    def _key(self, chunks: Chunks) -> Hashable:
        trained = tuple(each.requires_grad for group in self.optimizer.param_groups for each in group["params"])
        return tuple(images.shape for images, _ in chunks), trained

    def _take(self, chunks: Chunks, rate: float | Tensor) -> tuple[Tensor, Tensor]:
        """Perform an update on the stream of the recordings."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            result = update(self.forward, self.optimizer, objective=self.objective, chunks=chunks, rate=rate)
        torch.cuda.current_stream().wait_stream(self.stream)
        return result

    def _record(self, chunks: Chunks) -> "_Recording":
        inputs = [(images.clone(), labels.clone()) for images, labels in chunks]
        graph = torch.cuda.CUDAGraph()
        for group in self.optimizer.param_groups:
            group["capturable"] = True  # AdamW refuses to be recorded without it, and warns if it is set otherwise
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            outputs = update(self.forward, self.optimizer, objective=self.objective, chunks=inputs, rate=self.rate)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"]  # the recording has a tensor of its own
            group["capturable"] = False
        return _Recording(graph, inputs, outputs)


class _Recording:
    """A graph with the memory of its inputs and of its outputs, loss and hits, which the next replay overwrites."""

    def __init__(self, graph: torch.cuda.CUDAGraph, inputs: Chunks, outputs: tuple[Tensor, Tensor]) -> None:
        self.graph, self.inputs, self.outputs = graph, inputs, outputs

    def replay(self, chunks: Chunks) -> tuple[Tensor, Tensor]:
        for (images, labels), (new_images, new_labels) in zip(self.inputs, chunks, strict=True):
            images.copy_(new_images)
            labels.copy_(new_labels)
        self.graph.replay()
        return self.outputs

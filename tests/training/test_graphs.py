"""Recorded updates, with a stand-in for CUDA whose graphs take the recorded call again: the steps of plain ones."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from reslab import models
from reslab.data.images import ImageSet
from reslab.models.layers import ImageClassifier
from reslab.recipe.networks import PreActResNet
from reslab.recipe.recipe import AdamW, Muon, Optimizer, Recipe, Sgd
from reslab.training import graphs
from reslab.training.graphs import UPDATES_BEFORE, GraphedUpdates, make_updater
from reslab.training.objective import make_objective
from reslab.training.optim import make_optimizer
from reslab.training.step import update as take_step

CPU = torch.device("cpu")
Batch = list[tuple[Tensor, Tensor]]


class Stream:
    def wait_stream(self, other: "Stream") -> None:
        pass


class Graph:
    """Takes the call that was made while it was recorded again, into the same memory."""

    recording: "Graph | None" = None
    recorded = 0

    def __init__(self) -> None:
        self.call: Callable[[], tuple[Tensor, Tensor]] | None = None
        self.outputs: tuple[Tensor, Tensor] | None = None

    def replay(self) -> None:
        assert self.call is not None
        assert self.outputs is not None
        for kept, new in zip(self.outputs, self.call(), strict=True):
            kept.copy_(new)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:

    @contextmanager
    def record(graph: Graph, **options: object) -> Iterator[None]:
        Graph.recording, Graph.recorded = graph, Graph.recorded + 1
        yield
        Graph.recording = None

    @contextmanager
    def stream(chosen: Stream) -> Iterator[None]:
        yield

    def step(*arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        graph = Graph.recording
        if graph is None:
            return take_step(*arguments, **options)
        assert isinstance(options["rate"], Tensor)  # a number would be the same in every replay
        graph.call = lambda: take_step(*arguments, **options)
        graph.outputs = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        return graph.outputs

    monkeypatch.setattr(Graph, "recorded", 0)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(graphs, "update", step)
    for name, stand_in in {
        "Stream": lambda device: Stream(),
        "current_stream": Stream,
        "stream": stream,
        "graph_pool_handle": lambda: None,
        "CUDAGraph": Graph,
        "graph": record,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)


def network() -> ImageClassifier:
    torch.manual_seed(0)
    return models.build(PreActResNet(depth=8, width=8), num_classes=3)


def batches() -> list[Batch]:
    """Large ones, each in two chunks, and small ones."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for index in range(12):
        sizes = (4,) if index % 3 == 2 else (5, 5)
        found.append(
            [
                (torch.randn(n, 3, 8, 8, generator=generator), torch.randint(0, 3, (n,), generator=generator))
                for n in sizes
            ]
        )
    return found


def take_all(taker: str, optimizer: Optimizer, recipe: Recipe) -> tuple[list[float], dict[str, Tensor]]:
    model: Any = network()
    images = ImageSet(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.arange(3), ("a", "b", "c"), "none", "train")
    made = make_optimizer(model, settings=optimizer)
    objective = make_objective(recipe, images=images, teacher=None, device=CPU)
    taken = (GraphedUpdates if taker == "graphs" else make_updater)(model, made, objective=objective, device=CPU)
    losses = []
    for index, batch in enumerate(batches()):
        loss, hits = taken(batch, rate=1 / (1 + index))
        assert 0 <= int(hits) <= sum(len(labels) for _, labels in batch)
        losses.append(float(loss))
    return losses, {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("optimizer", [Sgd(peak_lr=0.1), Muon(peak_lr=0.1)], ids=lambda each: each.kind)
def test_replays_are_the_updates_that_would_have_been_taken(optimizer: Optimizer, small_recipe: Recipe) -> None:
    plain = take_all("plain", optimizer, small_recipe)
    assert Graph.recorded == 0
    recorded = take_all("graphs", optimizer, small_recipe)
    assert recorded[0] == pytest.approx(plain[0], rel=1e-5)
    assert len(set(recorded[0])) == len(recorded[0])
    torch.testing.assert_close(recorded[1], plain[1])
    assert Graph.recorded == 2  # a shape each
    assert UPDATES_BEFORE < 4 <= 12 // 3


@pytest.mark.usefixtures("cuda")
def test_adamw_is_capturable_while_it_is_recorded_and_only_then(
    small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch raises an error if it is not, and warns if it is at any other time."""
    seen, step = [], vars(graphs)["update"]

    def look(forward: Any, optimizer: torch.optim.Optimizer, **options: Any) -> tuple[Tensor, Tensor]:
        capturable = {group["capturable"] for group in optimizer.param_groups}
        seen.append((Graph.recording is not None, capturable))
        return step(forward, optimizer, **options)

    monkeypatch.setattr(graphs, "update", look)
    take_all("graphs", AdamW(), small_recipe)
    assert {recording for recording, _ in seen} == {True, False}
    assert all(capturable == {recording} for recording, capturable in seen)


@pytest.mark.usefixtures("cuda")
def test_what_is_frozen_later_has_a_recording_of_its_own(small_recipe: Recipe) -> None:
    model: Any = network()
    images = ImageSet(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.arange(3), ("a", "b", "c"), "none", "train")
    optimizer = make_optimizer(model, settings=Sgd(peak_lr=0.1, momentum=0.5))
    objective = make_objective(small_recipe, images=images, teacher=None, device=CPU)
    take = GraphedUpdates(model, optimizer, objective=objective, device=CPU)
    batch = batches()[0]
    for _ in range(UPDATES_BEFORE + 1):
        take(batch, rate=1.0)
    model.stem.weight.requires_grad_(False)
    before = model.stem.weight.clone()
    for _ in range(UPDATES_BEFORE + 1):
        take(batch, rate=1.0)
    assert Graph.recorded == 2
    assert torch.equal(model.stem.weight, before)


def test_a_processor_takes_its_updates_one_by_one(small_recipe: Recipe) -> None:
    assert not isinstance(
        make_updater(network(), torch.optim.SGD([torch.zeros(1)]), objective=None, device=CPU), GraphedUpdates
    )

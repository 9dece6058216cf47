"""When a network is compiled: decided once for a run, by what it would save, and kept when the run goes on."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reslab import models
from reslab.errors import UserError
from reslab.machine.timing import time_update
from reslab.recipe.networks import LeNet, Model, NiN, PreActResNet
from reslab.recipe.recipe import Recipe, Resize, derive
from reslab.runs import Run
from reslab.training import compiling, resume, train
from reslab.training.compiling import Work, read_compile, settle_compiled
from reslab.training.step import make_forward

CPU, GPU = torch.device("cpu"), torch.device("cuda")
BATCH = (16, 3, 8, 8)
TRYING = "Compiling an update to see what it saves: that takes about 20 s"


@pytest.fixture
def undecided(finished: Run) -> Run:
    """A run that has no checkpoint yet, and whose record leaves open whether it is compiled."""
    finished.write_environment(finished.environment.model_copy(update={"compiled": "undecided"}))
    return finished


def preact() -> nn.Module:
    return models.build(PreActResNet(depth=8, width=8), num_classes=7)


def settle(run: Run, model: nn.Module, updates: int, shapes: int = 1) -> tuple[bool, list[str]]:
    said: list[str] = []
    return settle_compiled(run, model, work=Work(updates, BATCH, shapes, "float32"), say=said.append), said


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> dict[bool, float]:
    """Seconds of an update, compiled or not, in place of what a clock says."""
    seconds = {False: 0.5, True: 0.4}
    monkeypatch.setattr(compiling, "_has_compiler", lambda: True)
    monkeypatch.setattr(compiling, "time_update", lambda model, batch, precision, compiled=False: seconds[compiled])
    return seconds


def test_what_a_person_says_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_has_compiler", lambda: True)
    assert [read_compile(wanted, device=CPU) for wanted in ("on", "off", "auto")] == ["yes", "no", "undecided"]
    with pytest.raises(UserError, match="--compile fast: choose on, off or auto"):
        read_compile("fast", device=CPU)


def test_without_a_compiler_a_processor_cannot_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "there-is-no-such-compiler")
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler"):
        read_compile("on", device=CPU)
    assert read_compile("on", device=GPU) == "yes"
    assert read_compile("auto", device=CPU) == "undecided"


def test_it_is_compiled_where_that_saves_more_than_it_takes(
    undecided: Run, monkeypatch: pytest.MonkeyPatch, timed: dict[bool, float]
) -> None:
    monkeypatch.setattr(type(undecided), "has_checkpoint", False)
    # 10 layers at 2 s take 20 s; at best a fifth of 0.5 s is saved at each update: 400 updates make up for it twice.
    assert settle(undecided, preact(), 399) == (False, ["Not compiled: that would take about 20 s and save about 40 s"])
    assert undecided.environment.compiled == "no"
    assert settle(undecided, preact(), 10**9) == (False, [])  # decided
    undecided.write_environment(undecided.environment.model_copy(update={"compiled": "undecided"}))
    line = "Compiled: an update takes 0.400 s compiled, else 0.500 s"
    assert settle(undecided, preact(), 401) == (True, [TRYING, line])
    assert undecided.environment.compiled == "yes"


def test_every_shape_of_batch_is_compiled_anew(
    undecided: Run, monkeypatch: pytest.MonkeyPatch, timed: dict[bool, float]
) -> None:
    monkeypatch.setattr(type(undecided), "has_checkpoint", False)
    assert settle(undecided, preact(), 1000, shapes=3)[1] == [
        "Not compiled: that would take about 60 s and save about 100 s"
    ]


def test_a_network_that_is_slower_when_compiled_is_not(
    undecided: Run, monkeypatch: pytest.MonkeyPatch, timed: dict[bool, float]
) -> None:
    timed[True] = 0.6
    monkeypatch.setattr(type(undecided), "has_checkpoint", False)
    assert settle(undecided, preact(), 10**9) == (
        False,
        [TRYING, "Not compiled: an update takes 0.600 s compiled, else 0.500 s"],
    )
    assert undecided.environment.compiled == "no"


def test_a_run_from_before_this_was_recorded_goes_on_as_it_was(undecided: Run) -> None:
    assert settle(undecided, preact(), 10**9) == (False, [])


@pytest.mark.parametrize("options", [PreActResNet(depth=8, width=8), NiN()])
def test_timing_changes_neither_the_network_nor_the_generator(options: Model) -> None:
    network = models.build(options, num_classes=7).eval()
    before, state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    assert time_update(network, batch=BATCH) > 0
    torch.testing.assert_close(dict(network.state_dict()), dict(before), rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert not network.training
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_resumed_run_takes_the_choice_that_was_recorded(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def noting(model: nn.Module, *, device: torch.device, precision: str, compiled: bool) -> object:
        seen.append(compiled)
        return make_forward(model, device=device, precision="float32")

    monkeypatch.setattr("reslab.training.loop.make_forward", noting)
    monkeypatch.setattr(compiling, "_has_compiler", lambda: True)
    run = train(small_recipe, out=f"{tmp_path}/run", compile="on")
    (run.path / "model.safetensors").unlink()
    assert resume(run.path).environment.compiled == "yes"
    assert seen == [True, True]


def test_a_compiled_forward_pass_is_the_networks_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda model, **options: asked.append(options) or model)
    network = preact()
    assert make_forward(network, device=CPU, precision="float32") is network
    assert asked == []
    make_forward(network, device=CPU, precision="float32", compiled=True)
    assert asked == [{"dynamic": False}]


# ---- the code of every shape


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each graph is for that PyTorch would have compiled, in this process."""
    torch.compiler.reset()
    seen: list[int] = []

    def note(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        seen.extend(len(each) for each in inputs if each.ndim == 4 and not isinstance(each, nn.Parameter))
        return graph

    whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **options: whole(model, backend=note, **options))
    monkeypatch.setattr(compiling, "_has_compiler", lambda: True)
    return seen


def test_all_shapes_of_all_networks_of_a_process_are_compiled(traced: list[int]) -> None:
    """PyTorch gives up on the ninth of a function, which all networks share."""
    for width in (8, 16):
        network = models.build(PreActResNet(depth=8, width=width), num_classes=7)
        forward = make_forward(network, device=CPU, precision="float32", compiled=True)
        with compiling.compiling():
            for num in range(2, 8):
                forward(torch.zeros(num, 3, 8, 8))
    assert traced == [*range(2, 8)] * 2


def test_a_run_compiles_all_that_it_counts(traced: list[int], small_recipe: Recipe, tmp_path: Path) -> None:
    sizes = tuple(Resize(epoch=epoch, image_size=4 + epoch) for epoch in range(5))
    recipe = derive(small_recipe, name="growing", progressive_resizing=sizes, epochs=5)
    train(recipe, out=tmp_path / "run", compile="on")
    assert sorted(traced) == [11] * 5 + [20] * 5


# ---- a compiler that does not work


REASON = "x.h:1:10: fatal error: Python.h: No such file or directory"


@pytest.fixture
def _broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that is there but does not compile, as without Python's header files."""

    def fail(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        raise RuntimeError(f"C++ compile error\n\nOutput:\nIn file included from x.cpp:2:\n{REASON}\n    1 | #include")

    torch.compiler.reset()
    whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **options: whole(model, backend=fail, **options))
    monkeypatch.setattr(compiling, "_has_compiler", lambda: True)


@pytest.mark.usefixtures("_broken")
def test_a_run_is_not_compiled_by_a_compiler_that_does_not_work(
    undecided: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(undecided), "has_checkpoint", False)
    monkeypatch.setattr(compiling, "SECONDS_PER_LAYER", 0.0)
    model = models.build(LeNet(), num_classes=7, channels=1)
    work = Work(10**9, (4, 1, 28, 28), 1, "float32")
    said: list[str] = []
    assert not settle_compiled(undecided, model, work=work, say=said.append)
    assert said[1:] == [f"Not compiled: {REASON}"]
    assert undecided.environment.compiled == "no"


@pytest.mark.usefixtures("_broken")
def test_a_compiler_that_does_not_work_is_told_where_compiling_is_asked_for(
    small_recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"the network cannot be compiled here: {REASON}; repair the C"):
        train(small_recipe, out=tmp_path / "run", compile="on")
    assert not (tmp_path / "run").exists()

"""Several processes train one run: the sums are those of one process, the first one writes, all end together."""

import multiprocessing
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.constants import default_pg_timeout

from reslab.data.packing import pack
from reslab.data.parts import part_of
from reslab.data.stream import stream_order
from reslab.errors import Failure, Stopped, UserError
from reslab.network.state_dict import StateDict
from reslab.recipe.networks import FastConv, LeNet
from reslab.recipe.recipe import (
    Crop,
    Flip,
    Freeze,
    Linear,
    Muon,
    Recipe,
    Resize,
    Sampling,
    Sgd,
    Standardize,
    derive,
)
from reslab.runs import Follower, Run, read_weights
from reslab.training import train
from reslab.training.distributed import LOST, PATIENCE, Team, is_lost, joined
from reslab.training.starting import Given

SECONDS = 120.0  # it takes five; on a starved machine, many times that
CPU = torch.device("cpu")

Together = Callable[..., list[str]]


@pytest.fixture
def together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Together:
    """Let processes train a recipe together, or go on; gives what each of them ended with, "" for nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reslab.training", "sklearn.datasets"])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def start(
        recipe: Recipe,
        *,
        size: int = 2,
        out: str = "run",
        fault: str = "",
        faulty: int = 1,
        every: str = "1epoch",
        out_of_others: str = "run",
    ) -> list[str]:
        (tmp_path / "recipe.json").write_text(recipe.model_dump_json())
        store = TCPStore("127.0.0.1", 0, is_master=True)  # as torchrun, which outlives those that it has started
        shared = {
            "WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": "0",
        }
        processes, ends = [], []
        for rank in range(size):
            ends.append(tmp_path / f"ended-{rank}")
            ends[-1].unlink(missing_ok=True)
            task = {
                "environment": {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                "recipe": str(tmp_path / "recipe.json"),
                "out": str(tmp_path / (out_of_others if rank else out)),
                "fault": fault,
                "faulty": faulty,
                "every": every,
                "ended": str(ends[-1]),
            }
            script = str(Path(__file__).with_name("rank.py"))
            options: dict[str, Any] = {"init_globals": {"TASK": task}}
            processes.append(context.Process(target=runpy.run_path, args=(script,), kwargs=options))
            processes[-1].start()
        for process in processes:
            process.join(SECONDS)
            process.kill()  # of those that are through, nothing
        return [end.read_text() if end.exists() else "nothing" for end in ends]

    return start


@pytest.fixture(scope="module")
def plain(small_recipe: Recipe) -> Recipe:
    """A network without batch norm, and updates that are the gradient itself; 111 images are six batches, one of 11."""
    return derive(
        small_recipe,
        name="plain",
        image_size=16,
        model=LeNet(),
        optimizer=Sgd(peak_lr=0.01, momentum=0, nesterov=False),
        schedule=Linear(),
    )


@pytest.fixture(scope="module")
def everything(small_recipe: Recipe) -> Recipe:
    """All that could get out of step: frozen parts, growing images, chunks, odd batches."""
    return derive(
        small_recipe,
        name="everything",
        image_size=12,
        augment=(Flip(alternate=True), Crop(pixels=1, fill="reflect")),
        progressive_resizing=(Resize(epoch=0, image_size=9), Resize(epoch=2, image_size=12)),
        model=FastConv(widths=(8, 16, 8)),
        optimizer=Muon(peak_lr=0.1, head_lr=1.0, bias_lr=1.0),
        freeze=(Freeze(parameters="stem", epoch=1), Freeze(parameters="groups.0", epoch=2)),
        sampling=Sampling(images_per_epoch=103, balance=0.5),
        micro_batch_size=8,
    )


def timeless(run: Run) -> list[dict[str, object]]:
    return [epoch.model_dump(exclude={"seconds", "images_per_second"}) for epoch in run.log]


# ---- the same sums


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("num", [1, 2, 3, 5, 8, 11])
def test_the_parts_are_the_batch(size: int, num: int) -> None:
    images, labels = torch.arange(num).float()[:, None, None, None], torch.arange(num)
    parts = [part_of(num, rank=rank, num_ranks=size) for rank in range(size)]
    shares = [
        Team(CPU, rank, size).weigh(images[part.begin : part.end], labels[part.begin : part.end], of=num)
        for rank, part in enumerate(parts)
    ]
    used = [share for share in shares if share.part.weight]
    assert torch.equal(torch.cat([share.labels for share in used]), labels)
    assert all(torch.equal(share.images.flatten().long(), share.labels) for share in shares)
    assert all(share.part.weight == size * len(share.labels) / num for share in used)
    assert sum(part.num_new for part in parts) == num
    assert all(min(num, 2) <= part.smallest <= part.end - part.begin <= part.smallest + 1 for part in parts)


@pytest.mark.parametrize(("size", "micro_batch_size"), [(2, None), (3, 3)])
def test_gradients_are_those_of_one_process(
    plain: Recipe, together: Together, tmp_path: Path, size: int, micro_batch_size: int | None
) -> None:
    """After one update with a rate of 1 they are what the weights have lost; parts of 20 images on 3 are unequal."""
    changes = {
        "updates": 1,
        "optimizer": Sgd(peak_lr=1, momentum=0, nesterov=False),
        "micro_batch_size": micro_batch_size,
    }
    recipe = derive(plain, name="once", **changes)
    whole = train(recipe, out=tmp_path / "whole", precision="float32")
    assert together(recipe, size=size) == [""] * size
    first = train(derive(recipe, name="first", optimizer=Sgd(peak_lr=1e-30)), out=tmp_path / "first")
    begun, alone, shared = (read_weights(run.path)[0] for run in (first, whole, Run.open(tmp_path / "run")))
    for name, weights in begun.items():
        assert np.abs(weights - alone[name]).max() > 1e-4  # it is a gradient
        np.testing.assert_allclose(weights - shared[name], weights - alone[name], rtol=1e-5, atol=1e-6)


def test_a_run_is_that_of_one_process(plain: Recipe, together: Together, tmp_path: Path) -> None:
    """Eleven images in the last batch are not divided by two, and the log's figures are of all images."""
    whole = train(plain, out=tmp_path / "whole", precision="float32")
    assert together(plain) == ["", ""]
    run = Run.open(tmp_path / "run")
    assert [epoch.train_accuracy for epoch in run.log] == [epoch.train_accuracy for epoch in whole.log]
    assert [epoch.validation_accuracy for epoch in run.log] == [epoch.validation_accuracy for epoch in whole.log]
    for ours, theirs in zip(run.log, whole.log, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-5)
    assert (whole.environment.ranks, run.environment.ranks) == (1, 2)


# ---- streams


@pytest.fixture
def streamed(plain: Recipe, tmp_path: Path) -> Callable[[int], Recipe]:
    """A recipe that streams 110 of 120 images, so many in a shard; the seventh batch has only two."""

    def make(images_per_shard: int) -> Recipe:
        pack("digits:1,4,7@40", str(tmp_path / "packed"), image_size=16, images_per_shard=images_per_shard)
        changes = {"data": f"shards:{tmp_path}/packed", "stream": 32, "batch_size": 18, "augment": (), "epochs": 2}
        return derive(plain, name="streamed", **changes, validation=10)

    return make


@pytest.mark.parametrize(("images_per_shard", "size"), [(16, 2), (16, 3), (100, 2), (1000, 3)])
def test_processes_that_read_shards_of_their_own_see_each_image_once(
    streamed: Callable[[int], Recipe],
    together: Together,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    images_per_shard: int,
    size: int,
) -> None:
    """As one process that has their batches: of many shards, of unequal ones, of fewer shards than processes."""
    recipe = streamed(images_per_shard)
    assert together(recipe, size=size) == [""] * size
    monkeypatch.setattr(
        "reslab.data.batches.stream_order",
        lambda *args, **options: stream_order(*args, **options | {"num_ranks": size}),
    )
    whole, run = train(recipe, out=tmp_path / "whole", precision="float32"), Run.open(tmp_path / "run")
    for ours, theirs in zip(run.log, whole.log, strict=True):
        assert (ours.train_accuracy, ours.validation_accuracy) == (theirs.train_accuracy, theirs.validation_accuracy)
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-5)
    (expected, about), (found, also_about) = (read_weights(each.path) for each in (whole, run))
    assert about.class_sets is not None
    assert also_about.class_sets is not None
    thresholds = [dict(each.class_sets.thresholds) for each in (about, also_about)]
    assert thresholds[1] == pytest.approx(thresholds[0], abs=1e-5)
    assert about == also_about.model_copy(update={"class_sets": about.class_sets})  # its statistics, too
    for name, weights in expected.items():
        np.testing.assert_allclose(found[name], weights, rtol=1e-4, atol=1e-6)


def test_each_process_reads_shards_of_its_own(
    streamed: Callable[[int], Recipe], together: Together, tmp_path: Path
) -> None:
    """Of eight shards in an epoch; the first process reads others for the validation images, in the beginning."""
    known = Standardize(mean=(80,), std=(95,))
    assert together(derive(streamed(16), name="known", epochs=1, standardize=known, validation=8)) == ["", ""]
    first, second = ((tmp_path / f"ended-{rank}.shards").read_text().split() for rank in range(2))
    assert len(second) == len(set(second)) <= 5
    assert set(first) | set(second) == set("01234567")


def test_a_streamed_run_of_several_processes_goes_on_inside_an_epoch_to_the_same_bytes(
    streamed: Callable[[int], Recipe], together: Together, tmp_path: Path
) -> None:
    recipe = streamed(16)
    assert together(recipe, out="whole", out_of_others="whole") == ["", ""]
    assert together(recipe, fault="killed", faulty=0, every="5updates")[1].startswith(f"Failure: {LOST}")
    assert Run.open(tmp_path / "run").read_checkpoint().state["updates"] == 5
    assert together(recipe) == ["", ""]
    whole, run = Run.open(tmp_path / "whole"), Run.open(tmp_path / "run")
    assert run.weights_path.read_bytes() == whole.weights_path.read_bytes()
    assert timeless(run) == timeless(whole)


# ---- one writer


def test_only_the_first_process_writes(small_recipe: Recipe, together: Together, tmp_path: Path) -> None:
    assert together(small_recipe, out_of_others="others") == ["", ""]
    assert Run.open(tmp_path / "run").is_finished
    assert not (tmp_path / "others").exists()


def test_a_follower_writes_nothing_that_training_writes() -> None:
    """Whatever of a run is a writer, and called by training, is overridden."""
    evaluating = {"write_predictions", "write_base_predictions", "write_examples", "write_evaluation"}
    writers = {name for name in vars(Run) if name.startswith("write_")} | {"append_log", "beginning", "cut_log"}
    assert writers - evaluating <= vars(Follower).keys()


def test_starting_weights_of_a_follower_leave_a_run_of_that_name_as_it_is(small_recipe: Recipe, tmp_path: Path) -> None:
    tensors = {"stem.weight": torch.ones(1)}
    given = Given(small_recipe, StateDict(tensors, "0" * 64), source=None)
    run = Run.create(tmp_path / "run")
    run.write_base(b"another's")
    given.bring(Follower(run.path, small_recipe))
    assert run.base_path.read_bytes() == b"another's"


def test_a_follower_knows_its_folder_and_its_recipe(small_recipe: Recipe) -> None:
    follower = Follower("runs/one", small_recipe)
    assert (follower.path, follower.recipe) == (Path("runs/one"), small_recipe)


def test_a_folder_that_another_process_works_on_is_refused_once(
    small_recipe: Recipe, together: Together, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    with Run(tmp_path / "run").locked():
        ends = together(small_recipe)
    assert sorted(end.partition(":")[0] for end in ends) == ["SystemExit", "UserError"]
    assert "another process works on" in max(ends)


# ---- together to the end


@pytest.mark.parametrize(("size", "faulty"), [(2, 0), (2, 1), (3, 1)])
def test_a_stop_of_one_process_stops_all_and_the_run_goes_on_to_the_same_bytes(
    everything: Recipe, together: Together, tmp_path: Path, size: int, faulty: int
) -> None:
    """Also with three, whose gradients PyTorch would add in an order that changes after the first update."""
    assert together(everything, size=size, out="whole", out_of_others="whole") == [""] * size
    ends = together(everything, size=size, fault="asked", faulty=faulty)
    assert sorted(end.partition(":")[0] for end in ends) == ["Stopped", *["SystemExit"] * (size - 1)]
    assert "updates, all of them saved; resume with reslab train --resume" in min(ends)
    assert together(everything, size=size) == [""] * size
    whole, run = Run.open(tmp_path / "whole"), Run.open(tmp_path / "run")
    assert run.weights_path.read_bytes() == whole.weights_path.read_bytes()
    assert timeless(run) == timeless(whole)


@pytest.mark.parametrize("size", [2, 3])
def test_a_killed_process_ends_the_run_with_a_sentence_and_a_checkpoint(
    small_recipe: Recipe, together: Together, tmp_path: Path, size: int
) -> None:
    """Although it would have saved much later: the state at the start of the epoch is kept for that."""
    assert together(small_recipe, size=size, out="whole", out_of_others="whole") == [""] * size
    ends = together(small_recipe, size=size, fault="killed", every="100epochs")
    run = Run.open(tmp_path / "run")
    assert ends[1] == "nothing"
    assert sorted([ends[0], *ends[2:]])[0].startswith(f"Failure: {LOST}; resume with reslab train --resume {run.path}")
    assert all(end.startswith("SystemExit") for end in sorted([ends[0], *ends[2:]])[1:])
    assert run.read_checkpoint().state["updates"] == 6
    assert together(small_recipe, size=size) == [""] * size
    assert run.weights_path.read_bytes() == Run(tmp_path / "whole").weights_path.read_bytes()


def test_a_killed_first_process_leaves_its_last_checkpoint(
    small_recipe: Recipe, together: Together, tmp_path: Path
) -> None:
    assert together(small_recipe, fault="killed", faulty=0, every="5updates")[1].startswith(f"Failure: {LOST}")
    assert Run.open(tmp_path / "run").read_checkpoint().state["updates"] == 5
    assert together(small_recipe, size=3) == [""] * 3  # as many as there are now


def test_an_error_of_one_process_is_said_once(small_recipe: Recipe, together: Together) -> None:
    ends = together(small_recipe, fault="broken")
    assert sorted(end.partition(":")[0] for end in ends) == ["OSError", "SystemExit"]


def test_a_loss_that_is_not_finite_lowers_the_rate_of_all(plain: Recipe, together: Together, tmp_path: Path) -> None:
    wild = derive(plain, name="wild", optimizer=Sgd(peak_lr=1e5, momentum=0, nesterov=False))
    ends = together(wild)
    assert sorted(end.partition(":")[0] for end in ends) == ["Failure", "SystemExit"]
    assert "again, at a lower rate: lower optimizer.peak_lr" in min(ends)


@pytest.mark.parametrize(
    ("asked", "place", "given"),
    [("cuda", "1", "cuda:1"), ("cuda:0", "1", "cuda:0"), ("cpu", "1", "cpu"), ("cuda", "2", None)],
)
def test_each_process_of_a_host_has_a_gpu_of_its_own_unless_one_is_named(
    asked: str, place: str, given: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORLD_SIZE": "4", "RANK": "1", "LOCAL_RANK": place}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend: None)
    monkeypatch.setattr(torch.distributed, "new_group", lambda timeout, backend: timeout)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    if given is None:
        with pytest.raises(UserError, match="process 3 of this host, which has 2 GPUs"), joined(torch.device(asked)):
            pass
    else:
        with joined(torch.device(asked)) as team:
            assert (team.device, team.rank, team.size, team.waiting) == (torch.device(given), 1, 4, PATIENCE)


def test_processes_wait_longer_for_what_the_first_one_does_than_for_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[object] = []
    waiting: Any = object()
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", lambda made, device, group: groups.append(group))
    monkeypatch.setattr(torch.distributed, "barrier", groups.append)
    team = Team(CPU, 0, 2, waiting)
    assert (team.from_first(lambda: 1), team.in_turn(lambda: 2)) == (1, 2)
    assert groups == [waiting] * 2
    assert PATIENCE / default_pg_timeout > 10


# ---- what is said


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WORLD_SIZE": "4"}, "the environment variable RANK is not set, but WORLD_SIZE is: start several"),
        ({"WORLD_SIZE": "many"}, "the environment variable WORLD_SIZE is 'many', not a number of processes: start"),
        ({"WORLD_SIZE": "0"}, "the environment variable WORLD_SIZE is '0', not a number of processes: start"),
        ({"WORLD_SIZE": "4", "RANK": "0"}, "4 processes of this run do not find each other: .*MASTER_ADDR.*; start"),
    ],
)
def test_an_environment_that_is_not_torchruns_is_said(
    environment: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises((UserError, Failure), match=said), joined(CPU):
        pass


def test_another_process_is_lost_only_if_pytorch_says_so() -> None:
    assert is_lost(RuntimeError("[enforce fail at ../gloo/transport/tcp/pair.cc] Connection closed by peer"))
    assert not is_lost(RuntimeError("shapes do not fit"))
    assert not is_lost(Stopped("stopped after 3 updates; resume with reslab train --resume runs/gloo"))
    assert not is_lost(Failure("runs/nccl/log.jsonl cannot be written: Broken pipe"))


def test_an_error_of_a_run_alone_is_its_own(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("gloo is not the reason")

    monkeypatch.setattr("reslab.training.graphs.update", fail)
    with pytest.raises(RuntimeError, match="gloo is not the reason"):
        train(small_recipe, out=tmp_path / "run")

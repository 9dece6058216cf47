"""Whole small runs: what they leave, that they repeat to the byte, what their network sees, and how they stop."""

import copy
import math
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from reslab import models
from reslab.data.batches import standardize
from reslab.data.images import ImageSet
from reslab.data.recipe_data import describe_data, read_split
from reslab.errors import Failure, UserError
from reslab.fitting import fit
from reslab.recipe.networks import FastConv, LeNet, ResNet
from reslab.recipe.recipe import Extension, Linear, Muon, Recipe, Resize, Sampling, Steps, WarmUntil, derive
from reslab.recipe.settings import with_settings
from reslab.records import Progress, SplitName
from reslab.runs import Run, read_weights
from reslab.training import begin as beginning
from reslab.training import graphs, train
from reslab.training.begin import Begun
from reslab.training.distributed import Team
from reslab.training.environment import describe_environment
from reslab.training.loop import Start, Trainer
from reslab.training.progress import Display
from reslab.training.step import update as take_step

PER_EPOCH = 6


def weights_of(run: Run) -> bytes:
    return run.weights_path.read_bytes()


def test_a_run_leaves_recipe_environment_log_checkpoint_and_weights(small_recipe: Recipe, tmp_path: Path) -> None:
    run = train(small_recipe, out=tmp_path / "run", seed=5)
    assert run.recipe == small_recipe
    assert run.environment.seed == 5
    assert [used.split for used in run.environment.data] == ["train", "validation"]
    assert [epoch.updates for epoch in run.log] == [PER_EPOCH, 2 * PER_EPOCH, 3 * PER_EPOCH]
    assert all(epoch.validation_accuracy is not None for epoch in run.log)
    assert run.log[-1].train_loss < run.log[0].train_loss
    _, weights = read_weights(run.path)
    assert weights.classes == ("1", "4", "7")
    assert (weights.channels, weights.image_size) == (1, 8)
    assert sorted(path.name for path in run.path.iterdir()) == [
        "checkpoint",
        "environment.json",
        "log.jsonl",
        "model.safetensors",
        "recipe.json",
    ]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(small_recipe: Recipe, tmp_path: Path) -> None:
    first, second, other = (
        train(small_recipe, out=tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert weights_of(first) == weights_of(second)
    assert weights_of(first) != weights_of(other)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_that_pytorch_does_not_take_is_refused(small_recipe: Recipe, tmp_path: Path, seed: int) -> None:
    for begin in (
        lambda out: train(small_recipe, out=out, seed=seed),
        lambda out: fit("digits:1,4,7@20", out=out, seed=seed),
    ):
        with pytest.raises(UserError, match=f"seed {seed}: choose a whole number from 0 to {2**64 - 1}"):
            begin(tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_training_never_reads_the_test_split(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def watch(recipe: Recipe, split: SplitName, **options: Any) -> ImageSet:
        asked.append(split)
        return read_split(recipe, split, **options)

    monkeypatch.setattr(beginning, "read_split", watch)
    train(small_recipe, out=tmp_path / "run")
    assert asked == ["train", "validation"]


def test_a_loss_that_is_not_finite_stops_with_epoch_and_batch(small_recipe: Recipe, tmp_path: Path) -> None:
    diverging = with_settings(small_recipe, ["optimizer.peak_lr=1e30", "schedule.warmup=0"])
    with pytest.raises(Failure, match=r"not finite in epoch 1, batch \d of 6"):
        train(diverging, out=tmp_path / "run")


def test_the_warm_up_rate_holds_until_an_epoch_ends_below_the_error(small_recipe: Recipe, tmp_path: Path) -> None:
    cold = derive(
        small_recipe, name="cold", schedule=Steps(at=(100,)), warm_until=WarmUntil(factor=0.1, training_error=1.0)
    )
    assert [epoch.learning_rate for epoch in train(cold, out=tmp_path / "a").log] == pytest.approx([0.01, 0.1, 0.1])
    never = derive(cold, name="never", warm_until=WarmUntil(factor=0.1, training_error=0.0))
    assert [epoch.learning_rate for epoch in train(never, out=tmp_path / "b").log] == pytest.approx([0.01] * 3)


def test_each_update_of_several_processes_is_seeded_by_its_number(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that dropout goes on after a resume as if there had been none: a checkpoint holds one process's generator."""
    seeds: list[tuple[int, int]] = []
    monkeypatch.setattr(Team, "reseed", lambda team, seed, update: seeds.append((seed, update)))
    train(derive(small_recipe, name="short", epochs=2), out=tmp_path / "run", seed=5)
    assert seeds == [(5, update) for update in range(2 * PER_EPOCH)]


def test_the_speed_on_the_bar_is_that_of_the_images_seen(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[float] = []
    ticks = iter(range(10_000))
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    monkeypatch.setattr(Display, "update", lambda _, *, images_per_second, **others: shown.append(images_per_second))
    train(derive(small_recipe, name="short", epochs=1), out=tmp_path / "run")
    assert shown[:2] == [20 / 1, 40 / 2]  # a second for each update


def test_the_loss_of_an_epoch_is_the_mean_over_its_images(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[tuple[float, int]] = []

    def step(*arguments: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        loss, hits = take_step(*arguments, **options)
        losses.append((float(loss), sum(len(labels) for _, labels in options["chunks"])))
        return loss, hits

    monkeypatch.setattr(graphs, "update", step)
    run = train(derive(small_recipe, name="short", epochs=1), out=tmp_path / "run")
    assert [size for _, size in losses] == [20, 20, 20, 20, 20, 11]
    assert run.log[0].train_loss == pytest.approx(sum(loss * size for loss, size in losses) / 111)


def test_updates_end_a_run_inside_an_epoch(small_recipe: Recipe, tmp_path: Path) -> None:
    run = train(derive(small_recipe, name="cut", updates=PER_EPOCH + 2), out=tmp_path / "run")
    assert [epoch.updates for epoch in run.log] == [PER_EPOCH, PER_EPOCH + 2]


@pytest.mark.parametrize(
    ("micro_batch_size", "sizes"), [(2, [2] * 10), (8, [7, 7, 6]), (19, [10, 10]), (20, [20]), (500, [20])]
)
def test_a_batch_comes_in_even_chunks_that_are_small_enough(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micro_batch_size: int, sizes: list[int]
) -> None:
    seen = []

    def watch(*args: Any, chunks: list[tuple[torch.Tensor, torch.Tensor]], **options: Any) -> object:
        assert [len(images) for images, _ in chunks] == [len(labels) for _, labels in chunks]
        seen.append([len(images) for images, _ in chunks])
        return take_step(*args, chunks=chunks, **options)

    monkeypatch.setattr(graphs, "update", watch)
    train(derive(small_recipe, name="chunks", epochs=1, micro_batch_size=micro_batch_size), out=tmp_path / "run")
    assert seen[:5] == [sizes] * 5
    assert sum(seen[5]) == 11
    assert min(seen[5]) > 1  # which batch norm needs
    assert max(seen[5]) <= max(3, micro_batch_size)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 1}, "batch_size=1 shows batch norm single images.*: set batch_size higher"),
        ({"micro_batch_size": 1}, "micro_batch_size=1 shows batch norm single images.*: set micro_batch_size higher"),
        ({"sampling": Sampling(images_per_epoch=1)}, "an epoch has a single image.*: give it more images"),
    ],
)
@pytest.mark.parametrize("minutes", [None, 1.0])
def test_batch_norm_is_not_shown_single_images(
    small_recipe: Recipe, tmp_path: Path, changes: dict[str, Any], said: str, minutes: float | None
) -> None:
    recipe = derive(small_recipe, name="single", **changes)
    with pytest.raises(UserError, match=said):
        train(recipe, out=tmp_path / "run", minutes=minutes)


def test_a_network_without_batch_norm_learns_from_single_images(small_recipe: Recipe, tmp_path: Path) -> None:
    changes = {"model": LeNet(), "image_size": 16, "updates": 2}
    assert train(derive(small_recipe, name="single", batch_size=1, **changes), out=tmp_path / "run").is_finished


def test_an_epoch_has_the_images_that_are_drawn(small_recipe: Recipe, tmp_path: Path) -> None:
    sampled = derive(small_recipe, name="sampled", sampling=Sampling(images_per_epoch=45, balance=1))
    assert [epoch.updates for epoch in train(sampled, out=tmp_path / "run").log] == [3, 6, 9]


def test_growth_changes_the_size_that_the_network_sees(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def watch(*args: Any, chunks: list[tuple[torch.Tensor, torch.Tensor]], **options: Any) -> object:
        seen.extend(images.shape[2] for images, _ in chunks)
        return take_step(*args, chunks=chunks, **options)

    monkeypatch.setattr(graphs, "update", watch)
    growing = derive(
        small_recipe,
        name="growing",
        progressive_resizing=(Resize(epoch=0, image_size=4), Resize(epoch=2, image_size=8)),
    )
    train(growing, out=tmp_path / "run")
    assert seen == [4] * 2 * PER_EPOCH + [8] * PER_EPOCH


def test_a_folder_that_is_taken_is_refused_and_left_alone(small_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="not empty"):
        train(small_recipe, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_constants_for_three_channels_are_refused_for_one(small_recipe: Recipe, tmp_path: Path) -> None:
    wrong = derive(small_recipe, name="wrong", standardize={"mean": (1, 2, 3), "std": (1, 1, 1)})
    with pytest.raises(UserError, match="standardize=null"):
        train(wrong, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- a network that is not trained from scratch


def begin(recipe: Recipe, out: Path, start: Start) -> Trainer:
    run = Run.create(out)
    device, splits = torch.device("cpu"), (read_split(recipe, "train"), read_split(recipe, "validation"))
    run.write_environment(describe_environment(device=device, seed=0, data=tuple(map(describe_data, splits))))
    run.write_recipe(recipe)
    return Trainer(Begun(run, splits, 0, Team(device)), silent=True, start=start)


def make_network(recipe: Recipe, num_classes: int = 3) -> Any:
    torch.manual_seed(7)
    return models.build(recipe.model, num_classes=num_classes, channels=1)


@pytest.mark.parametrize("factor", [0.0, 0.1])
def test_a_start_is_trained_as_it_is(small_recipe: Recipe, tmp_path: Path, factor: float) -> None:
    extension = Extension(method="finetune", base="0" * 64, num_old=2, backbone_lr=factor)
    model = make_network(small_recipe)
    stem, head = model.stem.weight, model.head.weight
    before = stem.clone(), head.clone()
    trainer = begin(derive(small_recipe, name="start", extension=extension), tmp_path / "run", Start(model))
    assert trainer.state.model is model
    assert torch.equal(stem, before[0])
    assert trainer.train().is_finished
    assert torch.equal(stem, before[0]) == (factor == 0)
    assert not torch.equal(head, before[1])


def test_a_start_is_held_to_its_teacher(small_recipe: Recipe, tmp_path: Path) -> None:
    """With a strong opinion the pupil's old logits agree better with the teacher's, which stays as it is."""
    images, apart = read_split(small_recipe, "train"), {}
    pixels = standardize(images.images[:], by=images.statistics())
    for distill in (0.0, 5.0):
        extension = Extension(method="finetune-distill", base="0" * 64, num_old=2, distill=distill)
        model, teacher = make_network(small_recipe), make_network(small_recipe, num_classes=2)
        before = {name: value.clone() for name, value in teacher.state_dict().items()}
        recipe = derive(small_recipe, name="taught", extension=extension)
        begin(recipe, tmp_path / str(distill), Start(model, teacher)).train()
        assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
        with torch.no_grad():
            ours, theirs = (network.eval()(pixels)[:, :2].log_softmax(1) for network in (model, teacher))
        apart[distill] = float((theirs.exp() * (theirs - ours)).sum(1).mean())
    assert apart[5.0] < apart[0.0] / 5


def test_the_stem_of_a_start_is_not_prepared_again(small_recipe: Recipe, tmp_path: Path) -> None:
    recipe = derive(small_recipe, name="fast", image_size=9, model=FastConv(widths=(8, 8, 8)))
    model = make_network(recipe)
    kernels = model.stem.weight.clone()
    begin(recipe, tmp_path / "start", Start(model))
    assert torch.equal(model.stem.weight, kernels)
    tensors, _ = read_weights(train(derive(recipe, name="new", epochs=1), out=tmp_path / "new").path)
    images = read_split(recipe, "train")
    expected = copy.deepcopy(model)
    expected.prepare(standardize(images.images[:], by=images.statistics()))
    torch.testing.assert_close(torch.as_tensor(tensors["stem.weight"]), expected.stem.weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("optimizer", [None, Muon(peak_lr=0.1, head_lr=1.0, bias_lr=1.0)], ids=["sgd", "muon"])
def test_the_rate_in_the_log_is_that_of_the_peak(
    small_recipe: Recipe, tmp_path: Path, optimizer: Muon | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that of the head, nor that of the backbone."""
    recipe = derive(
        small_recipe,
        name="rates",
        optimizer=optimizer or small_recipe.optimizer,
        schedule=Steps(at=(1, 2), factor=0.5),
        extension=Extension(method="finetune", base="0" * 64, num_old=2, backbone_lr=0.1),
    )
    monkeypatch.setattr("reslab.training.session._trained_here", lambda recipe, **_: recipe)  # which refuses extensions
    run = train(recipe, out=tmp_path / "run")
    assert [epoch.learning_rate for epoch in run.log] == pytest.approx([0.1, 0.05, 0.025])


# ---- the fast network


def test_the_fast_network_learns_digits_in_two_epochs(tmp_path: Path) -> None:
    recipe = Recipe(
        name="fast",
        source="the tests",
        data="digits",
        image_size=16,
        validation=140,
        progressive_resizing=(Resize(epoch=0, image_size=12), Resize(epoch=1, image_size=16)),
        model=FastConv(widths=(16, 32, 32)),
        optimizer=Muon(head_lr=20, bias_lr=10),
        schedule=Linear(),
        label_smoothing=0.2,
        epochs=2,
        batch_size=100,
        micro_batch_size=50,
    )
    run = train(recipe, out=tmp_path / "run")
    assert run.log[-1].validation_accuracy > 0.9  # by chance 0.1
    assert all(math.isfinite(epoch.train_loss) for epoch in run.log)


def test_muon_trains_a_residual_network_too(small_recipe: Recipe, tmp_path: Path) -> None:
    recipe = derive(
        small_recipe,
        name="muon",
        model=ResNet(depth=8, width=8, shortcut="B"),
        optimizer=Muon(head_lr=0.3, bias_lr=0.3),
    )
    assert train(recipe, out=tmp_path / "run").log[-1].train_accuracy > 0.85


def test_a_long_epoch_says_what_it_has_reached_and_that_it_lives(
    small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("reslab.training.progress.PAUSE", 0.0)
    beats: list[float] = []
    shares: list[float] = []

    def beat(run: Run, so_far: Progress) -> None:
        os.utime(run.path / ".lock", (0, 0))
        beat_as_before(run, so_far)
        assert run.progress == so_far
        beats.append((run.path / ".lock").stat().st_mtime)
        shares.append(so_far.share)

    beat_as_before = Run.beat
    monkeypatch.setattr(Run, "beat", beat)
    monkeypatch.setattr("reslab.training.loop.SECONDS_BETWEEN_BEATS", 0.0)
    run = train(derive(small_recipe, name="one", epochs=1), out=tmp_path / "run", silent=False)
    said = re.findall(r"epoch 1/1 so far: .* loss ([\d.]+)  accuracy ([\d.]+)\s%", capsys.readouterr().err)
    assert len(said) == len(beats) == run.log[0].updates
    assert float(said[-1][0]) == pytest.approx(run.log[0].train_loss, abs=1e-4)
    assert float(said[-1][1]) == pytest.approx(100 * run.log[0].train_accuracy, abs=0.01)
    assert time.time() - min(beats) < 3600
    assert run.progress is None
    assert shares == [(place + 1) / len(beats) for place in range(len(beats))]

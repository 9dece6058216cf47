"""What a run costs is measured by the time that it computes, whatever else the machine does meanwhile."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reslab.data import recipe_data
from reslab.recipe.recipe import Method, Recipe, Resize, derive
from reslab.runs import Run
from reslab.study import Study, cost
from reslab.study.plan import Job, Lesson, Machine, make_jobs
from reslab.training import compiling
from reslab.training.step import update

Chunks = Sequence[tuple[Tensor, Tensor]]


class FakeClocks:
    """Clocks that only an update moves: a processor's by its images, the wall's by ten times as much."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, seconds_per_image: float) -> None:
        self.now, self.batches = 0.0, []
        monkeypatch.setattr(time, "thread_time", lambda: self.now)
        monkeypatch.setattr(time, "perf_counter", lambda: 10 * self.now)

        def update(*arguments: Any, chunks: Chunks, **options: Any) -> tuple[Tensor, Tensor]:
            self.batches.append(sum(len(labels) for _, labels in chunks))
            self.now += self.batches[-1] * seconds_per_image
            return torch.zeros(()), torch.zeros(())

        monkeypatch.setattr(cost, "update", update)


def measure(recipe: Recipe) -> cost.RunCost:
    return cost.measure(recipe, recipe_data.read_split(recipe, "train"), device="cpu")


@pytest.mark.parametrize("seconds_per_image", [1e-4, 0.01, 1.0])
def test_the_cost_is_that_of_every_image_by_the_processors_clock(
    small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, seconds_per_image: float
) -> None:
    clocks = FakeClocks(monkeypatch, seconds_per_image=seconds_per_image)
    found = measure(small_recipe)
    assert found.seconds_per_epoch == pytest.approx(111 * seconds_per_image)
    # A slow network is timed by few images, a quick one by whole batches.
    assert clocks.now <= max(cost.ENOUGH_SECONDS + 20 * seconds_per_image, 2 * cost.FEW_IMAGES * seconds_per_image)
    assert clocks.batches[0] == cost.FEW_IMAGES
    assert clocks.batches[1] == (cost.FEW_IMAGES if seconds_per_image == 1.0 else small_recipe.batch_size)


def test_time_that_others_take_is_not_counted(small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """To sleep is what a program does whose core another one has."""
    before = measure(small_recipe).seconds_per_epoch

    def wait_and_update(*arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        time.sleep(20 * before / 6)
        return update(*arguments, **options)

    monkeypatch.setattr(cost, "update", wait_and_update)
    assert measure(small_recipe).seconds_per_epoch < 5 * before  # which would be 20 times as much


def test_the_cost_counts_pixels_and_updates(small_recipe: Recipe) -> None:
    plain = measure(small_recipe)
    assert plain.epochs == 3
    assert 0 < plain.seconds_per_epoch < 30
    growth = (Resize(epoch=0, image_size=4), Resize(epoch=2, image_size=8))
    # Two of a quarter of the pixels, and one.
    assert measure(derive(small_recipe, name="grown", progressive_resizing=growth)).epochs == 1.5
    assert measure(derive(small_recipe, name="short", updates=9)).epochs == 1.5  # of six updates each


def test_a_run_that_will_be_compiled_costs_less(small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeClocks(monkeypatch, seconds_per_image=0.01)
    monkeypatch.setattr(compiling, "_has_compiler", lambda: True)
    assert measure(small_recipe).seconds_per_epoch == pytest.approx(1.11)
    long = derive(small_recipe, name="long", epochs=2000)
    assert measure(long).seconds_per_epoch == pytest.approx(1.11 * (1 - compiling.SAVED))
    monkeypatch.setattr(compiling, "_has_compiler", lambda: False)
    assert measure(long).seconds_per_epoch == pytest.approx(1.11)


@pytest.mark.parametrize(("epochs", "updates", "share"), [(4, None, 1 / 4), (4, 12, 1 / 2), (100, 12, 1 / 2)])
def test_what_is_done_of_a_run_costs_nothing_more(
    small_recipe: Recipe, finished: Run, epochs: int, updates: int | None, share: float
) -> None:
    """One epoch of six updates is there; a run may end by either count."""
    finished.weights_path.unlink()
    finished.cut_log(1)
    finished.write_recipe(derive(small_recipe, name="small", epochs=epochs, updates=updates))
    assert cost._share_done(finished) == share


def test_a_lesson_costs_by_its_base_which_is_measured_now(
    study: Study, ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its log says: that may have been written on a busy machine."""
    shutil.copytree(ran / "relu-0", tmp_path / "relu-0")
    log = Run(tmp_path / "relu-0").log
    slow = "".join(epoch.model_copy(update={"seconds": 1e6}).model_dump_json() + "\n" for epoch in log)
    (tmp_path / "relu-0/log.jsonl").write_text(slow)
    FakeClocks(monkeypatch, seconds_per_image=0.01)
    taught = [job for job in make_jobs(study, out=tmp_path, seeds=1) if job.label == "taught"]
    said: list[str] = []
    seconds = cost.estimate(taught, machine=Machine(), num_workers=2, say=said.append)
    assert seconds == [pytest.approx(1.11 * (1 + cost.EVALUATION))]
    assert said[-1] == "together: about 1.6\u00a0s, 0.8\u00a0s by 2 workers"


def test_what_is_waited_for_is_said_before_it_and_each_row_as_soon_as_it_is_known(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    heard: list[int] = []

    def measure(*arguments: Any, **options: Any) -> cost.RunCost:
        heard.append(len(said))
        return cost.RunCost(2.0, epochs=1.0, num_images=111)

    monkeypatch.setattr(cost, "_measure", measure)
    jobs = [job for job in make_jobs(study, out=tmp_path, seeds=2) if job.out.name in ("relu-0", "elu-0", "elu-1")]
    cost.estimate(jobs, machine=Machine(), num_workers=1, say=said.append)
    assert heard == [1, 2]
    assert said == [
        "estimating the cost on this machine, from a few updates of each network",
        "relu: 1 epoch of 2.0\u00a0s here: about 2.8\u00a0s",
        "elu: 1 epoch of 2.0\u00a0s here, 2 runs: about 5.6\u00a0s",
        "together: about 8.4\u00a0s",
    ]


@pytest.mark.parametrize(
    ("method", "epochs"),
    [("frozen", 1.0), ("nearest-mean", 1.0), ("finetune", 3.0), ("finetune-distill", 3.0), ("joint", 3.0)],
)
def test_a_lesson_costs_epochs_of_its_base_by_its_method(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Method, epochs: float
) -> None:
    """The base has three: a frozen one is passed once, three quarters with a teacher cost as much as all."""
    FakeClocks(monkeypatch, seconds_per_image=0.01)
    job = Job("taught", 0, tmp_path / "taught-0", Lesson(finished.path, "digits:0@20", method))
    seconds = cost.estimate([job], machine=Machine(), num_workers=1, say=lambda line: None)
    assert seconds == [pytest.approx(1.11 * (epochs + cost.EVALUATION))]


@pytest.mark.parametrize(("method", "epochs"), [("finetune", 12 * cost.TEACHER), ("joint", 200.0)])
def test_a_base_that_was_trained_for_long_does_not_prolong_its_lesson(
    tmp_path: Path, method: Method, epochs: float
) -> None:
    """Tuning shows at most 567,000 images, joint training as many as the base."""
    job = Job("taught", 0, tmp_path / "taught-0", Lesson(tmp_path / "base-0", "cifar100:reptiles", method))
    base = cost.RunCost(seconds_per_epoch=60.0, epochs=200.0, num_images=47_250)
    assert cost._measure(job, {"base": base}, {}, machine=Machine()).epochs == pytest.approx(epochs)


def test_of_a_run_that_is_begun_the_missing_epochs_and_the_evaluation_are_left(
    small_recipe: Recipe, finished: Run
) -> None:
    job, whole = Job("small", 0, finished.path, small_recipe), cost.RunCost(2.0, epochs=3.0, num_images=111)
    assert cost._remaining(job, whole) == pytest.approx(2 * cost.EVALUATION)
    finished.weights_path.unlink()
    finished.cut_log(1)
    assert cost._remaining(job, whole) == pytest.approx(2 * (2 + cost.EVALUATION))


def test_of_a_run_that_is_trained_again_everything_is_left(small_recipe: Recipe, finished: Run) -> None:
    """As of a base of which only the measurements were copied: all epochs are logged, but none can be continued."""
    job, whole = Job("small", 0, finished.path, small_recipe), cost.RunCost(2.0, epochs=3.0, num_images=111)
    finished.weights_path.unlink()
    shutil.rmtree(finished.path / "checkpoint")
    assert cost._remaining(job, whole) == pytest.approx(2 * (3 + cost.EVALUATION))

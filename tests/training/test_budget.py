import pytest
import torch

from reslab.data.load import load
from reslab.errors import UserError
from reslab.machine import kernels
from reslab.recipe.recipe import Freeze, Linear, Resize, Steps, derive
from reslab.training import budget, train
from reslab.training.optim import rate_at

CPU = torch.device("cpu")


@pytest.mark.parametrize("updates", [11, 17, 40, 119])
@pytest.mark.parametrize("schedule", [Steps(at=(10, 15)), Steps(at=(60, 90), unit="updates"), Linear()])
def test_the_rate_falls_inside_a_shortened_run(small_recipe, schedule, updates):
    recipe = derive(
        small_recipe,
        name="long",
        schedule=schedule,
        epochs=20,
        freeze=(Freeze(parameters="stem", epoch=10),),
        progressive_resizing=(Resize(epoch=0, image_size=8), Resize(epoch=10, image_size=8)),
    )
    short = budget.shorten(recipe, updates=updates, per_epoch=6, total=120)
    assert (short.updates, short.epochs) == (updates, -(-updates // 6))
    last = rate_at(short.schedule, update=updates - 1, updates_per_epoch=6, total_updates=updates)
    assert last < 0.11
    epochs = [*(part.epoch for part in short.freeze), *(part.epoch for part in short.progressive_resizing)]
    assert all(epoch < short.epochs for epoch in epochs)


def test_an_update_is_timed_as_the_run_computes(small_recipe, tmp_path, monkeypatch):
    """With its kernels, and in its precision."""
    said = []

    def time_update(model, *, batch, precision):
        said.append(precision)
        return 0.001

    monkeypatch.setattr(budget, "time_update", time_update)
    monkeypatch.setattr(kernels, "enable", lambda device: said.append("kernels"))
    train(small_recipe, out=tmp_path / "run", minutes=1, precision="bfloat16")
    assert said[:2] == ["kernels", "bfloat16"]


def test_minutes_are_counted_by_the_measured_time_of_an_update(small_recipe, monkeypatch):
    images = load("digits:1,4,7@40", "train", image_size=8)
    monkeypatch.setattr(budget, "_time", lambda *arguments, **options: 0.5)
    recipe = derive(small_recipe, name="long", epochs=100)
    assert budget.within(recipe, minutes=0.5, images=images, device=CPU).updates == 0.8 * 30 / 0.5
    assert budget.within(recipe, minutes=60, images=images, device=CPU) == recipe
    with pytest.raises(
        UserError, match=r"0.01 minutes are enough for 0 updates of long here, at 0.5 s each: allow 0.11 minutes"
    ):
        budget.within(recipe, minutes=0.01, images=images, device=CPU)
    assert budget.within(recipe, minutes=0.11, images=images, device=CPU).updates == 10
    for minutes in (float("inf"), float("nan"), 0, -1):
        with pytest.raises(UserError, match=r"--minutes .* must be above 0 and finite"):
            budget.within(recipe, minutes=minutes, images=images, device=CPU)


def test_each_of_several_processes_has_a_part_of_a_batch(small_recipe, monkeypatch):
    images = load("digits:1,4,7@40", "train", image_size=8)
    timed = []

    def time_update(model, *, batch, precision):
        timed.append(batch[0])
        return 1.0

    monkeypatch.setattr(budget, "time_update", time_update)
    for num_ranks in (1, 4):
        budget.within(small_recipe, minutes=60, images=images, device=CPU, num_ranks=num_ranks)
    assert timed == [20, 5]


def test_what_is_frozen_late_is_trained_until_then(small_recipe, monkeypatch):
    """Three quarters of the run take twice as long; half of it has images of a quarter of the pixels."""
    images = load("digits:1,4,7@40", "train", image_size=8)
    timed = []

    def time_update(model, *, batch, precision):
        timed.append(model.stem.weight.requires_grad)
        return 2.0 if timed[-1] else 1.0

    monkeypatch.setattr(budget, "time_update", time_update)
    monkeypatch.setattr(budget, "SHARE", 1.0)
    sizes = (Resize(epoch=0, image_size=4), Resize(epoch=200, image_size=8))
    recipe = derive(small_recipe, name="a", epochs=400, freeze=(Freeze(parameters="stem", epoch=300),))
    assert budget.within(recipe, minutes=7, images=images, device=CPU).updates == pytest.approx(420 / 1.75, abs=5)
    assert timed == [True, False]
    growing = derive(recipe, name="b", progressive_resizing=sizes)
    expected = 420 / (0.5 * 2 / 4 + 0.25 * 2 + 0.25 * 1)
    assert budget.within(growing, minutes=7, images=images, device=CPU).updates == pytest.approx(expected, abs=5)


def test_what_leaves_nothing_to_train_is_refused_before_it_is_timed(small_recipe):
    images = load("digits:1,4,7@40", "train", image_size=8)
    with pytest.raises(UserError, match="freeze leaves nothing to train"):
        budget.within(
            derive(small_recipe, name="a", freeze=(Freeze(parameters="", epoch=1),)),
            minutes=1,
            images=images,
            device=CPU,
        )


def test_timing_leaves_a_programs_own_generator_alone(small_recipe, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    train(derive(small_recipe, name="one", epochs=1), out=tmp_path / "run", minutes=1)
    assert torch.equal(torch.rand(1), expected)

"""A state that is captured and restored: what no run of the other tests needs to be so."""

import numpy as np
import pytest
import torch
from torch import nn

from reslab import models
from reslab.recipe.networks import PreActResNet
from reslab.training.state import State, _restore_slots, capture, read_generators, restore, set_generators


def make_state() -> State:
    model = models.build(PreActResNet(depth=8, width=8), num_classes=2, channels=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return State(model, optimizer, losses=torch.zeros(3), hits=torch.zeros(3, dtype=torch.int64))


def test_the_same_random_numbers_are_drawn_again_as_dropout_would() -> None:
    state, around = make_state(), torch.get_rng_state()
    kept = capture(state)
    drawn = torch.rand(4)
    restore(state, kept)
    assert torch.equal(torch.rand(4), drawn)
    torch.set_rng_state(around)


def test_on_a_gpu_its_own_generator_is_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout draws from it there."""
    gpu, states = torch.device("cuda", 1), {torch.device("cuda", 1): torch.arange(3, dtype=torch.uint8)}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device].clone())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({device: state}))
    kept = {name: value.numpy() for name, value in read_generators(gpu).items()}
    states[gpu] = torch.zeros(3, dtype=torch.uint8)
    set_generators({"generator": kept["generator"]}, gpu)  # of a checkpoint of an older version
    assert not states[gpu].any()
    set_generators(kept, gpu)
    assert states[gpu].tolist() == [0, 1, 2]
    assert read_generators(torch.device("cpu")).keys() == {"generator"}


def test_the_steps_of_a_fused_update_lie_beside_its_weights() -> None:
    """On the device `meta`, as they would on a GPU; there a copy to anywhere is allowed."""
    steps = np.array(7.0, np.float32)
    restored = _restore_slots({"optimizer.0.step": steps}, "optimizer.0.", like=nn.Parameter(torch.ones(2)))
    assert restored["step"].dtype == torch.float32
    assert float(restored["step"]) == 7
    on_meta = _restore_slots(
        {"optimizer.0.step": steps}, "optimizer.0.", like=nn.Parameter(torch.ones(2, device="meta"))
    )
    assert on_meta["step"].device.type == "meta"


def test_what_is_captured_does_not_change_with_the_run() -> None:
    state = make_state()
    kept = capture(state)
    with torch.no_grad():
        state.losses += 1
        state.model.head.weight += 1
    assert not kept.tensors["epoch.losses"].any()
    restore(state, kept)
    assert not state.losses.any()
    assert capture(state).tensors["model.head.weight"].tolist() == kept.tensors["model.head.weight"].tolist()


def test_the_best_epoch_is_the_most_accurate_then_the_one_of_smallest_loss_then_the_first() -> None:
    state, best = make_state(), []
    for epoch, (accuracy, loss) in enumerate([(0.5, 1.0), (0.4, 0.1), (0.5, 0.9), (0.5, 0.9), (0.6, 2.0)], 1):
        with torch.no_grad():
            state.model.head.bias.fill_(epoch)
        state.compare(epoch=epoch, accuracy=accuracy, loss=loss)
        assert state.best["head.bias"].tolist() == [state.best_epoch] * 2
        best.append(state.best_epoch)
    assert best == [1, 1, 3, 3, 5]
    assert (state.best_accuracy, state.best_loss) == (0.6, 2.0)

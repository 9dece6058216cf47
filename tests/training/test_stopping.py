import numpy as np

from reslab.data.recipe_data import read_split
from reslab.measure.shortfall import find_kept
from reslab.network.network import Network
from reslab.recipe.recipe import EarlyStopping, Sgd, derive
from reslab.training import loop, train


def test_the_best_epoch_by_validation_is_kept_and_patience_ends_the_run(small_recipe, tmp_path, monkeypatch):
    wild = Sgd(peak_lr=3.0, momentum=0.9)  # which makes epochs as unequal as can be
    recipe = derive(small_recipe, name="wild", optimizer=wild, epochs=12, early_stopping=EarlyStopping(patience=2))
    compared = []
    monkeypatch.setattr(loop, "describe_shortfall", lambda *, logged, measured: compared.append(logged))
    run = train(recipe, out=tmp_path / "run")
    log = run.log
    best = max(log, key=lambda epoch: (epoch.validation_accuracy, -epoch.validation_loss))
    assert len(log) == min(12, best.epoch + 2)
    assert best.epoch < len(log)
    held_out = read_split(recipe, "validation")
    right = Network.load(run.path).logits(held_out.images).argmax(1) == held_out.labels
    assert np.isclose(float(right.float().mean()), best.validation_accuracy)
    assert compared == [best.train_accuracy]
    assert find_kept(log, recipe) == best
    assert find_kept(log, small_recipe) == log[-1]

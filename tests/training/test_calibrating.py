import re
from functools import partial

import pytest
import torch

from reslab.errors import UserError
from reslab.evaluation import evaluate
from reslab.network.network import Network
from reslab.recipe.recipe import Sgd, derive
from reslab.report import write_report
from reslab.runs import Run
from reslab.runs.files import read_safetensors, to_safetensors
from reslab.training import calibrating, train
from reslab.training.calibrating import calibrate


def test_a_twin_s_held_out_images_calibrate_a_run_that_holds_none_out(small_recipe, tmp_path):
    slow = Sgd(peak_lr=0.003)  # so that mistakes are left
    recipe = derive(small_recipe, name="all", validation=0, epochs=1, optimizer=slow)
    run = train(recipe, out=tmp_path / "all")
    evaluate(run)
    (run.path / "evaluation-other.json").write_text("{}")
    run.write_memory(to_safetensors({}, {"base": run.weights_digest}))
    before, images = Network.load(run.path), torch.randint(256, (9, 1, 8, 8), dtype=torch.uint8)
    with pytest.raises(UserError, match=r"small is not a twin, its recipe has another epochs"):
        calibrate(run, twin=train(derive(recipe, name="other", epochs=2), out=tmp_path / "small"))
    assert run.is_evaluated

    found = calibrate(run)
    assert (found.twin, found.num_images) == ("all-twin", 12)
    twin = Network.load(tmp_path / "all-twin").metadata.calibration
    assert twin.model_copy(update={"twin": "all-twin"}) == found  # what it found on its own held-out images
    after = Network.load(run.path)
    assert after.metadata.calibration == found
    torch.testing.assert_close(after.logits(images), before.logits(images) / found.temperature, rtol=1e-5, atol=1e-5)
    assert not run.is_evaluated  # of other probabilities
    assert not [*run.path.glob("predictions-*"), *run.path.glob("evaluation*")]
    assert read_safetensors(run.memory_path)[1]["base"] == run.weights_digest  # whose features are the same
    assert evaluate(run).calibration == found
    said = f"They are calibrated on 12 held-out images of its twin all-twin: temperature {found.temperature:.2f}"
    assert said in re.sub(r"\s+", " ", write_report(run).with_suffix(".md").read_text(encoding="utf-8"))
    assert said.partition(" are ")[2] in (run.path / "model-card.md").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="all is calibrated already: calibrated on 12 held-out images of its twin"):
        calibrate(run)
    again = train(recipe, out=tmp_path / "again")
    meanwhile = partial(calibrate, again, twin=Run(tmp_path / "all-twin"))
    with pytest.MonkeyPatch.context() as patch:
        read = calibrating._read_temperature
        patch.setattr(calibrating, "_read_temperature", lambda *a, **k: patch.undo() or (meanwhile() and read(*a, **k)))
        with pytest.raises(UserError, match="again is calibrated already"):
            meanwhile()
    assert Network.load(again.path).metadata.calibration.temperature == found.temperature
    again = train(recipe, out=tmp_path / "third")
    with pytest.raises(UserError, match="all has no temperature of its own"):
        calibrate(again, twin=run)


def test_a_twin_computes_as_its_run_did(small_recipe, tmp_path, monkeypatch):
    slow = Sgd(peak_lr=0.003)
    recipe = derive(small_recipe, name="all", validation=0, epochs=1, optimizer=slow)
    run = train(recipe, out=tmp_path / "all", precision="float32", deterministic=True)
    monkeypatch.chdir(run.path)
    calibrate(Run("."))  # whose twin lies beside it all the same
    twin = Run(tmp_path / "all-twin").environment
    assert (twin.multiplied, twin.deterministic) == ("float32", True)


def test_a_run_that_holds_images_out_has_no_use_for_a_twin(finished):
    with pytest.raises(UserError, match="holds out 9 images itself"):
        calibrate(finished)

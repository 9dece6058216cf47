"""A process that is killed at any moment loses no run, and the run ends with the same bytes."""

import multiprocessing
import random
import shutil
import time
from pathlib import Path

import pytest

from reslab.recipe.recipe import Recipe, derive
from reslab.runs import Run
from reslab.training import Safety, resume, train

KILLS = 12
OFTEN = Safety(5, "updates")


def timeless(run: Run) -> list[dict[str, object]]:
    return [epoch.model_dump(exclude={"seconds", "images_per_second"}) for epoch in run.log]


def test_a_dozen_kills_at_random_moments(small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has imported everything stays, and forks those that train."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["reslab.training", "sklearn.datasets"])
    recipe = derive(small_recipe, name="killed", epochs=20)
    out, chance, kills = tmp_path / "killed", random.Random(0), 0
    whole = train(recipe, out=tmp_path / "whole")
    while True:
        begun = (out / "recipe.json").exists()
        target, arguments = (resume, (out,)) if begun else (train, (recipe,))
        options = {"safety": OFTEN} if begun else {"safety": OFTEN, "out": out}
        process = context.Process(target=target, args=arguments, kwargs=options)
        process.start()
        if kills < KILLS:
            time.sleep(chance.uniform(0.1, 0.8))
            process.kill()
        process.join()
        kills += process.exitcode == -9
        assert process.exitcode in (0, -9)
        if process.exitcode == 0:
            assert (out / "model.safetensors").read_bytes() == whole.weights_path.read_bytes()
            assert timeless(Run.open(out)) == timeless(whole)
            assert not list(out.rglob("*.part"))
            if kills >= KILLS:
                return
            shutil.rmtree(out)

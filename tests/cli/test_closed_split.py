"""The test split is opened by `evaluate` alone, and by it only where it was asked for."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reslab.cli import app
from reslab.recipe.recipe import Recipe, derive
from reslab.runs import Run


def test_without_the_test_batch_everything_but_its_evaluation_works(
    reslab: Callable[..., Any],
    refuse: Callable[..., str],
    official: Path,
    small_recipe: Recipe,
) -> None:
    def succeed(*arguments: object) -> None:
        assert reslab(*arguments).code == 0, arguments

    batch, kept = official / "cifar-10-batches-py/test_batch", official / "kept"
    batch.rename(kept)
    recipe = derive(small_recipe, name="small", data="cifar10", validation=20, epochs=1)
    Path("small.json").write_text(recipe.model_dump_json())
    data = ("--data-dir", official)
    succeed("train", "small.json", "--out", "run", *data)
    succeed("evaluate", "run", "--splits", "train,validation", *data)
    assert list(Run("run").evaluation.splits) == ["train", "validation"]
    said = refuse("evaluate", "run", "--splits", "test", *data, code=1)
    assert re.search(r"cifar-10-python.tar.gz \(.*\) is not in .* and could not be downloaded", said)
    assert [data.split for data in Run("run").environment.data] == ["train", "validation"]
    batch.write_bytes(kept.read_bytes()[:-1])
    assert "cifar-10-batches-py/test_batch is damaged" in refuse("evaluate", "run", *data)
    kept.replace(batch)
    succeed("evaluate", "run", *data)
    assert [data.split for data in Run("run").environment.data] == ["train", "validation", "test"]


# Where each command stands; a new one has to be placed.
TRIED_BELOW = {"train", "calibrate", "extend", "remember", "predict", "export", "report", "compare", "track", "watch"}
CALL_EVALUATE = {"evaluate", "fit", "lab"}
TAKE_NO_DATA = {"demo", "dashboard", "doctor", "models", "methods", "recipes", "push", "pull", "serve"}
OF_TRAINING_IMAGES = {"import"}  # which checks a map on training images: tests/integrations
OF_GROUPS = {
    "data": {"list", "show", "check", "plan", "pack", "verify", "cache"},
    "study": {"list", "run", "report"},
}


def test_every_command_has_its_place() -> None:
    assert {
        command.name for command in app.registered_commands
    } <= TRIED_BELOW | CALL_EVALUATE | TAKE_NO_DATA | OF_TRAINING_IMAGES
    for group in app.registered_groups:
        names = {each.name or each.callback.__name__ for each in group.typer_instance.registered_commands}
        assert names == OF_GROUPS[group.name]


def test_looking_at_data_needs_the_test_batch_only_to_describe_it(
    reslab: Callable[..., Any], refuse: Callable[..., str], official: Path
) -> None:
    (official / "cifar-10-batches-py/test_batch").unlink()
    for command in ("data verify", "data cache", "study list"):
        place = ("--data-dir", official) if command == "data verify" else ()
        assert reslab(*command.split(), *place).code == 0, command
    for command in ("data show cifar10", "data check cifar10", "data pack cifar10 --to packed"):
        said = refuse(*command.split(), "--data-dir", official, code=1)
        assert "cifar-10-python.tar.gz" in said


def test_without_test_batches_all_that_does_not_evaluate_works(
    reslab: Callable[..., Any], official: Path, small_recipe: Recipe
) -> None:
    """One run of CIFAR-10 that is evaluated while its test batch is there; after that no test batch is."""
    run, done = official / "run", set()

    def succeed(command: str, *arguments: object) -> None:
        outcome = reslab(command, *arguments)
        assert outcome.code == 0, (command, outcome.err)
        done.add(command)

    data = ("--data-dir", official)
    recipe = derive(small_recipe, name="small", data="cifar10", validation=20, epochs=1)
    Path("small.json").write_text(recipe.model_dump_json())
    succeed("train", "small.json", "--out", run, *data)
    succeed("evaluate", run, *data)
    (official / "cifar-10-batches-py/test_batch").unlink()
    (official / "cifar-100-python/test").unlink()
    (run / "model.safetensors").rename(official / "kept")
    succeed("train", "--resume", run, *data)
    assert (run / "model.safetensors").read_bytes() == (official / "kept").read_bytes()
    Path("all.json").write_text(derive(recipe, name="all", validation=0).model_dump_json())
    succeed("train", "all.json", "--out", official / "all", *data)
    succeed("calibrate", official / "all", *data)
    succeed("remember", run, *data)
    (official / "kept-pictures").mkdir()
    new = ("--with", "cifar100:reptiles", "--out", official / "more", "--method", "nearest-mean")
    succeed("extend", run, *new, *data)
    Image.new("RGB", (8, 8)).save("a.png")
    succeed("predict", official / "more", "a.png")
    for place, image in enumerate(np.random.default_rng(0).integers(256, size=(10, 8, 8, 3), dtype=np.uint8)):
        Image.fromarray(image).save(official / "kept-pictures" / f"{place}.png")
    assert reslab("watch", run, official / "kept-pictures").code in (0, 1)
    done.add("watch")
    succeed("export", run, "--to", official / "run.pt2", *data)
    succeed("report", run)
    shutil.copytree(run, official / "twin")
    succeed("compare", run, official / "twin", "--out", official / "compared")
    succeed("track", run, "--to", f"tensorboard:{official / 'logs'}")
    assert done - {"evaluate"} == TRIED_BELOW


def test_training_opens_no_test_batch(
    reslab: Callable[..., Any], official: Path, opened: list[str], small_recipe: Recipe
) -> None:
    recipe = derive(small_recipe, name="small", data="cifar10+cifar100:reptiles@2", validation=20, epochs=1)
    Path("small.json").write_text(recipe.model_dump_json())
    assert reslab("train", "small.json", "--out", "run", "--data-dir", official).code == 0
    official_files = {Path(path).name for path in opened if "-batches-py" in path or "cifar-100-python" in path}
    assert official_files == {*(f"data_batch_{number}" for number in range(1, 6)), "train"}

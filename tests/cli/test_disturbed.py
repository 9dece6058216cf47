"""Commands that get hostile lines, strange places, half a base, disks that fail and neighbours that died."""

import errno
import importlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from reslab.recipe.recipe import Recipe
from reslab.runs import Run, pack_weights, read_weights
from reslab.runs.files import name_place

Command = Callable[..., Any]
Refuse = Callable[..., str]
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
QUICK = ("--method", "nearest-mean")
CHEAP = ("evaluate", "report", "compare", "predict", "data", "study", "export", "recipes", "methods", "track")


@pytest.fixture(scope="module")
def fuzz_commands() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("fuzz_commands")


@pytest.fixture(scope="module")
def steps(fuzz_commands: ModuleType) -> Any:
    return fuzz_commands.Steps()


# ---- hostile lines and places


@pytest.mark.usefixtures("finished")
def test_any_line_is_done_or_refused(fuzz_commands: ModuleType, tmp_path: Path) -> None:
    """Of the commands that are quick: the benchmark takes all."""
    (tmp_path / "loop").symlink_to("loop")
    Image.new("L", (8, 8)).save(tmp_path / "a.png")

    @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(seed=st.integers(0, 10**6))
    def check(seed: int) -> None:
        words = fuzz_commands.draw_line(random.Random(seed))
        if words[0] in CHEAP and words[:2] != ["study", "run"]:
            assert fuzz_commands.call(words) in ("works", "refused"), words

    with fuzz_commands.inside(tmp_path):
        check()


PLACES = {
    "no text": ("\udcff", 2, "is not valid UTF-8: choose another name for the folder"),
    "a loop": ("loop", 1, "cannot be written: Too many levels of symbolic links"),
    "in a loop": ("loop/x", 1, "cannot be written"),
    "a long name": ("x" * 300, 1, "cannot be written: File name too long"),
}


@pytest.mark.parametrize("case", PLACES)
def test_a_place_that_cannot_be(refuse: Refuse, finished: Run, small_recipe: Recipe, case: str) -> None:
    out, code, expected = PLACES[case]
    Path("loop").symlink_to("loop")
    Path("small.json").write_text(small_recipe.model_dump_json())
    assert expected in refuse("train", "small.json", "--out", out, code=code)
    assert expected in refuse("extend", "small", "--with", "digits:0@20", *QUICK, "--out", out, code=code)


def test_a_place_1500_levels_deep(reslab: Command, fuzz_commands: ModuleType, finished: Run) -> None:
    out = "d/" * 1500 + "run"
    try:
        assert reslab("extend", "small", "--with", "digits:0@20", *QUICK, "--out", out).code == 0
        assert reslab("evaluate", out).code == 0
        with fuzz_commands.inside(Path.cwd()):
            assert fuzz_commands.call(["dashboard", "d", "--port", "0"]) in ("works", "refused")
    finally:
        fuzz_commands.remove(Path("d"))


@pytest.mark.parametrize("field", ["micro_batch_size", "batch_size"])
def test_a_batch_of_any_size(reslab: Command, small_recipe: Recipe, field: str) -> None:
    Path("small.json").write_text(small_recipe.model_dump_json())
    line = ("train", "small.json", "--set", "epochs=1", "--set", f"{field}={10**18}", "--out", "run")
    assert reslab(*line).code == 0


# ---- a run that is refused leaves no folder that blocks the next call


def test_a_base_that_does_not_fit_its_own_weights(refuse: Refuse, reslab: Command, finished: Run) -> None:
    tensors, weights = read_weights(finished.path)
    finished.write_weights(
        pack_weights({name: value for name, value in tensors.items() if "head" not in name}, weights)
    )
    line = ("extend", "small", "--with", "digits:0@20", *QUICK, "--out", "more")
    assert "small do not fit the network that they name: " in refuse(*line)
    assert not Path("more").exists()
    finished.write_weights(pack_weights(tensors, weights))
    assert reslab(*line).code == 0


def test_a_base_whose_record_lacks_the_training_split(refuse: Refuse, finished: Run) -> None:
    path = finished.path / "environment.json"
    record = json.loads(path.read_text())
    record["data"] = [data for data in record["data"] if data["split"] != "train"]
    path.write_text(json.dumps(record))
    said = refuse("extend", "small", "--with", "digits:0@20", *QUICK, "--out", "more")
    assert said == "small/environment.json does not record the training split: restore it, or train again"


def test_a_refused_run_is_as_if_it_had_never_begun(refuse: Refuse, reslab: Command, small_recipe: Recipe) -> None:
    Path("small.json").write_text(small_recipe.model_dump_json())
    frozen = 'freeze=[{"parameters": "nothing.of.this.name", "epoch": 0}]'
    refuse("train", "small.json", "--compile", "off", "--set", frozen, "--set", "epochs=20", "--out", "run")
    assert not Path("run").exists()
    assert reslab("train", "small.json", "--set", "epochs=1", "--out", "run").code == 0


# ---- names


def test_names_never_command_a_terminal(reslab: Command) -> None:
    run = "run\x1b[1m"
    for folder in ("pictures/\x1b[31mant", "pictures/bee\u202e\x9b2J", "pictures/[red]", "more/\x1b[2Jcat"):
        for number in range(12):
            Path(folder).mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), number).save(f"{folder}/{number}.png")
    settings = ("data=folder:pictures", "validation=0", "epochs=1", "model.depth=8", "model.width=8")
    line = [part for each in settings for part in ("--set", each)]
    shutil.copy("pictures/[red]/0.png", "\x1b]0;it\x07.png")
    outcomes = [
        reslab("data", "show", "folder:pictures", "--image-size", "8"),
        reslab("train", "digits-quick", *line, "--set", "name=\x1b[2J", "--out", run),
        reslab("evaluate", run),
        reslab("predict", run, "\x1b]0;it\x07.png"),
        reslab("extend", run, "--with", "folder:more", "--method", "frozen", "--out", "extended"),
        reslab("predict", run, "\x1b]0;absent\x07.png"),
    ]
    assert [outcome.code for outcome in outcomes] == [0, 0, 0, 0, 0, 2]
    for outcome in outcomes:
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", outcome.out + outcome.err)
    assert "\\x1b[31mant" in outcomes[0].out
    assert "[red]" in outcomes[0].out


def test_every_line_is_printed_by_one_function() -> None:
    source = Path(sys.modules["reslab.cli"].__file__ or "").parent
    for path in source.glob("*.py"):
        if path.name not in ("show.py", "__init__.py"):
            assert not re.search(r"typer\.echo|(?<![\w.])print\(", path.read_text()), path


# ---- disks that fail, and writers that died

DISTURBED = ("evaluate small", "report small", "extend small --with digits:0@20 --method nearest-mean --out more")


@pytest.mark.parametrize("line", DISTURBED)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EINTR])
def test_whichever_step_fails_it_is_said_and_the_next_call_works(
    fuzz_commands: ModuleType, steps: Any, finished: Run, tmp_path: Path, line: str, number: int
) -> None:
    """Two steps of each; the benchmark takes them all."""
    with fuzz_commands.inside(tmp_path):
        for at in (number % 5, 12 + number % 7):
            with steps.watching(tmp_path, at=at, blow=fuzz_commands.fail(number)):
                assert fuzz_commands.call(line.split()) == "refused"
        assert steps.taken > at
        again = ["extend", "--resume", "more"] if Path("more/recipe.json").exists() else line.split()
        assert fuzz_commands.call(again) == "works"
        assert not list(tmp_path.rglob("*.part"))


def test_the_next_writer_drops_what_a_killed_one_left(reslab: Command, finished: Run) -> None:
    """But not what another one is writing at this moment."""
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        pass
    here = name_place()
    left = [finished.path / f"{name}.{here}.{dead.pid}.0.part" for name in (".report.html", "figures/.loss.png")]
    alive = finished.path / f".report.md.{here}.{os.getppid()}.0.part"
    for path in (*left, alive):
        path.touch()
    assert reslab("report", "small").code == 0
    assert list(finished.path.rglob("*.part")) == [alive]

"""Real processes and real signals: the first one saves and ends the command, the second one ends it at once."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reslab.recipe.recipe import Recipe
from reslab.runs import Run

SECONDS = 60.0  # on an idle machine it takes one or two; on a starved one, ten are soon over
PROMISED = 10.0  # of the processor's time, which others on the machine do not lengthen
STUCK = """
import sys, time
from contextlib import contextmanager
from pathlib import Path
from reslab.recipe.recipe import read_recipe
from reslab.training import graphs, loop, train

listen, stops = loop.listen_for_stop, []

@contextmanager
def remembered():
    with listen() as stop:
        stops.append(stop)
        yield stop

def stuck(*arguments, **options):
    print("busy", flush=True)
    while not stops[0].requested:
        time.sleep(0.01)
    print("asked", flush=True)
    time.sleep(600)

loop.listen_for_stop, graphs.update = remembered, stuck
train(read_recipe(Path(sys.argv[1])), out=sys.argv[2])
"""


COMPILING = """
import sys, time
from reslab.__main__ import main
from reslab.training import loop

def compile(*arguments, **options):
    print("busy", flush=True)
    time.sleep(600)

loop.settle_compiled = compile
main()
"""


Begin = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Start Python with arguments; what still runs when the test ends is killed."""
    begun: list[subprocess.Popen[str]] = []

    def start(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        begun.append(subprocess.Popen([sys.executable, *arguments], text=True, env=environment, **options))
        return begun[-1]

    yield start
    for process in begun:
        with process:
            process.kill()


def used_by(process: "subprocess.Popen[str]") -> float:
    """Seconds of the processor that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def used_by_ended() -> float:
    """Seconds of the processor that processes have used which were begun here and have ended."""
    used = os.times()
    return used.children_user + used.children_system


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_saves_and_says_how_to_go_on(begin: Begin, tmp_path: Path, number: int) -> None:
    """It is sent once the first epoch is in the log."""
    out, ended = tmp_path / "run", used_by_ended()
    settings = ("--compile", "off", "--set", "epochs=1000", "--checkpoint-every", "500epochs", "--out", str(out))
    process = begin("-m", "reslab", "train", "digits-quick", *settings, stderr=subprocess.PIPE)
    assert process.stderr is not None
    while "epoch" not in process.stderr.readline():
        pass
    before = used_by(process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=SECONDS)
    assert used_by_ended() - ended - before < PROMISED
    assert process.returncode == 1
    assert f"resume with reslab train --resume {out}" in errors
    assert "Traceback" not in errors
    assert Run.open(out).read_checkpoint().state["updates"] > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_first_update_ends_in_a_sentence_and_leaves_nothing(
    begin: Begin, small_recipe: Recipe, tmp_path: Path, number: int
) -> None:
    """While a compiled step is tried, which can take a minute."""
    (tmp_path / "recipe.json").write_text(small_recipe.model_dump_json())
    line = ("train", str(tmp_path / "recipe.json"), "--out", str(tmp_path / "run"))
    process = begin("-c", COMPILING, *line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "busy\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors.splitlines()[-1]) == (1, "reslab: stopped: the same command starts it again")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_at_once(begin: Begin, small_recipe: Recipe, tmp_path: Path, second: int) -> None:
    """In the middle of an update that takes ten minutes."""
    (tmp_path / "recipe.json").write_text(small_recipe.model_dump_json())
    arguments = (str(tmp_path / "recipe.json"), str(tmp_path / "run"))
    process = begin("-c", STUCK, *arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == "busy\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "asked\n"
    assert process.poll() is None
    process.send_signal(second)
    process.communicate(timeout=SECONDS)
    assert process.returncode == -second

"""The help: it comes at once, and the example at the end of each page works."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from sklearn.datasets import load_digits

from reslab.cli import app


def commands(group: Any = None, *path: str) -> Iterator[tuple[str, ...]]:
    """Walk the tree of commands, in the order in which the help lists them."""
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield (*path, name)


def last_line_of_help(reslab: Callable[..., Any], command: tuple[str, ...]) -> str:
    shown = reslab(*command, "--help")
    assert shown.code == 0
    return shown.out.strip().splitlines()[-1].strip()


def test_the_commands_are_those_that_were_promised() -> None:
    names = ["demo", "fit", "lab", "train", "calibrate", "evaluate", "report", "compare", "extend"]
    names += ["remember", "import"]
    names += ["predict", "watch", "serve", "export", "push", "pull"]
    names += ["recipes", "models", "methods", "dashboard", "track", "doctor"]
    groups = [("data", name) for name in ("show", "list", "check", "plan", "verify", "pack", "cache")]
    groups[:0] = [("study", name) for name in ("list", "run", "report")]
    assert list(commands()) == [*((name,) for name in names), *groups]


def test_alone_it_prints_a_map_whose_commands_are_there(reslab: Callable[..., Any]) -> None:
    shown = reslab()
    assert (shown.code, shown.err) == (0, "")
    assert len(shown.out.splitlines()) < 15
    named = set(re.findall(r"reslab ([a-z]+) ?", shown.out)) - {"trains"}
    assert {"demo", "fit", "train"} <= named
    assert named - {name for name, *_ in commands()} == set()


def test_the_help_groups_commands_with_whole_summaries(reslab: Callable[..., Any]) -> None:
    shown = reslab("-h").out
    assert [line for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")] == [
        "Options:",
        *(f"{heading}:" for heading in ("Start here", "Train and measure", "Use", "Look inside")),
    ]
    for page in (shown, reslab("data", "-h").out):
        assert "..." not in page.partition("\n")[2]  # a summary that is cut
        assert "\x1b" not in page  # a colour, where there is no terminal
    for name, *_ in commands():
        assert f"\n  {name} " in shown


def test_the_example_of_every_command_runs(
    reslab: Callable[..., Any], hub: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other as they are listed, in one folder: later ones use what earlier ones have made."""
    # Which would take a port, and serve until interrupted.
    monkeypatch.setattr("reslab.serving.server.run", lambda app, address, say: say("http://127.0.0.1"))
    digits = load_digits()
    four = digits.images[list(digits.target).index(4)] * (255 / 16)
    Image.fromarray(four.astype("uint8")).resize((64, 64)).save("four.png")
    for name in ("0", "1"):  # what `fit` finds in a folder called pictures
        (Path("pictures") / name).mkdir(parents=True)
        for number, place in enumerate((digits.target == int(name)).nonzero()[0][:14]):
            Image.fromarray((digits.images[place] * (255 / 16)).astype("uint8")).save(f"pictures/{name}/{number}.png")
    Path("new-pictures").mkdir()
    for number, image in enumerate(digits.images[:40]):
        Image.fromarray((image * (255 / 16)).astype("uint8")).save(f"new-pictures/{number}.png")
    for command in commands():
        if command in (("import",), ("calibrate",), ("remember",)):  # a file of somebody else's; what takes longer
            continue
        mark, example = last_line_of_help(reslab, command).split(": ", 1)
        name, *arguments = shlex.split(example)
        assert (mark, name, *arguments[: len(command)]) == ("Example", "reslab", *command)
        outcome = reslab(*arguments)
        assert outcome.code == 0, (example, outcome.err)
        assert outcome.out
        assert "Traceback" not in outcome.err
    assert Path("runs/lab/extended/report.html").exists()
    assert Path("runs/digits/report.html").exists()
    assert Path("runs/both/curves.png").exists()
    assert Path("runs/study/report.html").exists()


def test_the_help_answers_at_once_and_without_torch() -> None:
    """In seconds of the processor: on a machine with nothing else to do they are the seconds that a person waits."""
    spent = []
    for _ in range(5):
        before = os.times()
        subprocess.run([sys.executable, "-m", "reslab", "--help"], check=True, capture_output=True)
        after = os.times()
        spent.append(after.children_user - before.children_user + after.children_system - before.children_system)
    assert min(spent) < 0.5
    program = "import reslab.cli, sys; sys.argv[1:] = ['--help']\ntry: reslab.cli.main()\nfinally: print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "Start here:" in shown.stdout
    loaded = {name.partition(".")[0] for name in shown.stdout.split()}
    assert "typer" in loaded
    assert not loaded & {"torch", "numpy", "matplotlib", "pydantic"}


@pytest.mark.parametrize("arguments", [("--version",), ("recipes", "digits-quick"), ("data", "--help")])
def test_what_needs_no_torch_does_not_load_it(arguments: tuple[str, ...]) -> None:
    program = "import reslab.cli, sys\ntry: reslab.cli.main()\nfinally: assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True)


def test_an_interrupt_ends_a_command_without_a_traceback(
    reslab: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("reslab.data.load.describe", interrupted)
    assert reslab("data", "show", "digits") == (1, "", "reslab: stopped: the same command starts it again\n")

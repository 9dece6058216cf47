"""What the documentation tells people to type is what the program understands."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from reslab.cli import app

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))
LINE = re.compile(r"^ {4}(reslab .+)$", re.MULTILINE)


def commands() -> list[str]:
    return sorted({line for page in PAGES for line in LINE.findall(page.read_text(encoding="utf-8"))})


@pytest.mark.parametrize("line", commands())
def test_every_command_in_the_documentation_parses(line: str) -> None:
    name, *arguments = shlex.split(line)[1:]
    whole: Any = typer.main.get_command(app)
    command = whole.commands[name]
    if hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    assert command.make_context(name, arguments, resilient_parsing=False).params


def test_the_python_of_the_quickstart_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/quickstart.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "quickstart.md", "exec"), {})
    assert (tmp_path / "runs/digits/report.html").exists()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_every_test_that_the_page_of_security_names_is_there() -> None:
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) > 10
    missing = [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text()]
    assert missing == []

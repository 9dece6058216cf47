"""What the documentation tells people to type is what the program understands."""

import re
import shlex
import subprocess
import sys
import tomllib
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


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")])
def test_the_python_of_a_page_names_nothing_that_the_page_has_not_made(page: Path) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "-"]
    done = subprocess.run(command, input=code, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_reslab_is_installed_from_the_clone() -> None:
    """It is not on PyPI."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for page in PAGES:
        for line in re.findall(r"pip install (.*?)(?:`|$)", page.read_text(encoding="utf-8"), re.MULTILINE):
            if "reslab" in line or "." in line.split():
                pytest.fail(f"{page.name}: pip install {line}")
            for extras in re.findall(r"'\.\[(.+?)\]'", line):
                assert set(extras.split(",")) <= set(known), page
                assert "--constraint constraints.txt" in line, page


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_every_test_that_the_page_of_security_names_is_there() -> None:
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) > 10
    missing = [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text()]
    assert missing == []

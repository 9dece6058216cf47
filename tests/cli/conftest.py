"""The commands through their real entry point, in this process: what they print and how they end."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from reslab.cli import main


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


class Refuse(Protocol):
    """Run a command that must fail; gives its sentence."""

    def __call__(self, *arguments: object, code: int = 2, untouched: bool = True) -> str: ...


@pytest.fixture
def reslab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `reslab` with arguments in an empty folder; a traceback fails the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESLAB_DATA", str(tmp_path / "no-data"))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # Typer puts its own in its place

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["reslab", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        return Outcome(end.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def refuse(reslab: Command, tmp_path: Path) -> Refuse:
    """Run a command that must end with one sentence, and with every file as it was unless told otherwise."""

    def run(*arguments: object, code: int = 2, untouched: bool = True) -> str:
        before = contents(tmp_path)
        outcome = reslab(*arguments)
        assert outcome.code == code
        assert outcome.out == ""
        *notes, line = outcome.err.splitlines()
        assert all(note.endswith(("is not used", "are not used", " so far")) for note in notes)
        assert line.startswith("reslab: ")
        assert "Traceback" not in line
        assert len(line) < 1000
        if untouched:
            assert contents(tmp_path) == before
        return line.removeprefix("reslab: ")

    return run


def contents(folder: Path) -> dict[Path, bytes]:
    """Read every file below `folder`."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

"""What a run records of the command that made it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reslab.training import environment
from reslab.training.environment import describe_environment


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["/usr/lib/reslab/__main__.py", "train", "digits-quick"], "reslab train digits-quick"),
        (["/usr/bin/reslab", "train", "digits-quick"], "reslab train digits-quick"),
        (["study.py", "3"], "study.py 3"),
        (["/usr/lib/ipykernel_launcher.py", "-f", "/home/somebody/kernel.json"], "ipykernel_launcher.py"),
    ],
)
def test_the_command_is_recorded_without_the_places_of_this_machine(
    arguments: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", arguments)
    recorded = describe_environment(device=torch.device("cpu"), seed=0, data=())
    assert recorded.command == expected


@pytest.mark.parametrize(("is_tracked", "has_commit"), [(True, True), (False, False)])
def test_a_repository_that_reslab_is_installed_below_is_not_its_own(
    is_tracked: bool, has_commit: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "project/.venv/reslab/environment.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    (tmp_path / "project/own.py").write_text("")

    def git(*arguments: str) -> None:
        by = ("-c", "user.name=a", "-c", "user.email=a@b.example")
        subprocess.run(["git", *by, *arguments], cwd=tmp_path / "project", check=True)

    git("init", "-q")
    git("add", "." if is_tracked else "own.py")
    git("commit", "-qm", "one")
    monkeypatch.setattr(environment, "__file__", str(module))
    assert (describe_environment(device=torch.device("cpu"), seed=0, data=()).commit is not None) == has_commit

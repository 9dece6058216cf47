"""What a run records of the command that made it."""

import sys

import pytest
import torch

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

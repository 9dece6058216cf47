"""`reslab doctor` on the terminal and for a program."""

import json
from collections.abc import Callable
from typing import Any

import torch

Command = Callable[..., Any]


def test_the_doctor_says_a_line_for_each_thing_and_json_the_same(reslab: Command) -> None:
    shown = reslab("doctor", "--data-dir", "nowhere")
    assert (shown.code, shown.err) == (0, "")
    findings = json.loads(reslab("doctor", "--data-dir", "nowhere", "--json").out)
    lines = shown.out.splitlines()
    assert [line.split("  ")[0] for line in lines if not line.startswith(" ")] == [each["name"] for each in findings]
    (data,) = [each for each in findings if each["name"] == "cifar10"]
    assert "nowhere" in data["advice"]
    assert any(line.strip() == f"-> {data['advice']}" for line in lines)
    assert torch.__version__ in shown.out

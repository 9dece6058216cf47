"""A small share of what `benchmarks/fuzz.py` feeds, and whether it notices what it looks for."""

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reslab.errors import UserError

NUM_INPUTS = 1700  # a hundred for each source


@pytest.fixture(scope="module")
def guard(fuzz: ModuleType) -> Any:
    return fuzz.Guard()


def test_every_source_works_or_is_refused_in_one_sentence(fuzz: ModuleType, tmp_path: Path) -> None:
    found = fuzz.fuzz(NUM_INPUTS, seed=3, folder=tmp_path.resolve())
    assert {name: row["defects"] for name, row in found.items() if row["defects"]} == {}
    assert all(row["works"] and row["refused"] for row in found.values())


def test_what_is_committed_works_or_is_refused(fuzz: ModuleType, guard: Any, tmp_path: Path) -> None:
    """One input for each sentence that has refused one, of every source."""
    fuzz.warm_up(tmp_path.resolve())
    for name, target in fuzz.TARGETS.items():
        corpus = fuzz.read_corpus(name)
        assert corpus, name
        outcomes = {fuzz.feed(target, content, folder=tmp_path.resolve(), guard=guard) for content in corpus}
        assert outcomes <= {"works", "refused"}, name
        assert "refused" in outcomes, name


def test_a_run_in_parts_goes_on_where_it_stopped(
    fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three parts at once are the same as one and then two."""

    def count(num_inputs: int, *, seed: int, folder: Path, defects: Path | None) -> dict[str, dict[str, Any]]:
        row = {"works": num_inputs, "refused": seed, "slowest_seconds": float(num_inputs), "defects": {"hangs": 1}}
        return {"a source": row}

    monkeypatch.setattr(fuzz, "fuzz", count)
    monkeypatch.setattr(fuzz, "PART", 10)
    once = fuzz.fuzz_in_parts(25, seed=0, folder=tmp_path, kept=tmp_path / "once")
    fuzz.fuzz_in_parts(10, seed=0, folder=tmp_path, kept=tmp_path / "twice")
    twice = fuzz.fuzz_in_parts(25, seed=0, folder=tmp_path, kept=tmp_path / "twice")
    assert once["by_source"] == twice["by_source"]
    (row,) = once["by_source"].values()
    assert row == {"works": 25, "refused": 30, "slowest_seconds": 10.0, "defects": {"hangs": 3}}


def test_the_same_seed_gives_the_same_inputs(fuzz: ModuleType) -> None:
    content = json.dumps({"a": [1, {"b": "c"}]}).encode()
    first, second = (
        [fuzz.mutate(content, random.Random(seed), others=[content]) for seed in range(50)] for _ in range(2)
    )
    assert first == second
    assert len(set(first)) > 40


def write_outside(content: bytes, folder: Path) -> None:
    (folder / "../outside").write_bytes(content)


def move_outside(content: bytes, folder: Path) -> None:
    (folder / "inside").write_bytes(content)
    os.replace(folder / "inside", folder.parent / "outside")


def run_a_program(content: bytes, folder: Path) -> None:
    subprocess.run([sys.executable, "--version"], capture_output=True)
    raise UserError("refused, but too late")


def hang(content: bytes, folder: Path) -> None:
    try:
        time.sleep(30)
    except Exception:
        raise UserError("a reader that catches everything") from None


def fall_over(content: bytes, folder: Path) -> None:
    raise KeyError("what")


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (write_outside, "writes or runs open .*/outside"),
        (move_outside, "writes or runs os.rename .*/outside"),
        (run_a_program, "writes or runs subprocess.Popen .*"),
        (hang, "hangs for 1 s"),
        (fall_over, "KeyError at .*: 'what'"),
    ],
)
def test_what_goes_wrong_is_noticed(
    fuzz: ModuleType, guard: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Any, expected: str
) -> None:
    monkeypatch.setattr(fuzz, "SECONDS", 1)
    (tmp_path / "folder").mkdir()
    target = fuzz.Target(lambda: [b""], read)
    outcome = fuzz.feed(target, b"content", folder=(tmp_path / "folder").resolve(), guard=guard)
    assert re.fullmatch(expected, outcome), outcome

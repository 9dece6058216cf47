"""The lab's study: once, again, interrupted, and in the wrong place. In full it runs in tests/cli/test_examples.py."""

from pathlib import Path
from typing import Any

import pytest

from reslab import lab
from reslab.errors import UserError
from reslab.lab import run_lab
from reslab.recipe import Recipe, derive
from reslab.runs import Run


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, small_recipe: Recipe) -> None:
    """Under the same name with few images and epochs."""
    quick = derive(small_recipe, name="digits-quick")
    monkeypatch.setattr(lab, "find_recipe", {"digits-quick": quick}.get)


def figures(run: Run) -> dict[str, Any]:
    return run.evaluation.model_dump(exclude={"evaluated"})


def test_the_lab_trains_evaluates_and_reports_and_a_second_time_does_not_train(tmp_path: Path) -> None:
    out = tmp_path / "lab"
    first = run_lab(out, seed=4)
    assert first.path == out
    assert first.environment.seed == 4
    assert [data.split for data in first.environment.data] == ["train", "validation", "test"]
    assert list(first.evaluation.splits) == ["train", "test"]
    assert (out / "report.html").stat().st_size > 10_000
    assert len(list((out / "figures").glob("*.png"))) >= 5
    before = figures(first)
    stamps = {name: (out / name).stat().st_mtime_ns for name in ("log.jsonl", "model.safetensors", "recipe.json")}
    (out / "report.html").unlink()
    second = run_lab(out, seed=4)
    assert figures(second) == before
    assert stamps == {name: (out / name).stat().st_mtime_ns for name in stamps}
    assert (out / "report.html").exists()


def test_a_lab_that_was_interrupted_is_finished_to_the_same_bytes(tmp_path: Path) -> None:
    whole = run_lab(tmp_path / "whole").weights_path.read_bytes()
    begun = Run.open(tmp_path / "whole")
    begun.weights_path.unlink()
    begun.cut_log(2)
    (begun.path / "checkpoint/newest.safetensors").unlink()  # the one before it is after two epochs
    assert run_lab(tmp_path / "whole").weights_path.read_bytes() == whole
    assert len(begun.log) == 3


@pytest.mark.parametrize("seed", [0, 1])
def test_a_folder_with_another_run_is_refused(tmp_path: Path, finished: Run, seed: int) -> None:
    """Be it of another recipe, or of the same with another seed."""
    out = tmp_path / "small"
    if seed:
        out = tmp_path / "lab"
        run_lab(out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=f"holds another run than digits-quick with seed {seed}: choose another"):
        run_lab(out, seed=seed)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="exists and is not empty"):
        run_lab(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

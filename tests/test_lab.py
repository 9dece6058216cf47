"""The lab's study: once, again, interrupted, and in the wrong place. In full it runs in tests/cli/test_examples.py."""

from pathlib import Path
from typing import Any

import pytest

from reslab import lab
from reslab.errors import UserError
from reslab.lab import run_lab
from reslab.recipe.recipe import Recipe, derive
from reslab.runs import Run, read_weights


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, small_recipe: Recipe) -> None:
    """With few images and epochs."""
    monkeypatch.setattr(lab, "lab_recipe", lambda: derive(small_recipe, name="lab"))
    monkeypatch.setattr(lab, "LATER", "digits:0@20")


def figures(run: Run) -> dict[str, Any]:
    return run.evaluation.model_dump(exclude={"evaluated"})


def test_the_lab_does_both_parts_and_a_second_time_does_not_train(tmp_path: Path) -> None:
    out = tmp_path / "lab"
    first = run_lab(out, seed=4)
    assert [run.path for run in first] == [out / "base", out / "extended"]
    for run in first:
        assert run.environment.seed == 4
        assert [data.split for data in run.environment.data] == ["train", "validation", "test"]
        assert list(run.evaluation.splits) == ["train", "test"]
        assert (run.path / "report.html").stat().st_size > 10_000
        assert len(list((run.path / "figures").glob("*.png"))) >= 5
    assert read_weights(first[1].path)[1].classes == ("1", "4", "7", "0")
    assert first[1].evaluation.extension is not None
    before = [figures(run) for run in first]
    stamps = {path: path.stat().st_mtime_ns for name in ("log.jsonl", "model.safetensors") for path in out.rglob(name)}
    (out / "extended/report.html").unlink()
    assert [figures(run) for run in run_lab(out, seed=4)] == before
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
    assert (out / "extended/report.html").exists()


@pytest.mark.parametrize("part", ["base", "extended"])
def test_a_lab_that_was_interrupted_is_finished_to_the_same_bytes(tmp_path: Path, part: str) -> None:
    whole = [run.weights_path.read_bytes() for run in run_lab(tmp_path / "lab")]
    begun = Run.open(tmp_path / "lab" / part)
    begun.weights_path.unlink()
    epochs = len(begun.log)
    begun.cut_log(epochs - 1)
    (begun.path / "checkpoint/newest.safetensors").unlink()  # the one before it is an epoch older
    assert [run.weights_path.read_bytes() for run in run_lab(tmp_path / "lab")] == whole
    assert len(begun.log) == epochs


@pytest.mark.parametrize("seed", [0, 1])
def test_a_folder_with_another_run_is_refused(tmp_path: Path, finished: Run, seed: int) -> None:
    """Be it of another recipe, or of the same with another seed."""
    out = tmp_path / "lab"
    if seed:
        run_lab(out)
    else:
        out.mkdir()
        finished.path.rename(out / "base")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=f"holds another run than lab with seed {seed}: choose another"):
        run_lab(out, seed=seed)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base/thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="exists and is not empty"):
        run_lab(tmp_path)
    assert [path.name for path in (tmp_path / "base").iterdir()] == ["thesis.txt"]

"""The ledger's tables are made of the runs that are kept, and what is kept of a run is small and enough."""

import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from reslab.errors import UserError
from reslab.recipe.shipped import find_recipe
from reslab.runs import Run
from reslab.runs.files import write_npz
from reslab.study.plan import Job

ROOT = Path(__file__).parents[1]
TOOL = runpy.run_path(str(ROOT / "tools/ledger.py"))


def test_the_predictions_that_are_kept_are_those_that_were_measured() -> None:
    for path in (ROOT / "results/ledger").glob("*/predictions-test.npz"):
        assert path.stat().st_size < TOOL["MOST_BYTES"]
        TOOL["check"](Run(path.parent))


# ---- keeping a run


def test_what_is_kept_of_a_run(finished: Run, tmp_path: Path) -> None:
    TOOL["keep"](Job("small", 0, finished.path, finished.recipe), into=tmp_path / "kept")
    kept = Run(tmp_path / "kept" / finished.path.name)
    names = ["environment.json", "evaluation.json", "log.jsonl", "predictions-test.npz", "recipe.json"]
    assert sorted(path.name for path in kept.path.iterdir()) == names
    before, after = (run.read_predictions("test") for run in (finished, kept))
    gaps = before.logits - before.logits.max(axis=1, keepdims=True)
    assert np.abs(after.logits - gaps).max() <= TOOL["STEP"]
    assert (after.logits.argmax(axis=1) == before.logits.argmax(axis=1)).all()
    assert (after.labels == before.labels).all()
    assert kept.evaluation == finished.evaluation


def test_predictions_of_another_network_are_noticed(finished: Run) -> None:
    logits, labels = finished.read_predictions("test")
    write_npz(finished.path / "predictions-test.npz", {"logits": -logits, "labels": labels})
    with pytest.raises(AssertionError):
        TOOL["check"](finished)


def test_equal_logits_keep_their_answer() -> None:
    logits = np.array([[1.0, 1.0, 0.999, -30.0], [2.0, 2.001, 2.0, 500.0]], dtype=np.float32)
    found = TOOL["compress"](logits)
    assert found.tolist() == [[0.0, -0.125, -0.125, -31.0], [-498.0, -498.0, -498.0, 0.0]]


@pytest.mark.parametrize(("images", "classes"), [(10_000, 10), (10_500, 15)])
def test_a_whole_test_split_fits(tmp_path: Path, images: int, classes: int) -> None:
    """Logits of a trained network, roughly: one is large, the others spread widely."""
    random = np.random.default_rng(0)
    logits = random.normal(0, 3, (images, classes))
    logits[np.arange(images), random.integers(0, classes, images)] += 12
    write_npz(tmp_path / "kept.npz", {"logits": TOOL["compress"](logits.astype(np.float32))})
    assert (tmp_path / "kept.npz").stat().st_size < TOOL["MOST_BYTES"]


# ---- the page of some runs


def keep_as(finished: Run, name: str, *, into: Path, processor: str = "a processor", recipe: str = "zoo-lenet") -> Run:
    """Pretend that a run of the ledger has ended as the small one did."""
    TOOL["keep"](Job("small", 0, finished.path, finished.recipe), into=into)
    shutil.move(into / finished.path.name, into / name)
    run = Run(into / name)
    run.write_recipe(find_recipe(recipe))
    changes = {"seed": int(name.rpartition("-")[2]), "processor": processor, "commit": "1234567890abcdef"}
    run.write_environment(run.environment.model_copy(update=changes))
    return run


def lines_of(page: str, row: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith(f"| `{row}` |")]


def test_the_page_of_some_runs(finished: Run, tmp_path: Path) -> None:
    for name, processor in (("lenet-0", "one"), ("lenet-2", "another")):
        keep_as(finished, name, into=tmp_path / "kept", processor=processor)
    kept = tmp_path / "kept"
    page = TOOL["write_rows"](kept)
    ((_, figure, published, test, train, verdict, minutes, missing),) = lines_of(page, "lenet")
    accuracy = {split: 100 * finished.evaluation.splits[split].accuracy.value for split in ("test", "train")}
    assert (figure, published) == ("accuracy", "76.23 [5]")
    assert test.startswith(f"{accuracy['test']:.2f} ± ")
    assert train.startswith(f"{accuracy['train']:.2f} ± ")
    assert verdict != "no run yet"
    assert missing == "1"
    # Never one mean over two machines.
    assert minutes.count("; ") == 1
    assert "(one, cpu, 1 thread" in minutes
    assert "(another, cpu, 1 thread" in minutes
    assert TOOL["write_progress"](kept).startswith("Done: 2 of 87 runs ")
    assert f"| [`lenet-2`](../results/ledger/lenet-2) | {accuracy['test']:.2f} |" in TOOL["write_runs"](kept)
    assert lines_of(page, "wrn28-10")[0][3:] == ["–", "–", "no run yet", "–", "0, 1, 2"]


def test_every_figure_of_a_network_has_its_line() -> None:
    page = TOOL["write_rows"](ROOT / "no such folder")
    assert [line[2].split()[0] for line in lines_of(page, "resnet-20")] == ["8.38", "8.75"]
    assert [line[1:3] for line in lines_of(page, "frozen")] == [["macro F1", "69.00 [2]"], ["accuracy", "87.20 [2]"]]


def test_a_run_of_another_recipe_is_refused(finished: Run, tmp_path: Path) -> None:
    keep_as(finished, "lenet-0", into=tmp_path / "kept", recipe="resnet-20")
    with pytest.raises(UserError, match="lenet-0 does not hold row lenet"):
        TOOL["write_rows"](tmp_path / "kept")

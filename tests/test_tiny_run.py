"""A committed run of the first layout: what its network says is held to fixed numbers, and its folder is still read.

It was trained on `digits:1,4,7@60` before runs recorded whether they are compiled or had a lower rate.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reslab.data.recipe_data import read_split
from reslab.errors import UserError
from reslab.evaluation import evaluate
from reslab.evaluation.classify import classify
from reslab.report import write_report
from reslab.report.comparison import compare
from reslab.runs import Run, read_weights

TINY = Path(__file__).parent / "fixtures/tiny"
# Of the first four test images: probabilities of the classes 1, 4 and 7.
EXPECTED = [
    [0.028909, 0.970374, 0.000717],
    [0.026030, 0.027186, 0.946784],
    [0.000959, 0.998986, 0.000055],
    [0.988782, 0.010905, 0.000308],
]


@pytest.fixture
def tiny(tmp_path: Path) -> Run:
    """A copy; a test may do to it what it likes."""
    return Run.open(shutil.copytree(TINY, tmp_path / "tiny"))


def ask(weights: Path, folder: Path) -> list[dict[str, float]]:
    """Give the probability of each class for each of four pictures."""
    images, files = read_split(Run.open(TINY).recipe, "test").images[:4, 0].numpy(), []
    for number, image in enumerate(images):
        files.append(folder / f"{number}.png")
        Image.fromarray(image).save(files[-1])
    answers = classify(files, weights=weights, device="cpu")
    return [dict(zip(answer.classes, answer.probabilities, strict=True)) for answer in answers]


@pytest.mark.parametrize("name", [".", "model.safetensors", "elsewhere/renamed.bin"])
def test_what_the_network_says_does_not_depend_on_where_it_lies(tiny: Run, tmp_path: Path, name: str) -> None:
    if "elsewhere" in name:
        (tiny.path / "elsewhere").mkdir()
        shutil.move(tiny.weights_path, tiny.path / name)
        (tiny.path / "recipe.json").unlink()
    said = [[answer[digit] for digit in "147"] for answer in ask(tiny.path / name, tmp_path)]
    np.testing.assert_allclose(said, EXPECTED, atol=2e-5)


def test_a_run_of_the_first_layout_is_evaluated_reported_and_compared(tiny: Run, tmp_path: Path) -> None:
    assert tiny.environment.compiled == "undecided"
    assert not tiny.environment.deterministic
    assert [epoch.rate_factor for epoch in tiny.log] == [1.0] * 4
    twin = Run.open(shutil.copytree(tiny.path, tmp_path / "twin"))
    assert [evaluate(run).splits["test"].accuracy.value for run in (tiny, twin)] == [1.0, 1.0]
    assert write_report(tiny).exists()
    assert compare([tiny, twin]).rows[0].epochs == 4


@pytest.mark.parametrize("name", ["recipe.json", "environment.json", "model.safetensors"])
def test_a_newer_schema_is_refused_by_name(tiny: Run, name: str) -> None:
    path = tiny.path / name
    path.write_bytes(
        path.read_bytes()
        .replace(b'schema_version\\": 1', b'schema_version\\": 9')
        .replace(b'schema_version\\":1', b'schema_version\\":9')
        .replace(b'"schema_version": 1', b'"schema_version": 9')
    )
    with pytest.raises(UserError, match=rf"{name} has (recipe )?schema 9, this reslab reads up to [12]: upgrade"):
        (tiny.recipe, tiny.environment, read_weights(tiny.path))


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in TINY.iterdir()) < 100_000

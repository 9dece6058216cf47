"""A study that trains in seconds."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from reslab.recipe.recipe import Published, Recipe
from reslab.study import Study
from reslab.study.execute import run_study
from reslab.study.spec import Contrast, Row, Teaching, Training


@pytest.fixture(scope="session")
def make_study(tmp_path_factory: pytest.TempPathFactory, small_recipe: Recipe) -> Callable[..., Study]:
    """Make a study of two networks on a few digits, and of one that is taught another digit; fields can be changed."""
    path = tmp_path_factory.mktemp("recipes") / "small.json"
    path.write_text(small_recipe.model_dump_json())
    figure = Published(low=0.1, high=0.1, source="the tests")

    def make(**changes: object) -> Study:
        rows = [
            Row(label="relu", job=Training(recipe=str(path)), published={"error": figure}),
            Row(label="elu", job=Training(recipe=str(path), settings=("model.activation=elu",))),
        ]
        job = Teaching(base="relu", data="digits:0@20", method="frozen")
        rows.append(Row(label="taught", job=job, published={"macro_f1": figure, "error": figure}))
        plain = {
            "name": "tiny",
            "title": "A tiny study",
            "rows": tuple(rows),
            "contrasts": (Contrast(first="elu", second="relu"),),
            "gradients": ("relu",),
            "seeds": 2,
        }
        return Study.model_validate(plain | changes)

    return make


@pytest.fixture(scope="session")
def study(make_study: Callable[..., Study]) -> Study:
    return make_study()


@pytest.fixture(scope="session")
def ran(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that study, run to its end; not to be written to."""
    out = tmp_path_factory.mktemp("studies") / "tiny"
    run_study(study, out=out)
    return out


@pytest.fixture
def copied(ran: Path, tmp_path: Path) -> Path:
    """A copy of it, to which a test may do what it likes."""
    return Path(shutil.copytree(ran, tmp_path / "tiny"))

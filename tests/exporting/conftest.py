"""The small run, exported once: ONNX, int8, torch.export and weights in a folder."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reslab import exporting
from reslab.data.images import ImageSet
from reslab.data.recipe_data import read_split_of
from reslab.exporting import Export, export
from reslab.machine import winograd
from reslab.records import SplitName
from reslab.runs import Run


@pytest.fixture(scope="session")
def _exported(_finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Export]:
    """By a PyTorch that uses Winograd's algorithm wherever it can, without the test split."""
    folder = tmp_path_factory.mktemp("exported") / "out"

    def read_no_test(run: Run, split: SplitName, **options: Any) -> ImageSet:
        assert split != "test"
        return read_split_of(run, split, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "MIN_REUSE_FORWARD", 0)
        patch.setattr(exporting, "read_split_of", read_no_test)
        done = export(Run.open(_finished), to=folder, int8=True)
        one = export(Run.open(_finished), to=folder / "model.pt2")
    return folder, replace(done, files=(*done.files, *one.files))


@pytest.fixture
def exported(_exported: tuple[Path, Export], tmp_path: Path) -> Path:
    """A copy of the folder; a test may do to it what it likes."""
    return Path(shutil.copytree(_exported[0], tmp_path / "exported"))


@pytest.fixture
def export_said(_exported: tuple[Path, Export]) -> Export:
    """What the export of it returned."""
    return _exported[1]

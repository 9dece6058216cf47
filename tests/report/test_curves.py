"""The chart of several runs: whose curves it draws, and where."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from reslab.errors import Failure
from reslab.records import Epoch
from reslab.report import curves as comparison
from reslab.report.curves import series_of, write_curves
from reslab.runs import Run


def log_epochs(path: Path, *accuracies: float, validation: tuple[float, ...] = ()) -> Run:
    run = Run.create(path)
    figures = {"seconds": 1.0, "images_per_second": 1.0, "learning_rate": 0.1, "train_loss": 1.0}
    for place, accuracy in enumerate(accuracies):
        held_out = {"validation_accuracy": validation[place], "validation_loss": 1.0} if validation else {}
        run.append_log(Epoch(epoch=place + 1, updates=place + 1, train_accuracy=accuracy, **figures, **held_out))
    return run


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    first = log_epochs(tmp_path / "first", 0.25, 0.5, 0.75)
    return [first, log_epochs(tmp_path / "second", 0.5, 0.875, validation=(0.375, 0.625))]


def test_every_run_has_its_curves_in_percent(runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, list[float]] = {}

    def draw(curves: Mapping[str, NDArray[np.float64]], **options: Any) -> bytes:
        drawn.update({name: values.tolist() for name, values in curves.items()})
        assert options == {"label": "accuracy (%)"}
        return b"a picture"

    monkeypatch.setattr(comparison, "learning_curve", draw)
    path = write_curves(runs, names=["one", "two"], out=tmp_path / "new/folder")
    assert path == tmp_path / "new/folder/curves.png"
    assert path.read_bytes() == b"a picture"
    assert drawn == {
        "one, training": [25, 50, 75],
        "two, training": [50, 87.5],
        "two, validation": [37.5, 62.5],
    }


def test_epochs_without_validation_leave_gaps(tmp_path: Path) -> None:
    log = log_epochs(tmp_path / "run", 0.25, 0.5, 0.75, validation=(0.375, 0.5, 0.625)).log
    log[1] = log[1].model_copy(update={"validation_accuracy": None})
    np.testing.assert_equal(series_of(log, "accuracy", scale=100)["validation"], [37.5, np.nan, 62.5])


def test_the_chart_is_a_picture_and_replaces_the_one_before(runs: list[Run], tmp_path: Path) -> None:
    first = write_curves(runs, names=["one", "two"], out=tmp_path).read_bytes()
    path = write_curves(runs[:1], names=["one"], out=tmp_path)
    assert path.read_bytes() != first
    with Image.open(path) as picture:
        assert (picture.format, picture.width) == ("PNG", 900)
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["curves.png"]


def test_imported_networks_have_no_curves(runs: list[Run], tmp_path: Path) -> None:
    for run in runs:
        (run.path / "log.jsonl").unlink()
    assert write_curves(runs, names=["one", "two"], out=tmp_path / "new") is None
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_a_failure(runs: list[Run], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Failure, match="file/below cannot be written: Not a directory"):
        write_curves(runs, names=["one", "two"], out=tmp_path / "file/below")

"""The learning curves of several runs in one plot."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reslab.records import Epoch
from reslab.report.figures import learning_curve
from reslab.runs import Run, make_folder, write_bytes


def write_curves(runs: Sequence[Run], *, names: Sequence[str], out: Path) -> Path:
    """Draw the accuracy of every run over its epochs into `out`/curves.png and return its path.

    Raises: Failure if the disk refuses.
    """
    curves: dict[str, NDArray[np.float64]] = {}
    for run, name in zip(runs, names, strict=True):
        curves |= {f"{name}, {part}": values for part, values in accuracy_curves(run.log).items()}
    make_folder(out)
    path = out / "curves.png"
    write_bytes(path, learning_curve({name: 100 * values for name, values in curves.items()}, label="accuracy (%)"))
    return path


def accuracy_curves(log: Sequence[Epoch]) -> dict[str, NDArray[np.float64]]:
    """Collect the accuracies of every epoch; those of validation images if some were held out."""
    curves = {"training": np.array([epoch.train_accuracy for epoch in log])}
    held_out = [epoch.validation_accuracy for epoch in log if epoch.validation_accuracy is not None]
    return curves | ({"validation": np.array(held_out)} if held_out else {})

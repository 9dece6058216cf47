"""The learning curves of several runs in one plot."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reslab.language import say
from reslab.records import Epoch
from reslab.report.figures import learning_curve
from reslab.runs import Run, make_folder, write_bytes


def write_curves(runs: Sequence[Run], *, names: Sequence[str], out: Path) -> Path | None:
    """Draw the accuracy of every run over its epochs into `out`/curves.png and return its path.

    None if no run has epochs, as networks that were imported.
    Raises: Failure if the disk refuses.
    """
    curves: dict[str, NDArray[np.float64]] = {}
    for run, name in zip(runs, names, strict=True):
        curves |= {f"{name}, {part}": values for part, values in series_of(run.log, "accuracy", scale=100).items()}
    if not curves:
        return None
    make_folder(out)
    path = out / "curves.png"
    write_bytes(path, learning_curve(curves, label="accuracy (%)"))
    return path


def series_of(log: Sequence[Epoch], figure: str, *, scale: float = 1) -> dict[str, NDArray[np.float64]]:
    """Collect a metric's value in each epoch on training and validation images; NaN where an epoch has none."""
    found = {}
    for split, name in (("train", say("training")), ("validation", say("validation"))):
        values = [getattr(epoch, f"{split}_{figure}") for epoch in log]
        if any(value is not None for value in values):
            found[name] = scale * np.array(values, np.float64)
    return found

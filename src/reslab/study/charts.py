"""The plots of a study as PNG, drawn at twice the size at which a page shows them."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reslab.report.figures import LOOKS
from reslab.report.pictures import Picture
from reslab.study.results import MeasuredRun, Results, sample_of

PICTURES = ("curves", "gradients")  # names of what may be drawn
INCHES_OF_A_ROW = 0.22  # in the legend
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.parse_math": False,  # a row may be called $x$
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
}


def draw(results: Results) -> list[Picture]:
    """Draw the training curves of the rows that have a log, and the gradients if they were measured."""
    logged = {label: [run for run in runs if run.log] for label, runs in results.runs.items()}
    rows = {label: runs for label, runs in logged.items() if runs}
    pictures = [_curves(rows, kept=results.kept)] if rows else []
    if results.gradients:
        pictures.append(_gradients(results.gradients))
    return pictures


@contextmanager
def _axes(name: str, found: dict[str, bytes], *, num_rows: int) -> Iterator[Axes]:
    """Yield axes to draw on; the drawing, high enough for its legend, is then stored in `found` under the name."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure((9, max(4.4, INCHES_OF_A_ROW * (num_rows + 2))), dpi=200, layout="constrained")
        axes = figure.subplots()
        yield axes
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        found[name] = buffer.getvalue()


def _curves(rows: Mapping[str, Sequence[MeasuredRun]], *, kept: str) -> Picture:
    found: dict[str, bytes] = {}
    ends = []
    with _axes("curves", found, num_rows=len(rows)) as axes:
        end = max(len(run.log) for runs in rows.values() for run in runs)
        for place, ((label, runs), (color, dashes)) in enumerate(zip(rows.items(), cycle(LOOKS), strict=False), 1):
            shortest = min(len(run.log) for run in runs)
            errors = np.array([[100 * (1 - epoch.train_accuracy) for epoch in run.log[:shortest]] for run in runs])
            curve = errors.mean(axis=0)
            axes.plot(np.arange(1, shortest + 1), curve, dashes, color=color, lw=1.3, label=label)
            test = sample_of(runs, "error", "test")
            mean = 100 * test.mean
            arms = None if test.interval is None else [[abs(mean - 100 * each)] for each in test.interval]
            axes.errorbar(
                end * (1 + 0.012 * place), mean, yerr=arms, color=color, fmt="o", ms=4, capsize=2, clip_on=False
            )
            ends.append(f"{label} {curve[0]:.3g} to {curve[-1]:.3g}, test {mean:.3g}")
        axes.set(xlabel="epoch", ylabel="error (%)", xlim=(0, None), ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return Picture(
        name="curves",
        png=found["curves"],
        alt=f"Training error over the epochs, in percent: {'; '.join(ends)}.",
        title="Training error of every row.",
        caption="The mean over the seeds, on augmented images while the weights still change. The dots at the end are "
        f"the test errors with {kept}, with the interval where there are several seeds.",
    )


def _gradients(norms: Mapping[str, Mapping[str, float]]) -> Picture:
    found: dict[str, bytes] = {}
    with _axes("gradients", found, num_rows=len(norms)) as axes:
        for (label, layers), (color, dashes) in zip(norms.items(), cycle(LOOKS), strict=False):
            places = np.linspace(0, 1, len(layers))
            axes.plot(places, list(layers.values()), dashes, color=color, lw=1.2, marker="o", ms=2.5, label=label)
        axes.set(yscale="log", xlabel="layer: 0 is the first, 1 the head", ylabel="norm of the gradient")
    spans = (f"{label} {min(layers.values()):.2g} to {max(layers.values()):.2g}" for label, layers in norms.items())
    return Picture(
        name="gradients",
        png=found["gradients"],
        alt=f"Gradient norms by layer, on a logarithmic scale: {'; '.join(spans)}.",
        title="Gradient norms by layer, before training.",
        caption="The Euclidean norm of the loss's gradient for the weights of each convolution and the head, for one "
        "batch, in training mode. Towards the left, far from the loss, a gradient that vanishes falls and one that "
        "explodes rises.",
    )

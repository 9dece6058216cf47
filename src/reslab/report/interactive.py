"""What makes the page answer: its data, the one script, and the sheets of images from which the script cuts.

The charts are drawn by Plotly's script, which reslab[report] brings; without it the page has pictures instead.
"""

import base64
import hashlib
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reslab.recipe.published import CIFAR10_NETWORKS
from reslab.records import SplitName
from reslab.report.gallery import Shown
from reslab.report.inputs import Inputs
from reslab.report.sheets import columns_of, make_sheet
from reslab.report.tables import SPLIT_WORDS, reliability, splits_of
from reslab.words import printable


class Sheet(NamedTuple):
    """The images of a split's gallery as one picture."""

    split: SplitName
    uri: str


class Interaction(NamedTuple):
    """What the page embeds; `digest` is the script's, so that the browser runs no other."""

    data: dict[str, Any]
    script: str
    digest: str
    sheets: list[Sheet]
    has_charts: bool


def interact(inputs: Inputs, *, plane: NDArray[np.float64] | None) -> Interaction:
    """Collect what the page's script needs; `plane` (M, 2) are the features in two dimensions."""
    plotly = read_plotly()
    script = plotly + resources.files("reslab.report").joinpath("page.js").read_text(encoding="utf-8")
    script = script.replace("\r\n", "\n")  # as a browser reads it, and so its digest
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sheets = [_sheet(split, shown) for split, shown in inputs.gallery.shown.items()] if plotly else []
    data = _data(inputs, plane) if plotly else {}
    return Interaction(data, script, digest, sheets, bool(plotly))


def read_plotly() -> str:
    """Read Plotly's script; empty where it is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError:
        return ""
    script: str = get_plotlyjs()
    assert "</script" not in script.lower()
    return f"{script}\n"


def _sheet(split: SplitName, shown: Shown) -> Sheet:
    kind, content = make_sheet(shown.images)
    return Sheet(split, f"data:image/{kind};base64,{base64.b64encode(content).decode()}")


def _data(inputs: Inputs, plane: NDArray[np.float64] | None) -> dict[str, Any]:
    bins = reliability(inputs.predictions)
    data: dict[str, Any] = {
        "classes": inputs.evaluation.classes,
        "splits": {split: _split(inputs, split) for split in splits_of(inputs.evaluation)},
        "reliability": {name: values.round(5).tolist() for name, values in bins._asdict().items()},
    }
    if inputs.log:
        data["curves"] = {"epochs": [epoch.epoch for epoch in inputs.log], "panels": _panels(inputs)}
    if plane is not None and inputs.gallery.features is not None:
        x, y = plane.round(3).T.tolist()
        places = inputs.gallery.shown["test"].places(inputs.gallery.features.indices).tolist()
        data["features"] = {"x": x, "y": y, "places": places}
    if inputs.recipe.data == "cifar10":
        data["field"] = _field(inputs)
    return data


def _panels(inputs: Inputs) -> list[dict[str, Any]]:
    """Give the series of each part of the learning curves, from above to below."""
    panels = []
    for title, figure in (("accuracy", "accuracy"), ("loss (nats)", "loss")):
        series = []
        for split, name in (("train", "training"), ("validation", "validation")):
            values = [getattr(epoch, f"{split}_{figure}") for epoch in inputs.log]
            if any(value is not None for value in values):
                series.append((name, values))
        panels.append({"title": title, "series": series})
    rates = [epoch.learning_rate for epoch in inputs.log]
    return [*panels, {"title": "learning rate", "series": [("learning rate", rates)]}]


def _split(inputs: Inputs, split: SplitName) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": SPLIT_WORDS[split],
        "matrix": inputs.evaluation.splits[split].confusion_matrix,
        "labels": [],
        "answers": [],
    }
    shown = inputs.gallery.shown.get(split)
    if shown is not None:
        data |= {
            "images": _call(inputs, split, shown),
            "labels": shown.labels.tolist(),
            "answers": shown.answers,
            "height": shown.images.shape[2],
            "width": shown.images.shape[3],
            "columns": columns_of(len(shown.images)),
        }
    return data


def _call(inputs: Inputs, split: SplitName, shown: Shown) -> list[str]:
    """Name the images of a gallery: test images by their file where there is one, others by their number."""
    files = inputs.names if split == "test" else None
    return [printable(files[index]) if files else f"image {index}" for index in shown.indices.tolist()]


def _field(inputs: Inputs) -> dict[str, Any]:
    """Put the run behind the published networks."""
    accuracy = inputs.test.accuracy
    return {
        "names": [*(known.network for known in CIFAR10_NETWORKS), f"{inputs.recipe.name} (this run)"],
        "parameters": [*(known.parameters for known in CIFAR10_NETWORKS), inputs.num_parameters],
        "accuracy": [*(known.test_accuracy for known in CIFAR10_NETWORKS), accuracy.value],
        "low": accuracy.low,
        "high": accuracy.high,
    }

"""The interactive parts of the page: its data, its script, and the sheets from which the script cuts images.

The charts are drawn by Plotly's bundle for charts with two axes, version 4.1.1 of plotly.js-cartesian-dist-min, which
is a third of the whole library; without JavaScript and on paper the page shows pictures instead.
"""

import base64
import hashlib
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reslab.language import current_language, say
from reslab.recipe.published import CIFAR10_NETWORKS
from reslab.records import SplitName
from reslab.report.curves import series_of
from reslab.report.gallery import Shown
from reslab.report.inputs import Inputs
from reslab.report.nearest import PublishedRow
from reslab.report.pictures import has_curves
from reslab.report.sheets import columns_of, make_sheet
from reslab.report.tables import reliability, split_words, splits_of

PLOTLY = "plotly/cartesian.min.js"


class Sheet(NamedTuple):
    """The images of a split's gallery as one picture."""

    split: SplitName
    uri: str


class Interaction(NamedTuple):
    """What the page embeds; `digest` is the script's, so that the browser runs no other script."""

    data: dict[str, Any]
    script: str
    digest: str
    sheets: list[Sheet]


def interact(inputs: Inputs, *, plane: NDArray[np.float64] | None, row: PublishedRow | None) -> Interaction:
    """Collect what the page's script needs; `plane` (M, 2) are the features in two dimensions."""
    files = resources.files("reslab.report")
    parts = (files.joinpath(name).read_text(encoding="utf-8") for name in (PLOTLY, "page.js"))
    script = "\n".join(parts).replace("\r\n", "\n")  # as a browser reads it, so that the digest matches
    assert "</script" not in script.lower()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sheets = [_sheet(split, shown) for split, shown in inputs.gallery.shown.items()]
    return Interaction(_data(inputs, plane, row), script, digest, sheets)


def _sheet(split: SplitName, shown: Shown) -> Sheet:
    kind, content = make_sheet(shown.images)
    return Sheet(split, f"data:image/{kind};base64,{base64.b64encode(content).decode()}")


def _data(inputs: Inputs, plane: NDArray[np.float64] | None, row: PublishedRow | None) -> dict[str, Any]:
    bins = reliability(inputs.predictions)
    data: dict[str, Any] = {
        "language": current_language().name,
        "sentences": dict(current_language().script or {}),
        "classes": inputs.evaluation.classes,
        "numOld": inputs.evaluation.extension.num_old if inputs.evaluation.extension else 0,
        "splits": {split: _split(inputs, split) for split in splits_of(inputs.evaluation)},
        "reliability": {name: values.round(5).tolist() for name, values in bins._asdict().items()},
    }
    if has_curves(inputs):
        data["curves"] = {"epochs": [epoch.epoch for epoch in inputs.log], "panels": _panels(inputs)}
    if plane is not None and inputs.gallery.features is not None:
        x, y = plane.round(3).T.tolist()
        places = inputs.gallery.shown["test"].places(inputs.gallery.features.indices).tolist()
        data["features"] = {"x": x, "y": y, "places": places}
    if inputs.recipe.data == "cifar10":
        data["field"] = _field(inputs, row)
    return data


def _panels(inputs: Inputs) -> list[dict[str, Any]]:
    """Return the series of each panel of the learning curves, from top to bottom."""
    panels = []
    for title, figure, scale in ((say("accuracy (%)"), "accuracy", 100), (say("loss (nats)"), "loss", 1)):
        curves = series_of(inputs.log, figure, scale=scale)
        series = [(name, [None if np.isnan(value) else value for value in values]) for name, values in curves.items()]
        panels.append({"title": title, "series": series})
    rates = [epoch.learning_rate for epoch in inputs.log]
    return [*panels, {"title": say("rate"), "series": [(say("learning rate"), rates)]}]


def _split(inputs: Inputs, split: SplitName) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": split_words(split),
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
    """Name the images of a gallery: test images by their file if there is one, others by their number."""
    return [
        (split == "test" and inputs.file_of(index)) or say("image {index}", index=index)
        for index in shown.indices.tolist()
    ]


def _field(inputs: Inputs, row: PublishedRow | None) -> dict[str, Any]:
    """Append the run to the published networks; `nearest` is the index of the one that it is compared with."""
    accuracy = inputs.test.accuracy
    points = [(known.network, known.parameters, known.test_accuracy) for known in CIFAR10_NETWORKS]
    if row and all(name != row.network for name, _, _ in points) and row.kin == "same":
        points.append((row.network, inputs.num_parameters, row.published.high))
    points.append((say("{name} (this run)", name=inputs.recipe.name), inputs.num_parameters, accuracy.value))
    names, parameters, accuracies = zip(*points, strict=True)
    return {
        "names": names,
        "parameters": parameters,
        "accuracy": accuracies,
        "nearest": names.index(row.network) if row and row.network in names else None,
        "low": accuracy.low,
        "high": accuracy.high,
    }

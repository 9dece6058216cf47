"""The plots of a report, with their titles and how to read them."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reslab.language import grouped, say, short
from reslab.measure.metrics import softmax
from reslab.recipe.recipe import Steps
from reslab.records import SplitName
from reslab.report import figures
from reslab.report.curves import series_of
from reslab.report.inputs import Inputs
from reslab.report.tables import Reliability, rate_changes, selection, split_words, splits_of
from reslab.words import counted, percent


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A plot as PNG, twice the size at which it is shown; `name` is its file's name without the ending."""

    name: str
    png: bytes = field(repr=False)  # not in the repr, or a notebook would keep it twice
    alt: str
    title: str = ""
    caption: str = ""

    def _repr_html_(self) -> str:
        """Show it in a notebook as the page does."""
        words = f"<figcaption><b>{escape(self.title)}</b> {escape(self.caption)}</figcaption>"
        image = f'<img src="{self.uri}" width="{self.width}" height="{self.height}" alt="{escape(self.alt)}">'
        return f'<figure style="display: inline-block; max-width: {self.width}px; margin: 0">{image}{words}</figure>'

    @property
    def uri(self) -> str:
        kind = "png" if self.png.startswith(b"\x89PNG") else "webp"  # for heat maps, a tenth of the size
        return f"data:image/{kind};base64," + base64.b64encode(self.png).decode()

    @property
    def width(self) -> int:
        return int.from_bytes(self.png[16:20], "big") // 2

    @property
    def height(self) -> int:
        return int.from_bytes(self.png[20:24], "big") // 2


class Pictures(tuple[Picture, ...]):
    """Several plots, which a notebook shows side by side."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return " ".join(picture._repr_html_() for picture in self)


# ---- learning curves


def learning_curves(inputs: Inputs) -> list[Picture]:
    """Draw loss and accuracy over the epochs; empty if there are no curves."""
    if not has_curves(inputs):
        return []
    losses = series_of(inputs.log, "loss")
    accuracies = series_of(inputs.log, "accuracy", scale=100)
    how = " ".join(_how_to_read(inputs))
    smoothed = say("Only the training loss contains the label smoothing.") if inputs.recipe.label_smoothing else ""
    of_loss = say("Cross-entropy in nats after each epoch; lower is better.")
    of_accuracy = say("Share of right answers after each epoch; higher is better.")
    return [
        _curve(inputs, losses, say("loss"), say("loss (nats)"), f"{of_loss} {how} {smoothed}".strip()),
        _curve(inputs, accuracies, say("accuracy"), say("accuracy (%)"), f"{of_accuracy} {how}"),
    ]


def has_curves(inputs: Inputs) -> bool:
    """Tell whether there are curves: a head that is solved directly has a single entry."""
    return len(inputs.log) > 1


def _curve(inputs: Inputs, curves: dict[str, NDArray[np.float64]], what: str, label: str, caption: str) -> Picture:
    if isinstance(inputs.recipe.schedule, Steps):
        png = figures.learning_curve(curves, label=label, marks=rate_changes(inputs.log))
    else:
        rates = np.array([epoch.learning_rate for epoch in inputs.log])
        png = figures.learning_curve(curves, label=label, rates=rates)
    alt = say(
        "Curves over {epochs}, {what}: {ends}.", what=what, epochs=counted(len(inputs.log), "epoch"), ends=_ends(curves)
    )
    name = "loss" if what == say("loss") else "accuracy"
    return Picture(name=name, png=png, alt=alt, title=f"{what.capitalize()}.", caption=caption)


def _ends(curves: Mapping[str, NDArray[np.float64]]) -> str:
    return "; ".join(
        say("{name} {first} to {last}", name=name, first=short(values[0], 3), last=short(values[-1], 3))
        for name, values in curves.items()
    )


def _how_to_read(inputs: Inputs) -> Iterator[str]:
    if isinstance(inputs.recipe.schedule, Steps):
        yield say("Numbers above the frame are learning rates; dashed lines mark where a new one begins.")
    else:
        yield say("The strip below shows the learning rate at the end of each epoch.")
    yield (
        say("The training curve is measured on augmented images while weights change: its end is not a final metric.")
        if inputs.recipe.augment
        else say("The training curve is measured while weights change: its end is not a final metric.")
    )


# ---- confusion matrices


def confusion_matrices(inputs: Inputs, *, splits: Sequence[SplitName] | None = None) -> list[Picture]:
    """Draw the confusion matrices, absolute and by row, of these splits, or of each evaluated one."""
    chosen = splits_of(inputs.evaluation) if splits is None else splits
    return [_matrix(inputs, split, by_row) for split in chosen for by_row in (False, True)]


def _matrix(inputs: Inputs, split: SplitName, by_row: bool) -> Picture:
    classes, figures_of = inputs.evaluation.classes, inputs.evaluation.splits[split]
    counts = np.array(figures_of.confusion_matrix)
    wrong = int(counts.sum() - np.trace(counts))
    num_old = inputs.evaluation.extension.num_old if inputs.evaluation.extension else 0
    kind = say("percent of each true class") if by_row else say("number of images")
    how = [say("Rows are true classes, columns predicted ones.")]
    how += [say("Each row with images sums to 100, so the diagonal is the recall of each class.")] * by_row
    how += [say("Lines divide the old classes from the new ones.")] * bool(num_old)
    how += [say("Empty cells are 0.")] * (len(classes) <= figures.NUMBERS_UP_TO)
    how += [say("The colour grows with the square root, so that rare confusions show.")]
    return Picture(
        name=f"confusion-{split}" + ("-by-row" if by_row else ""),
        png=figures.matrix(counts, classes=classes, by_row=by_row, num_old=num_old),
        alt=say(
            "Confusion matrix, {split}, {kind}: {wrong} of {total} images are off the diagonal (accuracy {accuracy}).",
            split=split_words(split),
            kind=kind,
            wrong=grouped(wrong),
            total=grouped(int(counts.sum())),
            accuracy=percent(figures_of.accuracy.value),
        )
        if wrong
        else say(
            "Confusion matrix, {split}, {kind}: all {total} images are on the diagonal.",
            split=split_words(split),
            kind=kind,
            total=grouped(int(counts.sum())),
        ),
        title=f"{split_words(split)}, {kind}.",
        caption=" ".join(how),
    )


# ---- the strength of the prior's removal


def prior_pictures(inputs: Inputs) -> list[Picture]:
    """Draw the metrics of each tau on the validation images; empty if there was nothing to choose by."""
    extension = inputs.evaluation.extension
    if extension is None or not extension.prior.curve:
        return []
    tau, curve = extension.prior.tau, extension.prior.curve
    names = {
        say("macro F1"): "macro_f1",
        say("macro precision"): "macro_precision",
        say("macro recall"): "macro_recall",
        say("accuracy"): "accuracy",
    }
    curves = {name: np.array([100 * getattr(point, figure).value for point in curve]) for name, figure in names.items()}
    band = [np.array([100 * getattr(point.macro_f1, end) for point in curve]) for end in ("low", "high")]
    png = figures.prior_curves(
        np.array([point.tau for point in curve]), curves=curves, band=(band[0], band[1]), chosen=tau
    )
    return [
        Picture(
            name="prior",
            png=png,
            alt=say(
                "Curves over tau from {first} to {last}, chosen {tau}, in percent: {ends}.",
                first=short(curve[0].tau),
                last=short(curve[-1].tau),
                tau=short(tau),
                ends=_ends(curves),
            ),
            title=say("Validation images, by tau."),
            caption=say(
                "The dashed line marks the chosen tau, {tau}; the band is the interval of macro F1. The closer tau is "
                "to 1, the more readily rare classes are predicted, which usually raises their recall and lowers "
                "their precision.",
                tau=short(tau),
            ),
        )
    ]


# ---- features


def feature_picture(inputs: Inputs, plane: NDArray[np.float64], method: str) -> Picture:
    """Draw the features of a sample of the test split in two dimensions (M, 2)."""
    features, shown = inputs.gallery.features, inputs.gallery.shown["test"]
    assert features is not None
    labels = shown.labels[shown.places(features.indices)]
    num_features = features.features.shape[1]
    return Picture(
        name="features-test",
        png=figures.scatter(plane, labels=labels, classes=inputs.evaluation.classes),
        alt=say(
            "{images} as points by {method} of their {num} features, marked by class.",
            images=counted(len(labels), "test image"),
            method=say(method),
            num=num_features,
        ),
        title=say("Test split, features in two dimensions."),
        caption=say(
            "{shown} of {images}, drawn at random and always the same; {method} of the {num} features that the network "
            "hands to its head. Neighbours are alike to the network; distances between groups, and the axes, mean "
            "nothing.",
            shown=grouped(len(labels)),
            images=counted(inputs.test.num_images, "test image"),
            method=say(method),
            num=num_features,
        ),
    )


# ---- calibration


def reliability_picture(bins: Reliability) -> Picture:
    """Draw how often predictions of each certainty are right."""
    gap = bins.accuracy - bins.certainty
    alt = (
        say(
            "Reliability diagram with {number} bins; weighted by images, accuracy is below the stated probability.",
            number=len(bins.share),
        )
        if (gap * bins.share).sum() < 0
        else say(
            "Reliability diagram with {number} bins; weighted by images, accuracy is above the stated probability.",
            number=len(bins.share),
        )
    )
    return Picture(
        name="reliability-test",
        png=figures.reliability_diagram(**bins._asdict()),
        alt=alt,
        title=say("Test split, probability against accuracy."),
        caption=say(
            "Each point is a group of images with about the same probability; on the dashed diagonal the classifier is "
            "right as often as it says, below it is overconfident. The band is the 95 % interval of the accuracy; the "
            "bars show each group's share of the images."
        ),
    )


# ---- answers that are held back


def selection_pictures(inputs: Inputs) -> list[Picture]:
    """Draw how accurate the answers are if some are held back; empty if the network has no measure of familiarity."""
    answered = inputs.test.answered
    if answered is None or inputs.familiarity is None:
        return []
    logits, labels = inputs.predictions
    right = logits.argmax(axis=1) == labels
    scores: dict[str, NDArray[np.floating[Any]]] = {
        say("least familiar held back"): inputs.familiarity,
        say("least probable held back"): softmax(logits).max(axis=1),
    }
    curves = {name: selection(each, right=right) for name, each in scores.items()}
    kept = (answered.answered.value, answered.accuracy.value) if answered.accuracy else None
    promised = percent(answered.promised, decimals=0)
    return [
        Picture(
            name="answered-test",
            png=figures.selection_curves(curves, promised=answered.promised, kept=kept),
            alt=say(
                "Curves of the accuracy over the share of test images that are answered; {promised} were promised and "
                "{answered} are answered.",
                promised=promised,
                answered=percent(answered.answered.value),
            ),
            title=say("Test split, accuracy of what is answered."),
            caption=say(
                "Further left, more pictures are held back: those unlike the training images, or those with a low "
                "probability. The dashed line marks the promised share, {promised}; the dot is the actual result. "
                "Bands are 95 % intervals. Test images contain no unknown classes: those held back here are rare views "
                "of known classes.",
                promised=promised,
            ),
        )
    ]

"""The figures of a report: which there are, what they are called, and how each is to be read."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import NDArray

from reslab.measure.metrics import softmax
from reslab.recipe.recipe import Steps
from reslab.records import SplitName
from reslab.report import figures
from reslab.report.inputs import Inputs
from reslab.report.tables import SPLIT_WORDS, Reliability, rate_changes, selection, splits_of
from reslab.words import counted, percent


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure as PNG, twice the size at which it is shown; `name` is its file's name without the ending."""

    name: str
    png: bytes = field(repr=False)  # or a notebook would keep it twice
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
        return "data:image/png;base64," + base64.b64encode(self.png).decode()

    @property
    def width(self) -> int:
        return int.from_bytes(self.png[16:20], "big") // 2

    @property
    def height(self) -> int:
        return int.from_bytes(self.png[20:24], "big") // 2


class Pictures(tuple[Picture, ...]):
    """Several figures, which a notebook shows one beside the other."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return " ".join(picture._repr_html_() for picture in self)


# ---- learning curves


def learning_curves(inputs: Inputs) -> list[Picture]:
    """Draw loss and accuracy over the epochs; none where nothing was logged."""
    if not inputs.log:
        return []
    losses = _series(inputs, "loss", scale=1)
    accuracies = _series(inputs, "accuracy", scale=100)
    how = " ".join(_how_to_read(inputs))
    smoothed = " Only the training loss contains the label smoothing." if inputs.recipe.label_smoothing else ""
    return [
        _curve(inputs, losses, "loss", f"Cross-entropy in nats after each epoch; lower is better. {how}{smoothed}"),
        _curve(inputs, accuracies, "accuracy", f"Share of right answers after each epoch; higher is better. {how}"),
    ]


def _series(inputs: Inputs, figure: str, *, scale: float) -> dict[str, NDArray[np.float64]]:
    """Collect a figure's values of each epoch; NaN where an epoch has none."""
    found = {}
    for split, name in (("train", "training"), ("validation", "validation")):
        values = [getattr(epoch, f"{split}_{figure}") for epoch in inputs.log]
        if any(value is not None for value in values):
            found[name] = scale * np.array(values, np.float64)
    return found


def _curve(inputs: Inputs, curves: dict[str, NDArray[np.float64]], what: str, caption: str) -> Picture:
    label = {"loss": "loss (nats)", "accuracy": "accuracy (%)"}[what]
    if isinstance(inputs.recipe.schedule, Steps):
        png = figures.learning_curve(curves, label=label, marks=rate_changes(inputs.log))
    else:
        rates = np.array([epoch.learning_rate for epoch in inputs.log])
        png = figures.learning_curve(curves, label=label, rates=rates)
    ends = "; ".join(f"{name} {values[0]:.3g} to {values[-1]:.3g}" for name, values in curves.items())
    alt = f"Curves of the {what} over {counted(len(inputs.log), 'epoch')}: {ends}."
    return Picture(name=what, png=png, alt=alt, title=f"{what.capitalize()}.", caption=caption)


def _how_to_read(inputs: Inputs) -> Iterator[str]:
    if isinstance(inputs.recipe.schedule, Steps):
        yield "Numbers above the frame are learning rates; dashed verticals mark where a new one begins."
    else:
        yield "The strip below shows the learning rate at the end of each epoch."
    augmented = "augmented images " if inputs.recipe.augment else ""
    yield f"The training curve is measured on {augmented}while the weights change: its end is no final metric."


# ---- confusion matrices


def confusion_matrices(inputs: Inputs) -> list[Picture]:
    """Draw for each evaluated split its confusion matrix, absolute and by row."""
    return [_matrix(inputs, split, by_row) for split in splits_of(inputs.evaluation) for by_row in (False, True)]


def _matrix(inputs: Inputs, split: SplitName, by_row: bool) -> Picture:
    classes, figures_of = inputs.evaluation.classes, inputs.evaluation.splits[split]
    counts = np.array(figures_of.confusion_matrix)
    wrong = int(counts.sum() - np.trace(counts))
    kind = "percent of each true class" if by_row else "number of images"
    unit = " Each row sums to 100, so the diagonal is the recall of each class." if by_row else ""
    blank = " Empty cells are 0." if len(classes) <= figures.NUMBERS_UP_TO else ""
    return Picture(
        name=f"confusion-{split}" + ("-by-row" if by_row else ""),
        png=figures.matrix(counts, classes=classes, by_row=by_row),
        alt=f"Confusion matrix of the {SPLIT_WORDS[split].lower()} split, {kind}: {wrong:,} of {counts.sum():,} images "
        f"are off the diagonal (accuracy {percent(figures_of.accuracy.value)}).",
        title=f"{SPLIT_WORDS[split]} split, {kind}.",
        caption=f"Rows are true classes, columns predicted ones.{unit}{blank} "
        "The colour grows with the square root, so that rare confusions show.",
    )


# ---- the strength of the prior's removal


def prior_pictures(inputs: Inputs) -> list[Picture]:
    """Draw what each tau gives on the validation images; none where there was nothing to choose by."""
    extension = inputs.evaluation.extension
    if extension is None or not extension.prior.curve:
        return []
    tau, curve = extension.prior.tau, extension.prior.curve
    names = {"macro F1": "macro_f1", "macro precision": "macro_precision", "macro recall": "macro_recall"}
    names["accuracy"] = "accuracy"
    curves = {name: np.array([100 * getattr(point, figure).value for point in curve]) for name, figure in names.items()}
    band = [np.array([100 * getattr(point.macro_f1, end) for point in curve]) for end in ("low", "high")]
    png = figures.prior_curves(
        np.array([point.tau for point in curve]), curves=curves, band=(band[0], band[1]), chosen=tau
    )
    ends = "; ".join(f"{name} {values[0]:.3g} to {values[-1]:.3g} %" for name, values in curves.items())
    return [
        Picture(
            name="prior",
            png=png,
            alt=f"Curves over tau from {curve[0].tau:g} to {curve[-1].tau:g}, chosen {tau:g}: {ends}.",
            title="Validation images, by tau.",
            caption=f"The dashed vertical marks the chosen tau, {tau:g}, that of the best macro F1; the band is the "
            "interval of macro F1. The nearer tau is to 1, the more readily rare classes are named, which as a rule "
            "raises their recall and lowers their precision.",
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
        alt=f"{len(labels):,} test images as points by {method} of their {num_features} features, marked by class.",
        title="Test split, features in two dimensions.",
        caption=f"{len(labels):,} of {inputs.test.num_images:,} test images, drawn at random and always the same; "
        f"{method} of the {num_features} features that the network hands to its head. Neighbours are alike to the "
        "network; distances between groups, and the axes, mean nothing.",
    )


# ---- calibration


def reliability_picture(bins: Reliability) -> Picture:
    """Draw how often predictions of each certainty are right."""
    gap = bins.accuracy - bins.certainty
    side = "below" if (gap * bins.share).sum() < 0 else "above"
    return Picture(
        name="reliability-test",
        png=figures.reliability_diagram(**bins._asdict()),
        alt=f"Reliability diagram of the test split with {len(bins.share)} bins; weighted by images, the accuracy is "
        f"{side} the stated probability.",
        title="Test split, probability against accuracy.",
        caption="Each point gathers images to which the classifier gave about the same probability; on the "
        "dashed diagonal it is right as often as it says, below it is too sure of itself. The band is the 95 % "
        "interval of the accuracy; the bars show which share of the images each point stands for.",
    )


# ---- answers that are held back


def selection_pictures(inputs: Inputs) -> list[Picture]:
    """Draw how accurate the answers are where some are held back; none where the network knows no strange picture."""
    answered = inputs.test.answered
    if answered is None or inputs.familiarity is None:
        return []
    logits, labels = inputs.predictions
    right = logits.argmax(axis=1) == labels
    scores = {
        "least familiar held back": inputs.familiarity,
        "least probable held back": softmax(logits).max(axis=1),
    }
    curves = {name: selection(each, right=right) for name, each in scores.items()}
    kept = (answered.answered.value, answered.accuracy.value) if answered.accuracy else None
    promised = percent(answered.promised, decimals=0)
    return [
        Picture(
            name="answered-test",
            png=figures.selection_curves(curves, promised=answered.promised, kept=kept),
            alt=f"Curves of the accuracy over the share of test images that are answered; {promised} were promised and "
            f"{percent(answered.answered.value)} are answered.",
            title="Test split, accuracy of what is answered.",
            caption="Towards the left more is held back: pictures unlike the training images, or pictures with a low "
            f"probability. The dashed vertical is the share that was promised, {promised}; the dot is what became of "
            "it. Bands are 95 % intervals. Test images hold no strangers: what is held back here are rare views of "
            "known classes.",
        )
    ]

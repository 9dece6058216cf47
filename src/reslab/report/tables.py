"""Every table of the report, as rows without markup.

Axes: N images, K classes, B bins.
"""

from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reslab.language import decimal, grouped, say
from reslab.measure.intervals import proportion_interval
from reslab.measure.metrics import bins_of, softmax
from reslab.recipe.published import CIFAR10_NETWORKS
from reslab.records import (
    SPLITS,
    AnsweredFigures,
    Candidates,
    ClassFigures,
    Epoch,
    Estimate,
    Evaluation,
    Figures,
    SetFigures,
    SplitFigures,
    SplitName,
    WithoutCopies,
    WithoutSeries,
)
from reslab.report.facts import device_words, training_seconds
from reslab.report.inputs import Inputs
from reslab.runs import Predictions
from reslab.words import (
    NBSP,
    counted,
    duration,
    errors_among,
    figure_alone,
    interval,
    less_copies,
    less_images,
    markdown,
    percent,
    percent_of_whole,
    quantity,
)


def split_words(split: SplitName) -> str:
    """Name a split."""
    return {"train": say("Training split"), "validation": say("Validation split"), "test": say("Test split")}[split]


class Cell(NamedTuple):
    """A cell's text, its interval in small print, and the number it is sorted by if the text is not one."""

    text: str
    aside: str = ""
    order: float | None = None

    @property
    def line(self) -> str:
        """Text and interval on one line."""
        return f"{self.text} {self.aside}".rstrip()


class Table(NamedTuple):
    """Rows under a header; the first `num_text_columns` hold words, the others numbers."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    num_text_columns: int = 1
    highlight: int | None = None

    def _repr_html_(self) -> str:
        """Show it in a notebook."""
        head = "".join(f"<th>{escape(title)}</th>" for title in self.header)
        rows = ("".join(f"<td>{escape(f'{cell.text} {cell.aside}')}</td>" for cell in row) for row in self.rows)
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def markdown_table(table: Table) -> Iterator[str]:
    """Write a table in Markdown, line by line."""
    num_text = table.num_text_columns
    yield _markdown_row(table.header)
    yield "|" + "|".join("---" if place < num_text else "---:" for place in range(len(table.header))) + "|"
    for row in table.rows:
        yield _markdown_row([cell.line for cell in row])


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(markdown, cells)) + " |"


def in_percent(estimate: Estimate) -> Cell:
    """Show a fraction with its interval in percent."""
    return Cell(figure_alone(estimate), interval(estimate.low, estimate.high))


def share_in_percent(estimate: Estimate, *, among: int) -> Cell:
    """Show a fraction as `in_percent` does; among no images at all, a dash, which sorts last."""
    return in_percent(estimate) if among else Cell("–", order=-1)


def in_nats(estimate: Estimate) -> Cell:
    """Show a log loss with its interval."""
    return Cell(figure_alone(estimate, unit="plain"), interval(estimate.low, estimate.high, unit="plain"))


# ---- candidates of a fit


def candidate_table(candidates: Candidates) -> Table:
    """List what `fit` tried and left out; the chosen candidate is highlighted."""
    rows = tuple(
        (
            Cell(each.words),
            in_percent(each.accuracy) if each.accuracy else Cell("–"),
            Cell(each.judged_on if each.accuracy else "–"),
            Cell("–" if each.log_loss is None else decimal(each.log_loss, 3)),
            Cell(say("chosen") if each.chosen else each.why_left_out),
        )
        for each in candidates.candidates
    )
    chosen = next(place for place, each in enumerate(candidates.candidates) if each.chosen)
    header = (say("Network and head"), say("Accuracy"), say("Judged"), say("Log loss (nats)"), "")
    return Table(header, rows, highlight=chosen)


# ---- metrics of the splits

_METRICS: tuple[tuple[str, str, Callable[[Estimate], Cell]], ...] = (
    ("Accuracy", "accuracy", in_percent),
    ("Top-5 accuracy", "top5_accuracy", in_percent),
    ("Balanced accuracy", "balanced_accuracy", in_percent),
    ("Macro precision", "macro_precision", in_percent),
    ("Macro recall", "macro_recall", in_percent),
    ("Macro F1", "macro_f1", in_percent),
    ("Log loss (nats)", "log_loss", in_nats),
    ("Log loss, uncalibrated (nats)", "log_loss_uncalibrated", in_nats),
    ("Expected calibration error", "expected_calibration_error", in_percent),
    ("The same, uncalibrated", "expected_calibration_error_uncalibrated", in_percent),
)


def has_interval(metric: str, figures: Figures) -> bool:
    """Return whether a metric's interval says something.

    Without an error, that of an uncalibrated metric is the price of an unseen error, and its confidence is arbitrary.
    """
    return num_wrong(figures) > 0 or not metric.endswith("_uncalibrated")


def metric_rows(columns: Sequence[Figures]) -> Iterator[tuple[str, str, list[Cell]]]:
    """Yield the field, the label and the cells of each metric that all columns have."""
    for label, name, show in _METRICS:
        estimates = [getattr(figures, name) for figures in columns]
        if None not in estimates:
            cells = zip(map(show, estimates), columns, strict=True)
            yield name, say(label), [cell if has_interval(name, of) else Cell(cell.text) for cell, of in cells]


def splits_of(evaluation: Evaluation) -> tuple[SplitName, ...]:
    """Name the evaluated splits, the test split first."""
    return tuple(name for name in reversed(SPLITS) if name in evaluation.splits)


def metric_table(evaluation: Evaluation) -> Table:
    """List the metrics of each split; test-time augmentation is next to the split without it."""
    columns: list[tuple[str, Figures]] = []
    for name in splits_of(evaluation):
        split = evaluation.splits[name]
        columns.append((f"{split_words(name)}, {counted(split.num_images, 'image')}", split))
        if split.test_time_augmentation is not None:
            augmented = split.test_time_augmentation
            columns.append(
                (f"{split_words(name)}, {say('mean of {number} views', number=augmented.views)}", augmented.figures)
            )
    rows = [(Cell(label), *cells) for _, label, cells in metric_rows([figures for _, figures in columns])]
    wrong = (Cell(errors_among(num_wrong(figures), figures.num_images)) for _, figures in columns)
    rows.insert(1, (Cell(say("Errors")), *wrong))
    series = [figures.without_series if isinstance(figures, SplitFigures) else None for _, figures in columns]
    if any(series):
        label = say("Accuracy without images taken within seconds of a training image")
        rows.insert(2, (Cell(label), *map(_without_series, series)))
    copies = [figures.without_copies if isinstance(figures, SplitFigures) else None for _, figures in columns]
    if any(copies):
        rows.insert(2, (Cell(say("Accuracy without copies of training images")), *map(_without_copies, copies)))
    return Table(("", *(header for header, _ in columns)), tuple(rows))


def _without_copies(copies: WithoutCopies | None) -> Cell:
    return Cell("") if copies is None else _without(copies.accuracy, left_out=less_copies(copies.num_copies))


def _without_series(series: WithoutSeries | None) -> Cell:
    return Cell("") if series is None else _without(series.accuracy, left_out=less_images(series.num_in_series))


def _without(accuracy: Estimate | None, *, left_out: str) -> Cell:
    if accuracy is None:
        return Cell(say("none is left"))
    shown = in_percent(accuracy)
    return shown._replace(aside=f"{shown.aside} {left_out}".strip())


def num_wrong(figures: Figures) -> int:
    """Count the images that were classified wrongly."""
    return figures.num_images - int(np.trace(figures.confusion_matrix))


def class_table(figures: Figures, *, classes: Sequence[str]) -> Table:
    """List the metrics of each class of one split, numbered from 1 as in the matrices."""
    columns = zip(classes, figures.per_class, count_called(figures), strict=True)
    rows = tuple(
        (Cell(str(number)), Cell(name), *class_cells(row, called=called), Cell(grouped(row.support)))
        for number, (name, row, called) in enumerate(columns, 1)
    )
    header = (say("No."), say("Class"), say("Precision"), say("Recall"), say("F1"), say("Images"))
    return Table(header, rows, num_text_columns=2)


def count_called(figures: Figures) -> list[int]:
    """Count the images that were classified as each class."""
    called: list[int] = np.sum(figures.confusion_matrix, axis=0).tolist()
    return called


def class_cells(figures: ClassFigures, *, called: int) -> tuple[Cell, Cell, Cell]:
    """Show precision, recall and F1 of a class; `called` images were classified as this class."""
    return (
        share_in_percent(figures.precision, among=called),
        share_in_percent(figures.recall, among=figures.support),
        share_in_percent(figures.f1, among=figures.support),
    )


# ---- promises


TOLERATED = 0.05  # of a promised share; a promise is called kept only if its interval excludes a larger shortfall
_OF_THESE = f"{NBSP}{NBSP}"  # in front of what belongs to the promise above


def promise_table(evaluation: Evaluation) -> Table | None:
    """List what was promised and whether test images kept it, each with its details below; None without a promise."""
    test = evaluation.splits.get("test")
    if test is None or not (test.answered or test.class_sets):
        return None
    rows = [] if test.answered is None else _answered_rows(test.answered)
    for each in test.class_sets:
        words = say("{share} of the sets contain the true class", share=_share(each.promised))
        rows.append(_promise(words, each.promised, found=each.covered, least=each.least))
        rows.append((Cell(_OF_THESE + say("classes in a set, on average")), _sizes(each), Cell("")))
    return Table((say("Promised"), say("On test images"), say("Verdict")), tuple(rows), num_text_columns=3)


def _answered_rows(answered: AnsweredFigures) -> list[tuple[Cell, ...]]:
    accuracies = (
        (say("accuracy of the answers"), answered.accuracy),
        (say("accuracy on the others"), answered.accuracy_of_others),
    )
    words = say("{share} of the pictures are answered", share=_share(answered.promised))
    return [
        _promise(words, answered.promised, found=answered.answered, least=answered.least),
        *((Cell(_OF_THESE + name), in_percent(found), Cell("")) for name, found in accuracies if found),
    ]


def _promise(words: str, promised: float, *, found: Estimate, least: float | None) -> tuple[Cell, ...]:
    return Cell(words), in_percent(found), Cell(_verdict_on(promised, found, least=least))


def _sizes(found: SetFigures) -> Cell:
    single = percent_of_whole(found.single, decimals=1)
    one = say("(each holds one)") if found.single == 1 else say("({share} hold one)", share=single)
    return Cell(decimal(found.size, 2), one)


def is_broken(promised: float, *, found: Estimate, least: float | None) -> bool:
    """Return whether a promise is not kept; without the `least` share (older evaluations) its interval decides."""
    return found.high < promised and (least is None or found.value < least)


def _verdict_on(promised: float, found: Estimate, *, least: float | None) -> str:
    """Judge a promise: a few images neither keep nor break one, whatever share of them is measured."""
    if is_broken(promised, found=found, least=least):
        return say("not kept")
    is_kept = found.value >= promised and found.low >= promised - TOLERATED
    return say("kept") if is_kept else say("undecided")


def coverage_table(evaluation: Evaluation) -> Table | None:
    """List the share of sets that contain the true class, by class; the promise is about all classes together."""
    test = evaluation.splits["test"]
    if not (sets := test.class_sets):
        return None
    header = (say("Class"), *(say("{share} promised", share=_share(each.promised)) for each in sets))
    columns = zip(evaluation.classes, test.per_class, *(each.per_class for each in sets), strict=True)
    rows = (
        (Cell(name), *(share_in_percent(each, among=figures.support) for each in row))
        for name, figures, *row in columns
    )
    return Table(header, tuple(rows))


def _share(promised: float) -> str:
    return percent(promised, decimals=0)


# ---- what was used


def data_table(inputs: Inputs) -> Table:
    """List every split that the run has used."""
    rows = tuple(
        (
            Cell(data.expression),
            Cell(split_words(data.split)),
            Cell(data.fingerprint),
            Cell(grouped(data.num_images), _less_damaged(data.num_damaged)),
        )
        for data in inputs.environment.data
    )
    header = (say("Data"), say("Split"), say("Fingerprint (SHA-256)"), say("Images"))
    return Table(header, rows, num_text_columns=3)


def _less_damaged(num: int) -> str:
    return f"({say('{pictures} left out', pictures=counted(num, 'unreadable picture'))})" if num else ""


def rate_changes(log: Sequence[Epoch]) -> list[tuple[int, float]]:
    """List after how many epochs the learning rate changes, and to what; the first entry is the rate at the start."""
    changes: list[tuple[int, float]] = []
    for epoch in log:
        if not changes or not np.isclose(epoch.learning_rate, changes[-1][1], rtol=1e-6, atol=0):
            changes.append((epoch.epoch - 1, epoch.learning_rate))
    return changes


# ---- mistakes


class ConfusedPair(NamedTuple):
    """Two classes by number, how many images of the first were taken for the second, and their share of its images."""

    true: int
    predicted: int
    num_images: int
    share: float


def confused_pairs(matrix: NDArray[np.int64], *, most: int, num_old: int = 0) -> list[ConfusedPair]:
    """Find the largest cells off the diagonal of a confusion matrix (K, K), the largest first.

    Those among the first `num_old` classes are left out.
    """
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    wrong[:num_old, :num_old] = 0
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    cells = [divmod(int(place), len(matrix)) for place in order]
    return [ConfusedPair(i, j, int(wrong[i, j]), wrong[i, j] / matrix[i].sum()) for i, j in cells if wrong[i, j]]


# ---- calibration


class Reliability(NamedTuple):
    """For each bin of certainty that holds images, each (B,): mean probability, accuracy with its interval, and share.

    The share is of the images.
    """

    certainty: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    share: NDArray[np.float64]


def reliability(predictions: Predictions) -> Reliability:
    """Compare each bin's mean probability of the predicted class with how often that class is right."""
    certainty = softmax(predictions.logits).max(axis=1)
    correct = predictions.logits.argmax(axis=1) == predictions.labels
    bins = bins_of(certainty)
    count = np.bincount(bins)
    used = count > 0
    sure, right = (np.bincount(bins, values)[used] for values in (certainty, correct))
    low, high = proportion_interval(right, total=count[used])
    return Reliability(sure / count[used], right / count[used], low, high, count[used] / len(certainty))


# ---- answers that are held back


class Selection(NamedTuple):
    """The accuracy of the images that are answered, with its interval, over their share: each (P,), ascending."""

    share: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


MOST_POINTS = 200  # of a curve
FEWEST_ANSWERED = 0.05  # the share that a curve begins with: with fewer images it is noise


def selection(scores: NDArray[np.floating[Any]], *, right: NDArray[np.bool_]) -> Selection:
    """Answer only the images (N,) with the highest scores, first a few and then more, equal scores together."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True)) + 1
    ends = ends[ends >= FEWEST_ANSWERED * len(scores)]
    ends = ends[np.unique(np.linspace(0, len(ends) - 1, MOST_POINTS).round().astype(np.int64))]
    hits = np.cumsum(right[order])[ends - 1]
    return Selection(ends / len(scores), hits / ends, *proportion_interval(hits, total=ends))


# ---- published networks


def field_table(inputs: Inputs) -> Table:
    """Place the run among the published networks, the most accurate first; those exist for CIFAR-10 only."""
    ours = _field_row(inputs.recipe.name, inputs.num_parameters, (inputs.recipe.batch_size, len(inputs.log)))
    ours += (_time(training_seconds(inputs)), Cell(device_words(inputs.environment)))
    if inputs.recipe.imported is not None:  # trained elsewhere: only its size is known
        ours = (*ours[:2], *[Cell("–", order=0)] * len(ours[2:]))
    ours += (in_percent(inputs.test.accuracy),)
    rows = [(inputs.test.accuracy.value, ours)]
    for known in CIFAR10_NETWORKS if inputs.recipe.data == "cifar10" else ():
        row = _field_row(known.network, known.parameters, (known.batch_size, known.epochs))
        row += (_time(60 * known.training_minutes), Cell(known.device), Cell(percent(known.test_accuracy)))
        rows.append((known.test_accuracy, row))
    rows.sort(key=lambda row: -row[0])
    place = next(number for number, (_, row) in enumerate(rows) if row is ours)
    header = ("Network", "Parameters", "Batch", "Epochs", "Training time", "On", "Test accuracy")
    return Table(tuple(map(say, header)), tuple(row for _, row in rows), highlight=place)


def _field_row(name: str, num_parameters: int, batch_and_epochs: tuple[int, int]) -> tuple[Cell, ...]:
    numbers = (Cell(grouped(number)) for number in batch_and_epochs)
    return (Cell(name), Cell(quantity(num_parameters), order=num_parameters), *numbers)


def _time(seconds: float) -> Cell:
    return Cell(duration(seconds), order=seconds)

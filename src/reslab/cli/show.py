"""Tables and numbers on the terminal; JSON on request."""

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from reslab.text import printable

if TYPE_CHECKING:
    from reslab.comparison import Pair
    from reslab.records import Estimate, Evaluation, ExtensionFigures, Figures, NewClass

WIDTH_IN_A_FILE = 10_000  # a program that reads lines gets whole ones

METRICS = {
    "accuracy": "accuracy, %",
    "balanced_accuracy": "balanced accuracy, %",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "macro_f1": "macro F1",
    "top5_accuracy": "top-5 accuracy, %",
    "log_loss": "log loss, nats",
    "expected_calibration_error": "expected calibration error",
}
IN_PERCENT = ("accuracy", "balanced_accuracy", "top5_accuracy")


def print_json(content: Any) -> None:
    """Print JSON that a program can read."""
    print(json.dumps(content, indent=1))  # in ASCII


def echo(line: str, *, err: bool = False) -> None:
    """Print a line; names in it may hold anything."""
    print(printable(line), file=sys.stderr if err else sys.stdout, flush=True)


def to_plain(content: Any) -> Any:
    """Turn dataclasses and records, inside each other, into what JSON can hold."""
    if hasattr(content, "model_dump"):
        return content.model_dump(mode="json")
    if dataclasses.is_dataclass(content) and not isinstance(content, type):
        return {field.name: to_plain(getattr(content, field.name)) for field in dataclasses.fields(content)}
    if isinstance(content, list | tuple):
        return [to_plain(part) for part in content]
    return content


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; the first column is text, the others are numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDTH_IN_A_FILE
    console.print(printable(title), style="bold", soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD)
    for place, column in enumerate(columns):
        table.add_column(printable(column), justify="left" if place == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))
    console.print(table)


def in_percent(estimate: "Estimate") -> str:
    """Write an accuracy with its interval, in percent."""
    return f"{100 * estimate.value:.2f} ({100 * estimate.low:.2f}–{100 * estimate.high:.2f})"


def as_number(estimate: "Estimate") -> str:
    """Write a figure with its interval."""
    return f"{estimate.value:.4f} ({estimate.low:.4f}–{estimate.high:.4f})"


def print_evaluation(evaluation: "Evaluation") -> None:
    """Print the figures of every split, those with test-time augmentation beside those without."""
    columns: dict[str, Figures] = {}
    for split, figures in evaluation.splits.items():
        columns[f"{split} ({figures.num_images:,} images)"] = figures
        if figures.test_time_augmentation is not None:
            several = figures.test_time_augmentation
            columns[f"{split}, mean of {several.views} views"] = several.figures
    rows: list[list[str]] = []
    for name, label in METRICS.items():
        estimates = [getattr(figures, name) for figures in columns.values()]
        if estimates[0] is not None:
            rows.append([label, *map(in_percent if name in IN_PERCENT else as_number, estimates)])
    print_table(f"{evaluation.recipe}, with {evaluation.confidence:.0%} intervals", ["", *columns], rows)
    if evaluation.extension is not None:
        _print_extension(evaluation.extension, evaluation.classes)


def _print_extension(extension: "ExtensionFigures", classes: Sequence[str]) -> None:
    """Print what happened to the old classes, and how well the new ones are known."""
    change = extension.old_change
    ends = f"{100 * change.low:+.2f} to {100 * change.high:+.2f}"
    old = [
        *(
            [name, in_percent(each.before), in_percent(each.after)]
            for name, each in zip(classes, extension.old_classes, strict=False)
        ),
        ["all old classes", in_percent(extension.old_before), in_percent(extension.old_after)],
    ]
    print_table(
        f"Old classes, changed by {100 * change.value:+.2f} points ({ends})", ["", "before, %", "after, %"], old
    )
    new = [
        [
            name,
            *map(as_number, (each.figures.precision, each.figures.recall, each.figures.f1)),
            in_percent(each.taken_for_old),
            _errors(each),
        ]
        for name, each in zip(classes[extension.num_old :], extension.new_classes, strict=True)
    ]
    print_table(
        f"New classes, macro F1 {as_number(extension.new_macro_f1)}, by {extension.method} with tau "
        f"{extension.prior.tau:g}",
        ["", "precision", "recall", "F1", "taken for old, %", "most often taken for"],
        new,
    )


def _errors(each: "NewClass") -> str:
    return ", ".join(f"{error.mistaken_for} {error.share.value:.1%}" for error in each.errors) or "none"


def duration(seconds: float) -> str:
    """Write a time in the unit that suits it."""
    if seconds >= 120:
        return f"{seconds / 60:.1f} minutes"
    return "1 second" if round(seconds) == 1 else f"{seconds:.0f} seconds"


def describe_pair(pair: "Pair") -> str:
    """Say in one sentence what McNemar's test found of two runs."""
    if pair.mcnemar is None:
        return f"{pair.first} and {pair.second} cannot be compared: {pair.reason}"
    test = pair.mcnemar
    words = (
        f"{pair.first} against {pair.second}: {test.only_first} images only the first has right, "
        f"{test.only_second} only the second; McNemar's p = {test.p_value:.3g}"
    )
    return words if pair.macro_f1_difference is None else f"{words}; macro F1 {_difference(pair.macro_f1_difference)}"


def _difference(estimate: "Estimate") -> str:
    return f"{estimate.value:+.4f} ({estimate.low:+.4f} to {estimate.high:+.4f})"

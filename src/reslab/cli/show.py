"""Tables and numbers on the terminal; JSON on request."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reslab.comparison import Pair
    from reslab.records import Estimate, Evaluation, Figures

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
    print(json.dumps(content, indent=1))


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
    console.print(title, style="bold", soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
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


def duration(seconds: float) -> str:
    """Write a time in the unit that suits it."""
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.1f} minutes"


def describe_pair(pair: "Pair") -> str:
    """Say in one sentence what McNemar's test found of two runs."""
    if pair.mcnemar is None:
        return f"{pair.first} and {pair.second} cannot be compared: {pair.reason}"
    test = pair.mcnemar
    return (
        f"{pair.first} against {pair.second}: {test.only_first} images only the first has right, "
        f"{test.only_second} only the second; McNemar's p = {test.p_value:.3g}"
    )

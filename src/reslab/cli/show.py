"""Tables and numbers on the terminal; JSON on request."""

import dataclasses
import json
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer

from reslab.errors import in_shell
from reslab.words import NBSP, printable

if TYPE_CHECKING:
    from rich.console import Console

    from reslab.records import Evaluation, ExtensionFigures, Figures, NewClass, OtherData, WithoutCopies, WithoutSeries
    from reslab.report.comparison import Pair
    from reslab.runs import Run

WIDTH_IN_A_FILE = 10_000  # piped output is not wrapped, unless COLUMNS sets a width
GAP = 2  # blanks between columns
NARROWEST_TEXT = 24  # cells
EMPTY = ("", "-")
HARD_BLANK = "\ue000"  # stands for a no-break space, at which rich would break lines
BREAK = re.compile(r"(?<!\d)\s+|\s+(?=[(\d])")  # never between a number and its unit
NUMBER = re.compile(r"-?$|[-+−]?[\d.]")  # matches the start of a numeric cell


def print_json(content: Any) -> None:
    """Print JSON that a program can read."""
    print(json.dumps(content, indent=1))  # in ASCII


def echo(line: str, *, err: bool = False) -> None:
    """Print a line, with control characters escaped."""
    print(printable(line), file=sys.stderr if err else sys.stdout, flush=True)


def echo_sentences(text: str, *, indent: int = 0) -> None:
    """Print a paragraph, on a terminal wrapped between words; further lines begin with `indent` blanks."""
    width, later = _console().width, " " * indent
    for line in textwrap.wrap(text, width, subsequent_indent=later, break_long_words=False, break_on_hyphens=False):
        echo(line)


def _console() -> "Console":
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if not (console.is_terminal or os.environ.get("COLUMNS", "").lstrip("0").isdigit()):
        console.width = WIDTH_IN_A_FILE
    return console


def to_plain(content: Any) -> Any:
    """Convert nested dataclasses and records to values that JSON can hold."""
    if hasattr(content, "model_dump"):
        return content.model_dump(mode="json")
    if dataclasses.is_dataclass(content) and not isinstance(content, type):
        return {field.name: to_plain(getattr(content, field.name)) for field in dataclasses.fields(content)}
    if isinstance(content, list | tuple):
        return [to_plain(part) for part in content]
    return content


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; numeric columns are right-aligned, and empty columns are left out.

    Words and numbers are never broken. If the terminal is too narrow for a last column of text, that column becomes a
    table of its own below; if it is too narrow even for the words and numbers, each row becomes a block of lines.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table

    console = _console()
    whole = [[printable(cell.replace(NBSP, HARD_BLANK)) for cell in row] for row in rows]
    kept = [place for place in range(len(columns)) if not whole or any(row[place] not in EMPTY for row in whole)]
    header, *body = [[row[place] for place in kept] for row in ([printable(name) for name in columns], *whole)]
    widths, fewest = [], []
    for place, cells in enumerate(zip(header, *body, strict=True)):
        # Row names stay on one line.
        words = cells if place == 0 else [word for cell in cells for word in BREAK.split(cell)]
        widths.append(max(map(cell_len, cells)))
        fewest.append(max(map(cell_len, words), default=0))
    room = console.width - GAP * (len(widths) - 1)
    numbers = [place > 0 and all(NUMBER.match(row[place]) for row in body) for place in range(len(header))]
    found = narrow(widths, fewest, room=room)
    if len(header) > 2 and not numbers[-1] and found[-1] < min(widths[-1], NARROWEST_TEXT):
        print_table(title, header[:-1], [row[:-1] for row in body])
        print_table("", [header[0], header[-1]], [[row[0], row[-1]] for row in body])
        return
    if title:
        console.print(printable(title), style="bold", soft_wrap=True)
    if sum(fewest) <= room:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
        for name, is_number, width in zip(header, numbers, found, strict=True):
            table.add_column(name, justify="right" if is_number else "left", width=width, overflow="fold")
        for row in body:
            table.add_row(*row)
        with console.capture() as printed:
            console.print(table)
        print(printed.get().replace(HARD_BLANK, " "))
        return
    for first, *others in body:
        print(first.replace(HARD_BLANK, " "))
        for name, cell in zip(header[1:], others, strict=True):
            if cell not in EMPTY:
                print(f"  {name}: {cell}".replace(HARD_BLANK, " "))


def narrow(widths: Sequence[int], fewest: Sequence[int], *, room: int) -> list[int]:
    """Shrink the widths of columns until they fit into `room`, first the column that can shrink most."""
    found, excess = list(widths), sum(widths) - room
    for place in sorted(range(len(found)), key=lambda place: fewest[place] - widths[place]):
        taken = max(0, min(widths[place] - fewest[place], excess))
        found[place] -= taken
        excess -= taken
    return found


def print_finished(run: "Run", *, how: str, was_finished: bool) -> None:
    """Print how long a run took and the next command; `how` is a participle such as Trained."""
    from reslab.words import duration

    if was_finished:
        echo(f"Already finished; next: {next_command(run)}")
    else:
        taken = duration(sum(epoch.seconds for epoch in run.log))
        echo(f"{how} in {taken}; next: reslab evaluate {in_shell(run.path)}")


def next_command(run: "Run") -> str:
    """Return the command that follows for a finished run."""
    if run.is_evaluated and run.recipe.trial:
        return "reslab compare RUN RUN …"
    is_tested = run.is_evaluated and "test" in run.evaluation.splits
    return f"reslab {'report' if is_tested else 'evaluate'} {in_shell(run.path)}"


def print_elsewhere(found: "OtherData") -> None:
    """Print a network's metrics on other data, and how the accuracy differs from that on its own test split."""
    from reslab.report.tables import metric_rows
    from reslab.words import counted, figure, listing

    figures, which = found.figures, "all pictures" if found.is_whole else "test split"
    print_table(
        f"{found.recipe} on {found.data.expression} ({which}, {figures.num_images:,} images), with 95 % intervals",
        ["", "value"],
        [[_uncapitalized(label), cell.line] for _, label, (cell,) in metric_rows([figures])],
    )
    if num := found.data.num_damaged:
        echo_sentences(f"{counted(num, 'unreadable picture')} left out")
    if found.num_learned:
        of = f"{found.num_learned:,} of the {figures.num_images:,} images"
        echo_sentences(f"{of} are those that the network was made from, so these figures are too good")
    if found.absent:
        echo_sentences(f"No images of {counted(len(found.absent), 'class')}: {listing(list(found.absent))}")
    if found.own is None or found.change is None:
        echo_sentences("Not compared: the run's own test split has not been evaluated on these classes")
        return
    how = f"paired, {found.num_paired:,} images" if found.num_paired else "not paired"
    of = ", these classes" if found.absent else ""
    chance = ", which may be chance" if found.change.value and found.change.low <= 0 <= found.change.high else ""
    change = f"change {figure(found.change, unit='points')} ({how}){chance}"
    echo_sentences(f"Own test split{of}: accuracy {figure(found.own)}; {change}")


def print_evaluation(evaluation: "Evaluation") -> None:
    """Print the metrics of every split, with test-time augmentation next to those without."""
    from reslab.report.calibration import calibration_doubt
    from reslab.report.few_images import few_images
    from reslab.report.tables import metric_rows, num_wrong, promise_table
    from reslab.words import errors_among, less_copies, less_images, percent

    columns: dict[str, Figures] = {}
    for split, figures in evaluation.splits.items():
        columns[f"{split} ({figures.num_images:,} images)"] = figures
        if figures.test_time_augmentation is not None:
            several = figures.test_time_augmentation
            columns[f"{split}, mean of {several.views} views"] = several.figures
    rows = [["errors", *(errors_among(num_wrong(figures), figures.num_images) for figures in columns.values())]]
    copies = [getattr(figures, "without_copies", None) for figures in columns.values()]
    series = [getattr(figures, "without_series", None) for figures in columns.values()]
    for name, label, cells in metric_rows(list(columns.values())):
        rows.append([_uncapitalized(label), *(cell.line for cell in cells)])
        if name == "accuracy" and any(copies):
            rows.append(["without copies", *map(_without, copies)])
            rows.append(
                ["copies of training images", *(less_copies(each.num_copies) if each else "" for each in copies)]
            )
        if name == "accuracy" and any(series):
            rows.append(["without series", *map(_without, series)])
            rows.append(
                ["seconds from a training image", *(less_images(each.num_in_series) if each else "" for each in series)]
            )
    print_table(
        f"{evaluation.recipe}, with {percent(evaluation.confidence, decimals=0)} intervals", ["", *columns], rows
    )
    test = evaluation.splits.get("test")
    notes = []
    if evaluation.calibration is not None:
        doubt = calibration_doubt(test) if test else None
        notes.append(f"Probabilities are {evaluation.calibration.words}." + (f" {doubt}" if doubt else ""))
    if test and (note := few_images(test)):
        notes.append(note)
    for note in notes:
        echo_sentences(note)
    if notes:
        echo("")
    if (promises := promise_table(evaluation)) is not None:
        print_table("Promises and test images", promises.header, [[cell.line for cell in row] for row in promises.rows])
    if evaluation.extension is not None:
        _print_extension(evaluation.extension, evaluation.classes)


def _uncapitalized(label: str) -> str:
    return label[0].lower() + label[1:]


def _without(left: "WithoutCopies | WithoutSeries | None") -> str:
    from reslab.words import figure

    if left is None:
        return ""
    return "none is left" if left.accuracy is None else figure(left.accuracy)


def print_shortfall(run: "Run") -> None:
    """Warn in red on stderr if an evaluated network falls short of the accuracy that its training logged."""
    from reslab.measure.shortfall import warn_of_shortfall

    warning = warn_of_shortfall(run.evaluation, run.log, run.recipe)
    if warning is not None:
        typer.secho(warning, fg=typer.colors.RED, err=True)


def _print_extension(extension: "ExtensionFigures", classes: Sequence[str]) -> None:
    """Print the change on the old classes and the metrics of the new ones."""
    from reslab.words import figure

    old = [
        *(
            [name, figure(each.before), figure(each.after)]
            for name, each in zip(classes, extension.old_classes, strict=False)
        ),
        ["all old classes", figure(extension.old_before), figure(extension.old_after)],
    ]
    change = figure(extension.old_change, unit="points")
    print_table(f"Old classes, changed by {change}", ["", "before", "after"], old)
    named = list(zip(classes[extension.num_old :], extension.new_classes, strict=True))
    new = [
        [name, *map(figure, (each.figures.precision, each.figures.recall, each.figures.f1, each.taken_for_old))]
        for name, each in named
    ]
    print_table(
        f"New classes, macro F1 {figure(extension.new_macro_f1)}, by {extension.method} with tau "
        f"{extension.prior.tau:g}",
        ["", "precision", "recall", "F1", "taken for old"],
        new,
    )
    for name, each in named:
        if each.errors:
            echo_sentences(f"{name} is taken for {_errors(each)}.")


def _errors(each: "NewClass") -> str:
    from reslab.words import listing, percent

    return listing([f"{error.mistaken_for} ({percent(error.share.value, decimals=1)})" for error in each.errors])


def describe_pair(pair: "Pair") -> str:
    """Describe McNemar's test of two runs in one sentence."""
    from reslab.words import counted, figure

    if pair.mcnemar is None:
        return f"{pair.first} and {pair.second} cannot be compared: {pair.reason}"
    test = pair.mcnemar
    where = "" if pair.num_shared is None else f", on the {counted(pair.num_shared, 'image')} that both have"
    words = (
        f"{_some(test.only_first)} right in the first alone, {_some(test.only_second)} in the second alone (McNemar's "
        f"p = {test.p_value:.3g})"
    )
    if not test.only_first and not test.only_second:
        words = "both are right on the same images"
    for name, difference in (("accuracy", pair.accuracy_difference), ("macro F1", pair.macro_f1_difference)):
        if difference is not None:
            words = f"{words}; {name} differs by {figure(difference, unit='points')}"
    return f"{pair.first} against {pair.second}{where}: {words}"


def _some(num_images: int) -> str:
    from reslab.words import counted

    return counted(num_images, "image") if num_images else "no image"

"""Compare a run with another one on the same test images."""

from typing import NamedTuple

from reslab.errors import UserError, in_shell
from reslab.language import say, short
from reslab.measure.metrics import McNemar
from reslab.records import Estimate, Evaluation
from reslab.report.comparison import compare
from reslab.report.extension import in_points
from reslab.report.tables import Cell, Table, in_percent
from reslab.runs import Run
from reslab.words import counted

SIGNIFICANT = 0.05


class Beside(NamedTuple):
    """The metrics of both runs, and the results of the paired tests in sentences."""

    name: str
    table: Table
    accuracy: str
    macro_f1: str


def put_beside(run: Run, *, against: Run) -> Beside:
    """Compare an evaluated run with another one.

    Raises: UserError if it is the same run, is not evaluated, or has other test images, labels or classes.
    """
    comparison = compare([run, against])
    (pair,) = comparison.pairs
    if pair.mcnemar is None or pair.macro_f1_difference is None:
        raise UserError(
            f"{run.path} cannot be compared image by image with {against.path}: {pair.reason}; reslab compare "
            f"{in_shell(run.path)} {in_shell(against.path)} lists the metrics of both"
        )
    if pair.num_shared is not None:  # the metrics in the table are of different images
        raise UserError(
            f"{run.path} and {against.path} share only {counted(pair.num_shared, 'test image')}: reslab compare "
            f"{in_shell(run.path)} {in_shell(against.path)} compares them on these"
        )
    ours, theirs = (row.name for row in comparison.rows)
    evaluations = {ours: run.evaluation, theirs: against.evaluation}
    return Beside(theirs, _table(evaluations), _accuracy(pair.mcnemar, theirs), _macro_f1(pair.macro_f1_difference))


def _table(evaluations: dict[str, Evaluation]) -> Table:
    """Make a table with a column per run; metrics of an extension are shown if both are extended ones."""
    tests = [evaluation.splits["test"] for evaluation in evaluations.values()]
    extensions = [evaluation.extension for evaluation in evaluations.values() if evaluation.extension]
    rows = {say("Test accuracy"): [test.accuracy for test in tests], say("Macro F1"): [test.macro_f1 for test in tests]}
    if len(extensions) == len(tests):
        rows[say("New classes, macro F1")] = [extension.new_macro_f1 for extension in extensions]
        rows[say("Old classes, before")] = [extension.old_before for extension in extensions]
        rows[say("Old classes, after")] = [extension.old_after for extension in extensions]
    return Table(("", *evaluations), tuple((Cell(name), *map(in_percent, row)) for name, row in rows.items()))


def _accuracy(test: McNemar, other: str) -> str:
    found = (
        say("the difference in accuracy is no larger than chance explains")
        if test.p_value > SIGNIFICANT
        else say("the difference in accuracy is larger than chance explains")
    )
    return say(
        "Right in this run alone: {ours}; right in {other} alone: {theirs}; {found} (McNemar's test, p = {p}).",
        ours=counted(test.only_first, "image") if test.only_first else say("no image"),
        theirs=counted(test.only_second, "image") if test.only_second else say("no image"),
        other=other,
        found=found,
        p=short(test.p_value, 2),
    )


def _macro_f1(difference: Estimate) -> str:
    cell = in_points(difference)
    holds = difference.low <= 0 <= difference.high
    side = say("the interval includes 0") if holds else say("the interval excludes 0")
    return say(
        "In macro F1 this run differs by {difference} points {interval}; {side}.",
        difference=cell.text,
        interval=cell.aside,
        side=side,
    )

"""A run beside another one, on the same test images."""

from typing import NamedTuple

from reslab.errors import UserError
from reslab.measure.metrics import McNemar
from reslab.records import Estimate, Evaluation
from reslab.report.comparison import compare
from reslab.report.extension import in_points
from reslab.report.tables import Cell, Table, in_percent
from reslab.runs import Run
from reslab.words import counted

SIGNIFICANT = 0.05


class Beside(NamedTuple):
    """The figures of both runs, and what the paired tests say of them."""

    name: str
    table: Table
    accuracy: str
    macro_f1: str


def put_beside(run: Run, *, against: Run) -> Beside:
    """Compare an evaluated run with another one.

    Raises: UserError where it is the same run, is not evaluated, or has other test images, labels or classes.
    """
    comparison = compare([run, against])
    (pair,) = comparison.pairs
    if pair.mcnemar is None or pair.macro_f1_difference is None:
        raise UserError(f"{run.path} cannot be compared with {against.path}: {pair.reason}")
    ours, theirs = (row.name for row in comparison.rows)
    evaluations = {ours: run.evaluation, theirs: against.evaluation}
    return Beside(theirs, _table(evaluations), _accuracy(pair.mcnemar, theirs), _macro_f1(pair.macro_f1_difference))


def _table(evaluations: dict[str, Evaluation]) -> Table:
    """Give each run a column; what an extension did is shown where both are extended ones."""
    tests = [evaluation.splits["test"] for evaluation in evaluations.values()]
    extensions = [evaluation.extension for evaluation in evaluations.values() if evaluation.extension]
    rows = {"Test accuracy": [test.accuracy for test in tests], "Macro F1": [test.macro_f1 for test in tests]}
    if len(extensions) == len(tests):
        rows["New classes, macro F1"] = [extension.new_macro_f1 for extension in extensions]
        rows["Old classes, before"] = [extension.old_before for extension in extensions]
        rows["Old classes, after"] = [extension.old_after for extension in extensions]
    return Table(("", *evaluations), tuple((Cell(name), *map(in_percent, row)) for name, row in rows.items()))


def _accuracy(test: McNemar, other: str) -> str:
    found = "is no larger than chance explains" if test.p_value > SIGNIFICANT else "is larger than chance explains"
    alone = f"{counted(test.only_first, 'image')} only this run has right, {test.only_second:,} only {other}"
    return f"{alone}: the difference in accuracy {found} (McNemar's test, p = {test.p_value:.2g})."


def _macro_f1(difference: Estimate) -> str:
    cell = in_points(difference)
    side = "the interval holds 0" if difference.low <= 0 <= difference.high else "the interval leaves 0 out"
    return f"In macro F1 this run differs by {cell.text} points {cell.aside}; {side}."

"""The report's account of an extended run: the old classes before and after, and the new ones."""

from typing import NamedTuple

import numpy as np

from reslab.language import grouped, say, short
from reslab.measure.estimates import proportion
from reslab.records import Estimate, ExtensionFigures, NewClass
from reslab.report.inputs import Inputs
from reslab.report.tables import Cell, Table, class_cells, count_called, in_percent, share_in_percent
from reslab.words import NBSP, counted, interval, percent, points


class Account(NamedTuple):
    """What the sections on old classes, new classes and the prior show."""

    old_sentence: str
    old_table: Table
    new_sentence: str
    new_table: Table
    prior_sentence: str


def give_account(inputs: Inputs) -> Account | None:
    """Describe the effect of the extension; None if the run is not an extended one."""
    extension = inputs.evaluation.extension
    if extension is None:
        return None
    return Account(
        old_sentence=_old_sentence(inputs, extension),
        old_table=_old_table(inputs, extension),
        new_sentence=_new_sentence(inputs, extension.num_old),
        new_table=_new_table(inputs, extension),
        prior_sentence=_prior_sentence(extension),
    )


def in_points(difference: Estimate) -> Cell:
    """Show a difference of fractions with its interval in percentage points."""
    return Cell(points(difference.value), interval(difference.low, difference.high, unit="points"))


# ---- old classes


def _old_sentence(inputs: Inputs, extension: ExtensionFigures) -> str:
    supports = [figures.support for figures in inputs.test.per_class[: extension.num_old]]
    recognized = say(
        "Of the {images} of the {classes}, the base, which knows only these, recognizes {before}; the extended "
        "network, choosing among all {all}, {after}.",
        images=counted(sum(supports), "test image"),
        classes=counted(extension.num_old, "old class"),
        before=percent(extension.old_before.value),
        all=len(inputs.evaluation.classes),
        after=percent(extension.old_after.value),
    )
    if extension.old_change.value == 0:
        return f"{recognized} {say('The accuracy on them has not changed.')}"
    change = in_points(extension.old_change)
    changed = say(
        "That is a change of {change} points {interval}: {judgement}.",
        change=change.text,
        interval=change.aside,
        judgement=_judgement(extension.old_change),
    )
    return f"{recognized} {changed}"


def _judgement(change: Estimate) -> str:
    if change.high < 0:
        return say("the whole interval is below 0, so the old classes are recognized less well")
    if change.low > 0:
        return say("the whole interval is above 0, so the old classes improved")
    return say("the interval includes 0, so the change may be chance")


def _old_table(inputs: Inputs, extension: ExtensionFigures) -> Table:
    num_old = extension.num_old
    columns = zip(inputs.evaluation.classes, extension.old_classes, inputs.test.per_class[:num_old], strict=False)
    rows = [
        (
            Cell(name),
            share_in_percent(each.before, among=figures.support),
            share_in_percent(each.after, among=figures.support),
            Cell(points(each.after.value - each.before.value) if figures.support else "–"),
            Cell(grouped(figures.support)),
        )
        for name, each, figures in columns
    ]
    num_images = sum(figures.support for figures in inputs.test.per_class[:num_old])
    whole = (in_percent(extension.old_before), in_percent(extension.old_after), in_points(extension.old_change))
    rows.append((Cell(say("All old classes")), *whole, Cell(grouped(num_images))))
    header = (say("Class"), say("Before"), say("After"), say("Change in points"), say("Images"))
    return Table(header, tuple(rows), highlight=num_old)


# ---- new classes


def _new_sentence(inputs: Inputs, num_old: int) -> str:
    """Count any new class as one, against any old one."""
    matrix = np.array(inputs.test.confusion_matrix)
    hits, called, actual = matrix[num_old:, num_old:].sum(), matrix[:, num_old:].sum(), matrix[num_old:].sum()
    if not called:
        return say(
            "No image was classified as a new class, not even one of the {actual} of new classes.",
            actual=counted(int(actual), "image"),
        )
    precision, recall, right = (
        in_percent(proportion(part, total=total))
        for part, total in ((hits, called), (hits, actual), (matrix.diagonal()[num_old:].sum(), hits))
    )
    found = say(
        "It classifies {called} as a new class; {precision} of them belong to one (precision). Of the {actual} of new "
        "classes, it classifies {recall} as one (recall).",
        called=counted(int(called), "image"),
        precision=f"{precision.text} {precision.aside}".strip(),
        recall=f"{recall.text} {recall.aside}".strip(),
        actual=counted(int(actual), "image"),
    )
    if not hits:
        return found
    which = say("Of these, {right} are given the right new class.", right=f"{right.text} {right.aside}".strip())
    return f"{found} {which}"


def _new_table(inputs: Inputs, extension: ExtensionFigures) -> Table:
    num_old = extension.num_old
    names, called = inputs.evaluation.classes[num_old:], count_called(inputs.test)[num_old:]
    rows = tuple(_new_row(*row) for row in zip(names, extension.new_classes, called, strict=True))
    header = (
        *(say("Class"), say("Most often taken for"), say("Precision"), say("Recall")),
        *(say("F1"), say("Taken for an old class")),
    )
    return Table(header, rows, num_text_columns=2)


def _new_row(name: str, each: NewClass, called: int) -> tuple[Cell, ...]:
    shares = (f"{error.mistaken_for} ({percent(error.share.value, decimals=1)})" for error in each.errors)
    errors = ", ".join(share.replace(" ", NBSP) for share in shares)  # lines break only between them
    taken = share_in_percent(each.taken_for_old, among=each.figures.support)
    return (Cell(name), Cell(errors or say("none")), *class_cells(each.figures, called=called), taken)


def _prior_sentence(extension: ExtensionFigures) -> str:
    tau = short(extension.prior.tau)
    if not extension.prior.curve:
        return say("There was no image of an old class to choose tau by, so tau is {tau}.", tau=tau)
    if extension.prior.is_flat:
        return say(
            "The curve is flat: every tau gives the same macro F1 on the validation images, so they decide nothing, "
            "and tau is {tau}.",
            tau=tau,
        )
    if not extension.prior.is_best:
        return say("Tau is {tau} here, since a class has too few validation images to choose by.", tau=tau)
    return say(
        "Tau is {tau} here: chosen on validation images, which were held out of the training split, for the best macro "
        "F1. The test split took no part in it.",
        tau=tau,
    )

"""Single parts of a report, for notebooks: the same plots and tables, one at a time."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from reslab.errors import UserError
from reslab.language import LanguageName, read_language, speaking
from reslab.report.extension import Account, give_account
from reslab.report.findings import findings
from reslab.report.inputs import Inputs, read_inputs
from reslab.report.mistakes import confusion_pictures
from reslab.report.nearest import nearest_row
from reslab.report.pictures import (
    Picture,
    Pictures,
    confusion_matrices,
    feature_picture,
    learning_curves,
    prior_pictures,
    reliability_picture,
    selection_pictures,
)
from reslab.report.plane import to_plane
from reslab.report.tables import Table, class_table, field_table, metric_table, reliability
from reslab.runs import Run

PartT = TypeVar("PartT")


def draw(run: Run, *, part: str, language: LanguageName = "en") -> Pictures:
    """Draw a part of an evaluated run's report.

    Parameters
    ----------
    run : Run
        The evaluated run.
    part : {"curves", "matrices", "mistakes", "calibration", "answered", "features", "prior"}
        What to draw: learning curves, confusion matrices, mistakes of the most confused pairs, the reliability diagram,
        the accuracy of what is answered, the plane of features, or of an extended run how its prior was chosen.
    language : {"en", "ru"}, default "en"
        The language of titles and captions.

    Returns
    -------
    Pictures
        A tuple of plots as PNG, which a notebook shows.

    Raises
    ------
    UserError
        If there is no such part or the run is not evaluated.

    Examples
    --------
    >>> import reslab
    >>> (picture,) = reslab.draw(reslab.Run.open("runs/digits"), part="calibration")
    >>> picture.png[1:4]
    b'PNG'
    """
    with speaking(read_language(language)):
        return Pictures(_find(_DRAWN, part)(read_inputs(run)))


def tabulate(run: Run, *, part: str, language: LanguageName = "en") -> Table:
    """Return a table of an evaluated run's report.

    Parameters
    ----------
    run : Run
        The evaluated run.
    part : {"splits", "classes", "field", "old", "new"}
        Which table: metrics by split or by class, this network among published ones, or the old or new classes of an
        extended run.
    language : {"en", "ru"}, default "en"
        The language of header and names.

    Returns
    -------
    Table
        A header and rows, which a notebook shows.

    Raises
    ------
    UserError
        If there is no such part, the run is not evaluated, or is not an extended one.

    Examples
    --------
    >>> import reslab
    >>> table = reslab.tabulate(reslab.Run.open("runs/digits"), part="classes")
    >>> [row[1].text for row in table.rows]
    ['1', '4', '7']
    """
    with speaking(read_language(language)):
        return _find(_TABLES, part)(read_inputs(run))


def summarize(run: Run, *, language: LanguageName = "en") -> str:
    """Sum up an evaluated run in a few sentences, as its report begins.

    Parameters
    ----------
    run : Run
        The evaluated run.
    language : {"en", "ru"}, default "en"
        The language of the sentences.

    Returns
    -------
    str
        How good the network is, how it compares with a published one, what it confuses, and how far it overfits.

    Raises
    ------
    UserError
        If the run is not evaluated.

    Examples
    --------
    >>> import reslab
    >>> reslab.summarize(reslab.Run.open("runs/digits")).startswith("It classifies")
    True
    """
    with speaking(read_language(language)):
        inputs = read_inputs(run)
        row = nearest_row(inputs.recipe, num_parameters=inputs.num_parameters)
        return " ".join(findings(inputs, row=row))


def _features(inputs: Inputs) -> list[Picture]:
    features = inputs.gallery.features
    return [] if features is None else [feature_picture(inputs, *to_plane(features.features))]


def _old(inputs: Inputs) -> Table:
    return _account(inputs).old_table


def _new(inputs: Inputs) -> Table:
    return _account(inputs).new_table


def _account(inputs: Inputs) -> Account:
    account = give_account(inputs)
    if account is None:
        raise UserError(f"{inputs.name} is not an extended run: it has no old and new classes")
    return account


def _find(table: Mapping[str, Callable[[Inputs], PartT]], part: str) -> Callable[[Inputs], PartT]:
    if part not in table:
        raise UserError(f"there is no part {part!r}: choose from {', '.join(table)}")
    return table[part]


_DRAWN: dict[str, Callable[[Inputs], Sequence[Picture]]] = {
    "curves": learning_curves,
    "matrices": confusion_matrices,
    "mistakes": confusion_pictures,
    "calibration": lambda inputs: [reliability_picture(reliability(inputs.predictions))],
    "answered": selection_pictures,
    "features": _features,
    "prior": prior_pictures,
}
_TABLES: dict[str, Callable[[Inputs], Table]] = {
    "splits": lambda inputs: metric_table(inputs.evaluation),
    "classes": lambda inputs: class_table(inputs.test, classes=inputs.evaluation.classes),
    "field": field_table,
    "old": _old,
    "new": _new,
}

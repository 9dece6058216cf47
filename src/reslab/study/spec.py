"""A study as data: rows that reproduce published results, and which rows to compare.

It converts to JSON and back, so that a user's own study is a file like any shipped one. No torch here.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError, model_validator

from reslab.errors import UserError, check_kind, did_you_mean, first_complaint, in_shell
from reslab.recipe.recipe import Method, Published
from reslab.recipe.value import Part

Metric = Literal["error", "accuracy", "macro_f1"]  # fractions of the test split, in [0, 1]
LOWER_IS_BETTER: Final = ("error",)


def _check_label(label: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", label):
        raise ValueError(f"{label!r} names folders: write it in small letters, digits, dots and hyphens")
    return label


Label = Annotated[str, AfterValidator(_check_label)]


class Training(Part):
    """A network that is trained from scratch.

    Attributes
    ----------
    recipe : str
        A shipped recipe, or the JSON file of one, looked up beside the study's file first.
    settings : tuple of str
        Changes of the recipe, each `field=value` as for `--set`.
    """

    kind: Literal["training"] = "training"
    recipe: str
    settings: tuple[str, ...] = ()


class Teaching(Part):
    """New classes for the network of another row, seed by seed.

    Attributes
    ----------
    base : str
        The row whose network learns them; it has to come before.
    data : str
        Data expression of the new classes.
    method : str
        A method of `reslab extend`.
    """

    kind: Literal["teaching"] = "teaching"
    base: Label
    data: str
    method: Method


class Row(Part):
    """One line of a table.

    Attributes
    ----------
    label : str
        What it is called; runs are stored in `LABEL-SEED`.
    job : Training or Teaching
        What to run.
    published : dict
        Published results by metric: `error`, `accuracy` or `macro_f1`; they have to be on the data of this row.
    """

    label: Label
    job: Annotated[Training | Teaching, Field(discriminator="kind")]
    published: dict[Metric, Published] = Field(default_factory=dict)


class Contrast(Part):
    """Two rows that are compared with each other, as `first` minus `second`.

    Attributes
    ----------
    first : str
        The label of a row.
    second : str
        The label of another one, tested on the same images.
    """

    first: Label
    second: Label


class Study(Part):
    """A table to reproduce.

    Attributes
    ----------
    name : str
        What it is called, and by default its folder in `runs`.
    title : str
        The heading of its report.
    rows : tuple of Row
        The lines of the table, in order.
    contrasts : tuple of Contrast
        Pairs of rows that are compared with each other.
    gradients : tuple of str
        Rows of the kind training whose gradients are measured before training, layer by layer.
    metric : {"error", "accuracy", "macro_f1"}, default "error"
        The metric of contrasts, and of rows without a published result.
    seeds : int, default 5
        Runs per row, unless `--seeds` says otherwise.
    tolerance : float, default 0.005
        A difference from a published result, as a fraction, up to which ours counts as equal.
    order : tuple of [str, int]
        Runs to do first, as pairs of row and seed; the others follow seed by seed.
    """

    name: Label
    title: str
    rows: Annotated[tuple[Row, ...], Field(min_length=1)]
    contrasts: tuple[Contrast, ...] = ()
    gradients: tuple[Label, ...] = ()
    metric: Metric = "error"
    seeds: PositiveInt = 5
    tolerance: PositiveFloat = 0.005
    order: tuple[tuple[Label, NonNegativeInt], ...] = ()

    @model_validator(mode="after")
    def _rows_are_there(self) -> "Study":
        known: set[str] = set()
        for row in self.rows:
            if row.label in known:
                raise ValueError(f"two rows are called {row.label}")
            if isinstance(row.job, Teaching) and row.job.base not in known:
                hint = _hint(row.job.base, sorted(known)) if known else "put its base first"
                raise ValueError(f"row {row.label} teaches {row.job.base}, which is not a row before it: {hint}")
            known.add(row.label)
        named = {*self.gradients, *(label for each in self.contrasts for label in (each.first, each.second))}
        named |= {label for label, _ in self.order}
        if unknown := sorted(named - known):
            raise ValueError(f"there is no row {unknown[0]}: {_hint(unknown[0], sorted(known))}")
        return self

    @model_validator(mode="after")
    def _each_contrast_compares_two_rows_once(self) -> "Study":
        known: set[frozenset[str]] = set()
        for each in self.contrasts:
            pair = frozenset((each.first, each.second))
            if len(pair) == 1:
                raise ValueError(f"a contrast compares {each.first} with itself: name two rows")
            if pair in known:
                raise ValueError(f"two contrasts compare {each.first} and {each.second}: keep one of them")
            known.add(pair)
        return self

    @model_validator(mode="after")
    def _order_and_gradients_can_be_followed(self) -> "Study":
        for label, seed in self.order:
            if self.order.count((label, seed)) > 1:
                raise ValueError(f"order names seed {seed} of {label} twice: keep the earlier one")
        for label in self.gradients:
            if self.gradients.count(label) > 1:
                raise ValueError(f"gradients names {label} twice: keep one of them")
            if isinstance(pick_row(self, label).job, Teaching):
                raise ValueError(f"gradients names {label}, which teaches new classes: name rows of the kind training")
        return self


class StudyRecord(Part):
    """`study.json` in a study's folder: what its runs belong to."""

    study: str
    epochs_scale: PositiveFloat


class Gradients(Part):
    """`gradients.json`: the norm of the loss's gradient by row and layer, before training.

    `recipes` has a digest of each row's recipe, by which a changed one is known.
    """

    norms: dict[str, dict[str, float]]
    recipes: dict[str, str] = Field(default_factory=dict)


def pick_row(study: Study, label: str) -> Row:
    """Find a row. Raises: UserError with the nearest right label."""
    rows = {row.label: row for row in study.rows}
    if label not in rows:
        raise UserError(f"study {study.name} has no row {label!r}: {_hint(label, list(rows))}")
    return rows[label]


def read_study(name: str, *, shipped: dict[str, Study]) -> Study:
    """Look up a shipped study, or read one from a JSON file. Raises: UserError with the nearest right name."""
    if name in shipped:
        return shipped[name]
    if not name.endswith(".json"):
        raise UserError(f"unknown study {name!r}: {_hint(name, list(shipped))} (a file's name ends in .json)")
    check_kind(name)
    try:
        content = json.loads(Path(name).read_text(encoding="utf-8"))
        if isinstance(content, dict) and "model" in content and "rows" not in content:
            raise UserError(f"{name} is a recipe, not a study: train it by reslab train {in_shell(name)}")
        return _find_recipes(Study.model_validate(content), folder=Path(name).parent)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{name} cannot be read as a study: {error.strerror}") from None
    except ValidationError as error:
        raise UserError(f"{name}: {first_complaint(error, content)}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name} is not a study in JSON: {error}") from None


def _find_recipes(study: Study, *, folder: Path) -> Study:
    """Name the recipes that lie beside a study's file by their paths."""
    rows = []
    for row in study.rows:
        if isinstance(row.job, Training) and row.job.recipe.endswith(".json"):
            beside = folder / row.job.recipe
            if beside.is_file():
                row = row.model_copy(update={"job": row.job.model_copy(update={"recipe": str(beside)})})
        rows.append(row)
    return study.model_copy(update={"rows": tuple(rows)})


def _hint(name: str, names: list[str]) -> str:
    return did_you_mean(name, names, otherwise=f"choose from {', '.join(names)}")

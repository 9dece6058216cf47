"""Compare runs: a row of metrics for each, and McNemar's test for each pair.

Metrics are of one split and without test-time augmentation, so that they mean the same in every row: of the test split,
or of the validation split if all runs are trials.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reslab.errors import UserError, in_shell
from reslab.measure.estimates import estimate, gain
from reslab.measure.intervals import macro_f1_difference
from reslab.measure.metrics import McNemar, mcnemar
from reslab.recipe.settings import name_values
from reslab.records import Estimate, Evaluation, SplitName
from reslab.runs import Run
from reslab.words import named

REMEDY = "measure both on the same images by reslab evaluate RUN --data EXPR"


@dataclass(frozen=True)
class ComparedRun:
    """One run: what was trained on what, for how long, and its metrics."""

    name: str  # of the folder, or its path if two share a name
    recipe: str
    data: str
    model: str
    epochs: int  # that were trained
    seconds: float  # of training
    accuracy: Estimate
    macro_f1: Estimate
    log_loss: Estimate


@dataclass(frozen=True)
class Pair:
    """Two rows by name: McNemar's test and the first's accuracy and macro F1 minus the second's, or why there are none.

    The intervals are paired: each image counts with the answers of both.
    """

    first: str
    second: str
    mcnemar: McNemar | None = None
    accuracy_difference: Estimate | None = None
    macro_f1_difference: Estimate | None = None
    reason: str | None = None
    num_shared: int | None = None  # images that both were measured on; None: all


@dataclass(frozen=True)
class Comparison:
    """Rows in the order of the runs, and every pair of them."""

    split: SplitName
    rows: tuple[ComparedRun, ...]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class _Answers:
    """The answers of one run on a split: predicted classes and labels, each (N,), and which images they are of."""

    name: str
    split: SplitName
    data: str
    reading: tuple[object, ...]
    fingerprint: str | None
    classes: tuple[str, ...]
    predicted: NDArray[np.int64]
    labels: NDArray[np.int64]
    names: tuple[str, ...] | None = None  # of the picture files
    digests: NDArray[np.uint64] | None = None  # of the stored pictures, however they are read
    extension: Path | None = None  # the folder, if it is an extension

    def numbered_as(self, other: "_Answers") -> "_Answers":
        """Number the classes as `other` does; both have the same ones, in any order."""
        number = np.array([other.classes.index(name) for name in self.classes])
        return replace(self, classes=other.classes, predicted=number[self.predicted], labels=number[self.labels])

    def arranged(self) -> "_Answers":
        """Put the images in the order of their digests, which does not depend on the names of their files."""
        assert self.digests is not None
        order = np.lexsort((self.labels, self.digests))
        return replace(
            self, predicted=self.predicted[order], labels=self.labels[order], digests=self.digests[order], names=None
        )

    def has_images_of(self, other: "_Answers") -> bool:
        """Return whether both are known to be of the same images; they are arranged."""
        return self.digests is not None and other.digests is not None and np.array_equal(self.digests, other.digests)

    def shared_with(self, other: "_Answers") -> "_Answers":
        """Keep one of each image that `other` has too; both are arranged."""
        assert self.digests is not None
        assert other.digests is not None
        _, first = np.unique(self.digests, return_index=True)
        kept = first[np.isin(self.digests[first], other.digests)]
        return replace(self, predicted=self.predicted[kept], labels=self.labels[kept], digests=self.digests[kept])


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare runs on the same split, each pair by McNemar's test.

    Parameters
    ----------
    runs : sequence of Run
        Finished runs whose test split has been evaluated, or trials whose validation split has been.

    Returns
    -------
    Comparison
        A row of metrics for each run, and for each pair a test or the reason why there is none.

    Raises
    ------
    UserError
        If a run is given twice, is not finished or evaluated, only some are trials, or predictions and metrics differ.

    Examples
    --------
    >>> import reslab
    >>> runs = [reslab.Run.open(f"runs/{name}") for name in ("digits", "again")]
    >>> found = reslab.compare(runs)
    >>> [row.name for row in found.rows], found.pairs[0].mcnemar.p_value
    (['digits', 'again'], 1.0)
    """
    names = _names(runs)
    split = _pick_split(runs)
    evaluations = [_evaluation(run) for run in runs]
    rows = [_row(run, name, evaluation) for run, name, evaluation in zip(runs, names, evaluations, strict=True)]
    answers = [_answers(run, name, evaluation) for run, name, evaluation in zip(runs, names, evaluations, strict=True)]
    return Comparison(split, tuple(rows), tuple(_pair(first, second) for first, second in combinations(answers, 2)))


def differing_fields(runs: Sequence[Run]) -> dict[str, list[str]]:
    """List the fields of the runs' recipes that differ, with the value of each run."""
    named = [dict(name_values(run.recipe.model_dump(mode="json", exclude={"name", "source"}))) for run in runs]
    fields = dict.fromkeys(field for values in named for field in values)
    rows = {field: [str(values.get(field, "–")) for values in named] for field in fields}
    return {field: row for field, row in rows.items() if len(set(row)) > 1}


def _names(runs: Sequence[Run]) -> list[str]:
    for path, count in Counter(os.path.realpath(run.path) for run in runs).items():
        if count > 1:
            raise UserError(f"{path} is given {count} times: name each run once")
    uses = Counter(run.name for run in runs)
    return [run.name if uses[run.name] == 1 else str(run.path) for run in runs]


def _pick_split(runs: Sequence[Run]) -> SplitName:
    if not runs:
        raise UserError("no runs are given: name at least one")
    first, *others = runs
    for run in others:
        if run.recipe.trial != first.recipe.trial:
            trial, other = (run, first) if run.recipe.trial else (first, run)
            raise UserError(
                f"{trial.path} is a trial, measured on validation images, and {other.path} is not: compare trials "
                "with trials"
            )
    return first.recipe.measured_on


def _evaluation(run: Run) -> Evaluation:
    evaluation, split = run.evaluation, run.recipe.measured_on
    if split not in evaluation.splits:
        done = ", ".join(evaluation.splits) or "no split"
        raise UserError(
            f"{run.path} has been evaluated on {done}, not on {split}: run reslab evaluate {in_shell(run.path)}"
        )
    return evaluation


def _row(run: Run, name: str, evaluation: Evaluation) -> ComparedRun:
    recipe, log, figures = run.recipe, run.log, evaluation.splits[run.recipe.measured_on]
    return ComparedRun(
        name=name,
        recipe=recipe.name,
        data=recipe.data,
        model=recipe.model.label_and_options,
        epochs=len(log),
        seconds=sum(epoch.seconds for epoch in log),
        accuracy=figures.accuracy,
        macro_f1=figures.macro_f1,
        log_loss=figures.log_loss,
    )


def _answers(run: Run, name: str, evaluation: Evaluation) -> _Answers:
    split = run.recipe.measured_on
    logits, labels = run.read_predictions(split)
    if logits.shape != (evaluation.splits[split].num_images, len(evaluation.classes)):
        raise UserError(
            f"the predictions and the evaluation of {run.path} differ: run reslab evaluate {in_shell(run.path)}"
        )
    return _Answers(
        name,
        split,
        run.recipe.data,
        run.recipe.reading,
        _fingerprint(run, split, num_images=len(labels)),
        evaluation.classes,
        logits.argmax(axis=1),
        labels,
        run.read_names(split),
        run.read_digests(split, num_images=len(labels)),
        extension=run.path if run.recipe.extension else None,
    )


def _fingerprint(run: Run, split: SplitName, *, num_images: int) -> str | None:
    """Return the fingerprint of the images measured; starting weights may have learned from some of the split."""
    used, start = run.environment.used(split), run.recipe.start
    if used is None or used.num_images == num_images or start is None:
        return used.fingerprint if used else None
    return start.sha256 + used.fingerprint  # begins differently where others were left out


def _pair(first: _Answers, second: _Answers) -> Pair:
    num_shared = None
    if set(first.classes) == set(second.classes):
        second = second.numbered_as(first)
    if first.fingerprint != second.fingerprint and first.digests is not None and second.digests is not None:
        first, second = first.arranged(), second.arranged()
        if not first.has_images_of(second):
            first, second = first.shared_with(second), second.shared_with(first)
            num_shared = len(first.labels)
    reason = _obstacle(first, second)
    if reason:
        return Pair(first.name, second.name, reason=reason)
    result = mcnemar(first.labels, first=first.predicted, second=second.predicted)
    return Pair(
        first.name,
        second.name,
        mcnemar=result,
        accuracy_difference=gain(second.predicted == second.labels, after=first.predicted == first.labels),
        macro_f1_difference=_macro_f1_difference(first, second),
        num_shared=num_shared,
    )


def _macro_f1_difference(first: _Answers, second: _Answers) -> Estimate:
    return estimate(
        *macro_f1_difference(
            first.labels, first=first.predicted, second=second.predicted, num_classes=len(first.classes)
        )
    )


def _obstacle(first: _Answers, second: _Answers) -> str | None:
    """Say why two runs were not measured on the same images; None if there is no sign of it.

    The fingerprint also changes with the size at which pictures are read, and with the names of their files. If it
    differs, the digests of the stored pictures decide, or if none were recorded, reading and names.
    """
    if first.classes != second.classes:
        return _difference_in_classes(first, second)
    if len(first.labels) != len(second.labels):
        return f"their {first.split} splits have {len(first.labels)} and {len(second.labels)} images; {REMEDY}"
    if not len(first.labels):
        return f"they have no {first.split} picture in common; {REMEDY}"
    num_different = int((first.labels != second.labels).sum())
    if num_different:
        return f"the labels of {num_different} of {len(first.labels)} {first.split} images differ"
    if first.fingerprint == second.fingerprint or first.has_images_of(second):
        return None
    if first.data == second.data and first.reading != second.reading and first.names == second.names:
        return None
    prints = " and ".join(f"{each.fingerprint[:12]}…" if each.fingerprint else "unknown" for each in (first, second))
    where = first.data if first.data == second.data else f"{first.data} and {second.data}"
    return f"the {first.split} images of {where} differ (fingerprints {prints}); {REMEDY}"


def _difference_in_classes(first: _Answers, second: _Answers) -> str:
    """Say which classes only one of two runs has, and how both can be measured on those that they share."""
    own = [
        f"{one.name} alone has {named(extra)}"
        for one, other in ((first, second), (second, first))
        if (extra := [name for name in one.classes if name not in other.classes])
    ]
    reason = f"their classes differ: {' and '.join(own)}"
    for one, other in ((first, second), (second, first)):
        if one.extension is not None and set(other.classes) < set(one.classes):
            return f"{reason}; reslab evaluate {in_shell(one.extension)} shows the old classes before and after"
    shared = [name for name in first.classes if name in second.classes]
    if not shared:
        return f"{reason}; they share none, so no image can be right in both"
    return f"{reason}; for those that both have, {named(shared)}, {REMEDY}"

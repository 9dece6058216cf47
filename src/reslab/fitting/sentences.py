"""A fitted run in three sentences: what it is good at, what it confuses, what to do next."""

from typing import NamedTuple

import numpy as np

from reslab.records import Candidates
from reslab.report.findings import confusion, strength
from reslab.runs import Run
from reslab.words import counted

FEW = 50  # training images of a class, below which more of them help most


class Summary(NamedTuple):
    """Three sentences about a fitted run."""

    strength: str
    confusion: str
    advice: str


def summarize(run: Run) -> Summary:
    """Sum up an evaluated run, by its test split."""
    evaluation = run.evaluation
    test, classes = evaluation.splits["test"], evaluation.classes
    recalls = np.array([each.recall.value for each in test.per_class])
    worst = int(recalls.argmin())
    counts = evaluation.splits["train"].per_class if "train" in evaluation.splits else test.per_class
    return Summary(
        strength(test, classes),
        confusion(test, classes),
        _advice(
            classes[worst], counts[worst].support, run.candidates, is_perfect=recalls.min() == 1, path=str(run.path)
        ),
    )


def _advice(worst: str, count: int, candidates: Candidates | None, *, is_perfect: bool, path: str) -> str:
    left_out = [each for each in candidates.candidates if each.left_out and not each.accuracy] if candidates else []
    if candidates is None:
        return "Next: pip install 'reslab[pretrained,export]' and fit again, to start from ImageNet."
    if not is_perfect and count < FEW:
        return f"Next: add pictures of {worst}, which it knows least and has {counted(count, 'training image')} of."
    if not is_perfect and left_out:
        return f"Next: allow more time (--minutes), since {left_out[0].words} was left out."
    if is_perfect:
        return (
            f"Next: try it on new pictures with reslab predict {path} FILE, then reslab export {path} --to model.onnx."
        )
    return f"Next: look at the suspicious labels and the errors in the report, first those of {worst}."

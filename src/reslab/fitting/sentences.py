"""Summary of a fitted run in three sentences: its strengths, its confusions, what to do next."""

from typing import NamedTuple

import numpy as np

from reslab.data.check.findings import SECONDS, Report
from reslab.data.check.words import count_pairs
from reslab.errors import in_shell
from reslab.fitting.choice import MARGIN
from reslab.records import Candidate, Candidates
from reslab.report.findings import confusion, strength, tells_classes_apart
from reslab.report.tables import is_broken, num_wrong
from reslab.runs import Run
from reslab.words import counted, listing, percent

FEW_MISTAKES = 2  # among all test images; too few to tell a weakest class
SURE = 0.9  # accuracy that test images without a mistake have to show
FEW = 50  # training images of a class below which more of them help most


class Summary(NamedTuple):
    """Three sentences about a fitted run."""

    strength: str
    confusion: str
    advice: str


def summarize(run: Run, found: Report | None = None) -> Summary:
    """Summarise an evaluated run by its test split; problems `found` in its data come before other advice."""
    evaluation = run.evaluation
    test, classes = evaluation.splits["test"], evaluation.classes
    counts = evaluation.splits["train"].per_class if "train" in evaluation.splits else test.per_class
    worst = int(np.array([each.recall.value if each.support else np.inf for each in test.per_class]).argmin())
    advice = _advice(
        classes[worst],
        counts[worst].support,
        run.candidates,
        wrong=num_wrong(test),
        total=test.num_images,
        least=test.accuracy.low,
        path=str(run.path),
        is_weakest=tells_classes_apart(test),
    )
    answered = test.answered
    if answered is not None and is_broken(answered.promised, found=answered.answered, least=answered.least):
        advice = (
            f"Only {percent(answered.answered.value, decimals=0)} of the test images are answered instead of "
            f"{percent(answered.promised, decimals=0)}, since others are unlike the training images: reslab predict "
            f"--answer 0.99 refuses fewer. {advice}"
        )
    if defects := _defects(found):
        command = f"reslab data check {in_shell(run.recipe.data)}"
        advice = f"First look at the data, {listing(defects)}: {command}. {advice}"
    return Summary(strength(test, classes), confusion(test, classes), advice)


def _defects(found: Report | None) -> list[str]:
    """List problems of the data: conflicting labels, test images with copies, series, files unused by mistake."""
    defects = []
    if found is not None and found.duplicates is not None:
        if (conflicts := found.duplicates.across_classes).count:
            defects.append(f"{count_pairs(conflicts)} with different labels")
        if num := len(found.duplicates.across_splits.test_indices):
            defects.append(f"{counted(num, 'test image')} with a copy in training")
    if num := sum(series.count for series in found.series) if found else 0:
        defects.append(f"{counted(num, 'picture')} taken within {SECONDS} seconds of another")
    if num := sum(group.count for group in found.not_used if not group.expected) if found else 0:
        defects.append(f"{counted(num, 'file')} not used")
    return defects


def _advice(
    worst: str,
    count: int,
    candidates: Candidates | None,
    *,
    wrong: int,
    total: int,
    least: float,
    path: str,
    is_weakest: bool,
) -> str:
    if candidates is None:
        return "Next: pip install 'reslab[pretrained,export]' and fit again, to start from ImageNet."
    if not wrong and least < SURE:
        return (
            f"Next: try it on new pictures with reslab predict {in_shell(path)} FILE, and add test pictures: {total:,} "
            f"without a mistake only show that the accuracy is above {percent(least, decimals=0)}."
        )
    if not wrong:
        return (
            f"Next: try it on new pictures with reslab predict {in_shell(path)} FILE, then reslab export "
            f"{in_shell(path)} --to model.onnx."
        )
    if wrong <= FEW_MISTAKES or (count < FEW and not is_weakest):
        mistakes = counted(wrong, "mistake")
        return f"Next: add pictures; {mistakes} among {total:,} test images cannot tell which class is the weakest."
    if count < FEW:
        images = counted(count, "training image") if count else "no training image"
        return f"Next: add pictures of “{worst}”, its weakest class, which has {images}."
    if lacking := _find_lacking_time(candidates):
        return f"Next: allow more time (--minutes), since {_name_left_out(lacking[0])} was left out."
    first = f", first those of “{worst}”" if is_weakest else ""
    return f"Next: look at the suspicious labels and the errors in the report{first}."


def _find_lacking_time(candidates: Candidates) -> list[Candidate]:
    """List the candidates that were left out and would not have ended in the time that was left over, either."""
    left = 60 * candidates.minutes - candidates.seconds
    unjudged = [each for each in candidates.candidates if each.left_out and not each.accuracy]
    return [each for each in unjudged if each.would_take is None or MARGIN * each.would_take > left]


def _name_left_out(candidate: Candidate) -> str:
    """Name the network that was left out, or the part of it."""
    part = candidate.left_out or ""
    return f"the {part.removeprefix('its ')} of {candidate.words}" if part.startswith("its ") else candidate.words

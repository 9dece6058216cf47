"""The answer to each image of a split as a table, for one's own statistics.

Axes: N images, K classes.
"""

from collections.abc import Iterator

from reslab.data.pictures import is_answered
from reslab.measure.metrics import softmax
from reslab.records import SplitName
from reslab.runs import Familiarities, Run, read_exhibit
from reslab.runs.files import to_csv


def answers_csv(run: Run, split: SplitName) -> bytes:
    """List the answers to all images of an evaluated split, with the probability of each class.

    Familiarity, and whether the picture is answered, are empty where the network provides none.
    Raises: UserError if the split has not been evaluated.
    """
    classes = run.evaluation.classes
    header = ["file", "label", "prediction", "familiarity", "answered", *(f"probability of {name}" for name in classes)]
    return to_csv(header, _rows(run, split, classes))


def _rows(run: Run, split: SplitName, classes: tuple[str, ...]) -> Iterator[list[str | float]]:
    logits, labels = run.read_predictions(split)
    names = run.read_names(split)
    known = read_exhibit(run.path, split, Familiarities)
    for place, (row, label) in enumerate(zip(softmax(logits), labels.tolist(), strict=True)):
        familiarity: list[str | float] = ["", ""]
        if known is not None:
            value = float(known.familiarity[place])
            familiarity = [value, "yes" if is_answered(value) else "no"]
        file = (names and names[place]) or f"{split} image {place}"
        yield [file, classes[label], classes[int(row.argmax())], *familiarity, *row.tolist()]

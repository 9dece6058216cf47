"""Misclassified test images: those of the most confused pairs, and the most confident ones."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from reslab.language import grouped, say
from reslab.measure.metrics import softmax
from reslab.report import figures
from reslab.report.inputs import Inputs
from reslab.report.pictures import Picture
from reslab.report.tables import Cell, Table, confused_pairs
from reslab.words import certainty, percent

NUM_PAIRS, IMAGES_A_PAIR, NUM_WORST = 8, 10, 24


class Mistake(NamedTuple):
    """A test image with its true and its predicted class, the probability of the latter, and the picture's file."""

    picture: Picture
    true: str
    predicted: str
    certainty: str
    file: str


class Confusion(NamedTuple):
    """Two classes, how many images of the first were taken for the second, their share, and some of them."""

    true: str
    predicted: str
    num_images: int
    share: str
    mistakes: list[Mistake]


def pair_table(confusions: Sequence[Confusion]) -> Table:
    """List confused pairs of classes, without their images."""
    rows = tuple(
        (Cell(pair.true), Cell(pair.predicted), Cell(grouped(pair.num_images)), Cell(pair.share)) for pair in confusions
    )
    header = (say("True"), say("Taken for"), say("Images"), say("Share"))
    return Table(header, rows, num_text_columns=2)


def confusion_pictures(inputs: Inputs) -> list[Picture]:
    """Draw the most confident mistakes of the most confused pairs of classes, a row per pair, if there are any."""
    classes, examples = inputs.evaluation.classes, inputs.examples
    true, predicted = inputs.predictions.labels[examples.indices], inputs.predictions.logits[examples.indices].argmax(1)
    rows, names = [], []
    for pair in confused_pairs(np.array(inputs.test.confusion_matrix), most=NUM_PAIRS):
        places = np.flatnonzero((true == pair.true) & (predicted == pair.predicted))[:IMAGES_A_PAIR]
        if len(places):
            rows.append(examples.images[places])
            names.append(" → ".join(figures.short_name(classes[each], number=each + 1) for each in pair[:2]))
    if not rows:
        return []
    return [
        Picture(
            name="mistakes",
            png=figures.image_rows(rows, names=names),
            alt=say("Test images of the most confused pairs of classes."),
            title=say("Mistakes."),
            caption=say("The most confused pairs of classes, true → predicted, each with its most certain mistakes."),
        )
    ]


class Mistakes:
    """The examples of a run, ready to be shown."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        # In their stored order: the most confident first.
        self._logits = inputs.predictions.logits[inputs.examples.indices]
        self._true = inputs.predictions.labels[inputs.examples.indices]
        self._predicted = self._logits.argmax(axis=1)

    def worst(self) -> list[Mistake]:
        """Return the most confident mistakes, first one of each pair of classes."""
        pairs = zip(self._true.tolist(), self._predicted.tolist(), strict=True)
        seen: Counter[tuple[int, int]] = Counter()
        turns = []
        for pair in pairs:
            turns.append(seen[pair])
            seen[pair] += 1
        order = np.argsort(turns, kind="stable")[:NUM_WORST]
        return [self._mistake(int(place)) for place in order]

    def confusions(self, *, num_old: int = 0) -> list[Confusion]:
        """Return the most confused pairs of classes, not both among the first `num_old`, with confident mistakes."""
        classes = self._inputs.evaluation.classes
        found = []
        matrix = np.array(self._inputs.test.confusion_matrix)
        for pair in confused_pairs(matrix, most=NUM_PAIRS, num_old=num_old):
            places = np.flatnonzero((self._true == pair.true) & (self._predicted == pair.predicted))[:IMAGES_A_PAIR]
            shown = [self._mistake(int(place)) for place in places]
            names = classes[pair.true], classes[pair.predicted]
            found.append(Confusion(*names, pair.num_images, percent(pair.share, decimals=1), shown))
        return found

    def _mistake(self, place: int) -> Mistake:
        index, image = self._inputs.examples.indices[place], self._inputs.examples.images[place]
        classes = self._inputs.evaluation.classes
        true, predicted = classes[self._true[place]], classes[self._predicted[place]]
        sure = certainty(float(softmax(self._logits[place : place + 1]).max()))
        alt = say(
            "{image}: {true}, taken for {predicted} with {certainty}",
            image=self._inputs.call(index),
            true=true,
            predicted=predicted,
            certainty=sure,
        )
        picture = Picture(name=f"test-{index}", png=figures.thumbnail(image), alt=alt)
        return Mistake(picture, true, predicted, sure, self._inputs.file_of(index))

"""The sections that show single images: where the network looked, and labels that look wrong."""

from typing import NamedTuple

import numpy as np

from reslab.language import grouped, say
from reslab.report.figures import thumbnail
from reslab.report.inputs import Inputs
from reslab.report.pictures import Picture
from reslab.report.sheets import overlay
from reslab.runs.gallery import GOOD_ENOUGH, NUM_DOUBTS
from reslab.words import certainty, counted, percent


class Look(NamedTuple):
    """A test image with its heat map, the names of its true and its predicted class and their probability."""

    image: Picture
    heat: Picture
    true: str
    predicted: str
    certainty: str


class Doubt(NamedTuple):
    """A test image whose label looks wrong: the label, the network's answer, the probability of each, and the file."""

    image: Picture
    given: str
    given_probability: str
    answer: str
    answer_probability: str
    file: str


def looks(inputs: Inputs) -> dict[str, list[Look]]:
    """Return the heat maps of right and of wrong answers."""
    gallery = inputs.gallery
    if gallery.heat_maps is None or not len(gallery.heat_maps.indices):
        return {}
    shown = gallery.shown["test"]
    found: dict[str, list[Look]] = {"right": [], "wrong": []}
    for place, heat in zip(shown.places(gallery.heat_maps.indices), gallery.heat_maps.maps, strict=True):
        true, predicted = int(shown.labels[place]), int(shown.predicted[place])
        found["right" if true == predicted else "wrong"].append(_look(inputs, int(place), heat))
    return found


def _look(inputs: Inputs, place: int, heat: np.ndarray) -> Look:
    shown, classes = inputs.gallery.shown["test"], inputs.evaluation.classes
    true, predicted = classes[shown.labels[place]], classes[shown.predicted[place]]
    sure = certainty(float(shown.probabilities[place].max()))
    index = shown.indices[place]
    names = {"image": inputs.call(index), "true": true, "predicted": predicted, "certainty": sure}
    what = (
        say("{image}: {true}, recognised with {certainty}", **names)
        if true == predicted
        else say("{image}: {true}, taken for {predicted} with {certainty}", **names)
    )
    image = Picture(name=f"look-{index}", png=thumbnail(shown.images[place]), alt=what)
    half, of_image = heat.shape[1] // 2, {"index": index, "name": predicted}  # without a column in the middle
    left, right = (int(part.sum()) for part in (heat[:, :half], heat[:, heat.shape[1] - half :]))
    if max(left, right) <= int(heat.sum()) / 2:
        alt = say("Heat map of test image {index} for {name}: neither half holds most of it", **of_image)
    elif right > left:
        alt = say("Heat map of test image {index} for {name}: most of it lies in the right half", **of_image)
    else:
        alt = say("Heat map of test image {index} for {name}: most of it lies in the left half", **of_image)
    return Look(
        image, Picture(name=f"heat-{index}", png=overlay(shown.images[place], heat), alt=alt), true, predicted, sure
    )


def doubts(inputs: Inputs) -> list[Doubt]:
    """Return the test images whose labels are the least credible."""
    gallery = inputs.gallery
    if gallery.doubts is None or inputs.test.accuracy.value < GOOD_ENOUGH:
        return []
    shown, classes = gallery.shown["test"], inputs.evaluation.classes
    found = []
    for place in shown.places(gallery.doubts.indices[:NUM_DOUBTS]):
        given, answer = int(shown.labels[place]), int(shown.predicted[place])
        index, row = shown.indices[place], shown.probabilities[place]
        alt = say(
            "{image}: labelled {given}, the network says {answer}",
            image=inputs.call(index),
            given=classes[given],
            answer=classes[answer],
        )
        picture = Picture(name=f"doubt-{index}", png=thumbnail(shown.images[place]), alt=alt)
        words = percent(float(row[given])), certainty(float(row[answer]))
        found.append(Doubt(picture, classes[given], words[0], classes[answer], words[1], inputs.file_of(index)))
    return found


def doubts_sentence(inputs: Inputs) -> str:
    """Say how many labels look wrong."""
    doubted = inputs.gallery.doubts
    if doubted is None:
        return ""
    if (accuracy := inputs.test.accuracy.value) < GOOD_ENOUGH:
        return say(
            "This network is not good enough to doubt a label: it would take an accuracy of {needed}, and it has "
            "{accuracy}.",
            needed=percent(GOOD_ENOUGH, decimals=0),
            accuracy=percent(accuracy),
        )
    number, total = len(doubted.indices), inputs.test.num_images
    if not number:
        images = counted(total, "image")
        return say("Confident learning (cleanlab) doubts no label of the test split ({images}).", images=images)
    sentences = [
        say(
            "Confident learning (cleanlab) doubts {labels} of {total} on the test split, from this network's "
            "probabilities alone.",
            labels=counted(number, "label"),
            total=grouped(total),
        ),
        say("The {shown} least credible are shown.", shown=NUM_DOUBTS) if number > NUM_DOUBTS else "",
        say(
            "A doubted label may be wrong, or its image only hard: only a person can tell. No metric on this page "
            "leaves out such images."
        ),
    ]
    return " ".join(filter(None, sentences))

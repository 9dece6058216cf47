"""The findings in a few sentences: accuracy, comparison with published results, confusions and overfitting."""

import numpy as np
from numpy.typing import NDArray

from reslab.language import decimal, grouped, say
from reslab.measure.estimates import difference as difference_of
from reslab.measure.homogeneity import homogeneity_p
from reslab.records import Estimate, ExtensionFigures, SplitFigures
from reslab.report.few_images import few_images
from reslab.report.inputs import Inputs
from reslab.report.nearest import PublishedRow, difference
from reslab.words import counted, figure, interval, listing, named, percent, percent_of_whole, points

FEWEST_CONFUSED = 3  # images of one class taken for another; fewer are no finding
MISTAKES_NAMED = 3  # up to so many mistakes in all, each is named
OVERFITS = 0.005  # of accuracy; less is no finding
IN_SERIES = 0.05  # of the test images; fewer are no finding
EXCLUDED = 0.02  # of accuracy; only where a larger gap is excluded does a network not overfit
SIGNIFICANT = 0.05  # p, below which classes differ


def findings(inputs: Inputs, *, row: PublishedRow | None) -> list[str]:
    """Sum up an evaluated run in sentences, the most important first."""
    evaluation = inputs.evaluation
    test, classes = evaluation.splits["test"], evaluation.classes
    found = [] if evaluation.extension is None else [gain(test, evaluation.extension)]
    found.append(strength(test, classes))
    if doubt := doubt_scenes(test):
        found.append(doubt)
    if note := few_images(test):
        found.append(note)
    if row is not None:
        found.append(beside_published(test, row))
    found.append(confusion(test, classes))
    if "train" in evaluation.splits and inputs.recipe.imported is None:  # else what it was trained on is not known
        found.append(overfitting(test, evaluation.splits["train"]))
    return found


def gain(test: SplitFigures, extension: ExtensionFigures) -> str:
    """Say what an extension has gained and lost, and how often it takes new classes for old ones and vice versa."""
    matrix, num_old = np.array(test.confusion_matrix), extension.num_old
    change = extension.old_change
    learned = figure(extension.new_macro_f1)
    taught = (
        say(
            "It has learned the new classes with macro F1 {f1}; the accuracy on the old ones changed by {change} "
            "points {interval}.",
            f1=learned,
            change=points(change.value),
            interval=interval(change.low, change.high, unit="points"),
        )
        if change.value
        else say(
            "It has learned the new classes with macro F1 {f1}; the accuracy on the old ones has not changed.",
            f1=learned,
        )
    )
    taken = say(
        "It takes {missed} of {new} images of new classes for old ones, and {called} of {old} images of old classes "
        "for new ones.",
        new=grouped(int(matrix[num_old:].sum())),
        missed=grouped(int(matrix[num_old:, :num_old].sum())),
        old=grouped(int(matrix[:num_old].sum())),
        called=grouped(int(matrix[:num_old, num_old:].sum())),
    )
    return f"{taught} {taken}"


def strength(test: SplitFigures, classes: tuple[str, ...]) -> str:
    """Say how many test images are classified correctly, and which classes best, unless most are or chance decides."""
    recalls = np.array([each.recall.value for each in test.per_class])
    best = np.flatnonzero(recalls == recalls.max())
    right = {"accuracy": figure(test.accuracy), "images": grouped(test.num_images)}
    if len(best) > max(1, len(classes) // 2) or not tells_classes_apart(test):
        return say("It classifies {accuracy} of {images} test images correctly.", **right)
    recall = percent_of_whole(float(recalls.max()), decimals=0)
    if len(best) > 1:
        return say(
            "It classifies {accuracy} of {images} test images correctly; its best classes are {best} ({recall} each).",
            **right,
            best=named([say("“{name}”", name=classes[place]) for place in best], most=3),
            recall=recall,
        )
    return say(
        "It classifies {accuracy} of {images} test images correctly; its best class is “{best}” ({recall}).",
        **right,
        best=classes[int(best[0])],
        recall=recall,
    )


def doubt_scenes(test: SplitFigures) -> str | None:
    """Say how many test images may show the scene of a training image, if they are more than a few."""
    num = test.without_series.num_in_series if test.without_series else 0
    if num <= max(1, IN_SERIES * test.num_images):
        return None
    return say(
        "Of these, {num} were taken within seconds of a training image and may show the same scene, so its accuracy on "
        "other scenes may be lower.",
        num=grouped(num),
    )


def tells_classes_apart(test: SplitFigures) -> bool:
    """Tell whether recalls differ by more than chance, which alone makes one of many classes the best."""
    matrix = np.array(test.confusion_matrix)
    totals = matrix.sum(axis=1)
    return homogeneity_p(matrix.diagonal()[totals > 0], totals=totals[totals > 0]) < SIGNIFICANT


def beside_published(test: SplitFigures, row: PublishedRow) -> str:
    """Say how the accuracy compares with the nearest published row."""
    sentence = {
        "same": say(
            "The same network, {network}, is published at {accuracy}", network=row.network, accuracy=row.accuracy
        ),
        "architecture": say(
            "The nearest published network of this architecture, {network}, reaches {accuracy}",
            network=row.network,
            accuracy=row.accuracy,
        ),
        "size": say(
            "Nothing is published for this architecture; the nearest in size, {network}, reaches {accuracy}",
            network=row.network,
            accuracy=row.accuracy,
        ),
    }[row.kin]
    judged = row.judged(test)
    if judged is None:
        return f"{sentence}; {_gap(row, test.accuracy)}, {say('measured without it')}."
    return f"{sentence}; {_gap(row, judged)}."


def _gap(row: PublishedRow, accuracy: Estimate) -> str:
    gap = difference(row, accuracy)
    size, ends = decimal(100 * abs(gap.value), 2), interval(gap.low, gap.high, unit="points")
    if size == decimal(0, 2):
        return say("this run reaches the same {interval}", interval=ends).strip()
    side = (
        say("this run is {size} points above it {interval}")
        if gap.value > 0
        else say("this run is {size} points below it {interval}")
    )
    return side.format(size=size, interval=ends).strip()


def confusion(test: SplitFigures, classes: tuple[str, ...]) -> str:
    """Say which two classes are confused most, and how often each way."""
    matrix = np.array(test.confusion_matrix)
    np.fill_diagonal(matrix, 0)
    shares = matrix / np.maximum(1, np.array([each.support for each in test.per_class]))[:, None]
    most = np.where(matrix == matrix.max(), shares, -1)  # among pairs that are confused equally often, the larger share
    true, predicted = (int(place) for place in np.unravel_index(int(most.argmax()), matrix.shape))
    if not matrix[true, predicted]:
        return say("It made no mistake on the test images.")
    if matrix[true, predicted] < FEWEST_CONFUSED:
        return _few_mistakes(matrix, classes)
    wrong, support = int(matrix[true, predicted]), test.per_class[true].support
    back = int(matrix[predicted, true])
    return say(
        "It most often takes “{true}” for “{predicted}”: {wrong} of the {images} of “{true}” ({share}), and {back}.",
        true=classes[true],
        predicted=classes[predicted],
        wrong=grouped(wrong),
        images=counted(support, "image"),
        share=percent_of_whole(wrong / max(1, support), decimals=1),
        back=say("{number} the other way round", number=grouped(back)) if back else say("none the other way round"),
    )


def _few_mistakes(matrix: NDArray[np.int64], classes: tuple[str, ...]) -> str:
    """Name each mistake of a matrix without its diagonal, or say how few there are of each kind."""
    if matrix.sum() > MISTAKES_NAMED:
        return (
            say("It mistakes no class for another more than twice.")
            if matrix.max() > 1
            else say("It mistakes no class for another more than once.")
        )
    mistakes = [
        say("“{true}” taken for “{predicted}” twice", true=classes[true], predicted=classes[predicted])
        if matrix[true, predicted] > 1
        else say("“{true}” taken for “{predicted}”", true=classes[true], predicted=classes[predicted])
        for true, predicted in np.argwhere(matrix)
    ]
    if matrix.sum() == 1:
        return say("It made one mistake: {mistake}.", mistake=mistakes[0])
    return say(
        "It made {number}: {mistakes}.", number=counted(int(matrix.sum()), "mistake"), mistakes=listing(mistakes)
    )


def overfitting(test: SplitFigures, train: SplitFigures) -> str:
    """Say how far the accuracy on training images exceeds that on test images, if both are of all classes.

    Few test images leave both open: the interval of the gap decides whether there is one, and whether there is none.
    Splits with different shares of the classes are compared by balanced accuracy: rare classes are harder.
    """
    if absent := sum(each.support == 0 for each in train.per_class):
        return say(
            "There are no training images of {classes}, so overfitting cannot be measured.",
            classes=counted(absent, "class"),
        )
    if _differ_in_mix(train, test):
        why = say("That compares balanced accuracies, since the splits show the classes in different proportions.")
        return f"{_excess(test.balanced_accuracy, train.balanced_accuracy, num_images=test.num_images)} {why}"
    return _excess(test.accuracy, train.accuracy, num_images=test.num_images)


def _differ_in_mix(train: SplitFigures, test: SplitFigures) -> bool:
    """Return whether training accuracy would be a different one with the class frequencies of the test images."""
    reweighted = sum(
        of_train.recall.value * of_test.support / test.num_images
        for of_train, of_test in zip(train.per_class, test.per_class, strict=True)
    )
    return abs(reweighted - train.accuracy.value) >= OVERFITS


def _excess(test: Estimate, train: Estimate, *, num_images: int) -> str:
    gap = difference_of(test, after=train)
    known, images = percent(train.value), counted(num_images, "test image")
    if gap.value < OVERFITS and gap.high <= EXCLUDED:
        return say("On its training images it reaches {accuracy}: it does not overfit.", accuracy=known)
    if gap.value < OVERFITS:
        return say(
            "On its training images it reaches {accuracy}, no clear gap; but {images} cannot exclude one of up to "
            "{most} points.",
            accuracy=known,
            images=images,
            most=decimal(100 * gap.high, 1),
        )
    if gap.low <= 0:
        return say(
            "On its training images it reaches {accuracy}; with {images}, the gap of {excess} points may be chance.",
            accuracy=known,
            images=images,
            excess=decimal(100 * gap.value, 1),
        )
    return say(
        "On its training images it reaches {accuracy}, so it overfits by {excess} points {interval}.",
        accuracy=known,
        excess=decimal(100 * gap.value, 1),
        interval=interval(gap.low, gap.high, unit="points", decimals=1),
    )

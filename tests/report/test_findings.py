"""What was found, in sentences, and the published row that a run is held against."""

import numpy as np
import pytest

from reslab.language import read_language, speaking
from reslab.measure.estimates import proportion, proportions
from reslab.recipe.networks import FastConv, NiN, Plain, PreActResNet, ResNet, WideResNet
from reslab.recipe.recipe import derive
from reslab.recipe.shipped import RECIPES
from reslab.records import AugmentedFigures, Estimate, SplitFigures, WithoutSeries
from reslab.report.findings import beside_published, confusion, findings, overfitting, strength
from reslab.report.inputs import read_inputs
from reslab.report.nearest import nearest_row

LAB = RECIPES["lab-resnet32-short"]


@pytest.mark.parametrize(
    ("recipe", "network", "accuracy", "kin"),
    [
        (RECIPES["lab-resnet32"], "Pre-activation ResNet-32", 0.9268, "same"),
        (LAB, "Pre-activation ResNet-32", 0.9268, "same"),
        (RECIPES["fast-resnet20"], "Pre-activation ResNet-20", 0.9182, "same"),
        (derive(LAB, name="deeper", model=PreActResNet(depth=56)), "Pre-activation ResNet-32", 0.9268, "architecture"),
        (derive(LAB, name="wider", model=PreActResNet(depth=32, width=64)), "Pre-activation ResNet-32", 0.9268,
         "architecture"),
        (derive(LAB, name="wide", model=WideResNet(depth=16, widening=10)), "Wide ResNet 16-8", 0.9513, "architecture"),
        (RECIPES["resnet-56"], "ResNet-56", 0.9303, "same"),
        (derive(LAB, name="shortcut", model=ResNet(depth=56, shortcut="B")), "ResNet-56", 0.9303, "architecture"),
        (derive(LAB, name="dropout", model=NiN(dropout=0)), "Network in Network", 0.9163, "architecture"),
        (RECIPES["fast94"], "airbench94", 0.9405, "same"),
        (derive(LAB, name="plain", model=Plain(depth=20)), "Pre-activation ResNet-32", 0.9268, "size"),
    ],
)  # fmt: skip
def test_the_nearest_row_is_of_the_same_architecture_where_there_is_one(recipe, network, accuracy, kin):
    row = nearest_row(recipe, num_parameters=450_000)
    assert (row.network, row.published.low, row.kin) == (network, accuracy, kin)


def test_nothing_is_published_for_own_data():
    assert nearest_row(RECIPES["digits-quick"], num_parameters=100) is None
    assert nearest_row(RECIPES["fast-cifar100"], num_parameters=100) is None


def test_a_figure_with_augmentation_is_only_held_against_one_with_it(rich):
    row = nearest_row(derive(RECIPES["fast94"], name="mine", model=FastConv()), num_parameters=1)
    test = rich.evaluation.splits["test"]
    measured = Estimate(value=0.9505, low=0.94, high=0.96)
    figures = test.test_time_augmentation.figures.model_copy(update={"accuracy": measured})
    with_views = test.model_copy(update={"test_time_augmentation": AugmentedFigures(views=6, figures=figures)})
    without = test.model_copy(update={"test_time_augmentation": None})
    assert beside_published(with_views, row).endswith("this run is 1.00 points above it (−0.05 to +1.95).")
    assert beside_published(without, row).endswith("measured without it.")
    equal = measured.model_copy(update={"value": row.published.low})
    alike = with_views.test_time_augmentation.figures.model_copy(update={"accuracy": equal})
    level = test.model_copy(update={"test_time_augmentation": AugmentedFigures(views=6, figures=alike)})
    assert beside_published(level, row).endswith("this run reaches the same (−0.05 to +1.95).")


def tell(matrix, train=None):
    """Sum up figures whose classes have these counts."""
    counts = np.array(matrix)
    estimate = Estimate(value=counts.trace() / counts.sum(), low=0.5, high=0.9)
    recalls = proportions(counts.diagonal(), total=counts.sum(1))
    per_class = [
        {"precision": estimate, "recall": recall, "f1": estimate,
         "support": int(row.sum())}
        for recall, row in zip(recalls, counts, strict=True)
    ]  # fmt: skip
    names = ("accuracy", "balanced_accuracy", "macro_precision", "macro_recall", "macro_f1", "log_loss")
    figures = dict.fromkeys((*names, "expected_calibration_error"), estimate)
    balanced = float(np.mean([each.value for each in recalls]))
    figures["balanced_accuracy"] = Estimate(value=balanced, low=max(0, balanced - 0.02), high=min(1, balanced + 0.02))
    figures["accuracy"] = proportion(np.asarray(counts.trace()), total=np.asarray(counts.sum()))
    others = {"num_images": int(counts.sum()), "per_class": per_class, "confusion_matrix": counts.tolist()}
    return SplitFigures.model_validate(figures | others)


def test_sentences_say_what_the_matrix_says():
    test, train = tell([[6, 4], [1, 9]]), tell([[20, 0], [1, 19]])
    plain = lambda text: text.replace("\u00a0", " ")  # noqa: E731
    classes = ("cat", "dog")
    assert plain(strength(test, classes)) == "It classifies 75.00 % (53.58–89.76) of 20 test images correctly."
    more = tell([[60, 40], [10, 90]])
    assert plain(strength(more, classes)).endswith("of 200 test images correctly; its best class is “dog” (90 %).")
    said = "It most often takes “cat” for “dog”: 4 of the 10 images of “cat” (40.0 %), and 1 the other way round."
    assert plain(confusion(test, classes)) == said
    one_way = tell([[6, 4], [0, 10]])
    assert plain(confusion(one_way, classes)) == said.replace("and 1", "and none")
    with speaking(read_language("ru")):
        assert confusion(test, classes).endswith("; наоборот — 1.")
        assert confusion(one_way, classes).endswith("; наоборот — ни разу.")
    assert plain(overfitting(test, train)).endswith("97.50 %, so it overfits by 22.5 points (+5.4 to +44.1).")
    one_class = tell([[0, 0], [1, 9]])
    assert overfitting(test, one_class) == (
        "There are no training images of 1 class, so overfitting cannot be measured."
    )
    assert plain(strength(tell([[9, 1], [1, 9]]), classes)).endswith("test images correctly.")
    three = tell([[9, 1, 0], [0, 10, 0], [5, 0, 5]])
    assert plain(strength(three, ("a", "b", "c"))).endswith("its best class is “b” (100 %).")
    almost = tell([[997, 3, 0], [500, 500, 0], [500, 0, 500]])
    assert plain(strength(almost, ("a", "b", "c"))).endswith("its best class is “a” (99.7 %).")
    tied = tell([[90, 0, 10, 0], [0, 100, 0, 0], [0, 0, 100, 0], [0, 30, 0, 70]])
    assert plain(strength(tied, ("a", "b", "c", "d"))).endswith("its best classes are “b” and “c” (100 % each).")
    uneven = tell([[87, 13, 0], [0, 100, 0], [0, 13, 7]])  # as many images, but more of the class
    assert "takes “c” for “b”: 13 of the 20" in plain(confusion(uneven, ("a", "b", "c")))


@pytest.mark.parametrize(
    ("test", "train", "said"),
    [
        ([[13, 0], [0, 13]], [[60, 0], [0, 60]], "100.00 %, no clear gap; but 26 test images cannot exclude one of up "
         "to 13.2 points."),
        ([[20, 0], [1, 19]], [[60, 0], [0, 60]], "100.00 %; with 40 test images, the gap of 2.5 points may be chance."),
        ([[5000, 10], [10, 5000]], [[5000, 9], [9, 5000]], "it does not overfit."),
        ([[4500, 500], [500, 4500]], [[5000, 9], [9, 5000]], "so it overfits by 9.8 points (+9.2 to +10.4)."),
    ],
)  # fmt: skip
def test_few_test_images_give_no_verdict_on_overfitting(test, train, said):
    assert overfitting(tell(test), tell(train)).replace("\u00a0", " ").endswith(said)


@pytest.mark.parametrize(("num", "is_said"), [(0, False), (5, False), (6, True), (100, True)])
def test_test_images_of_the_scenes_of_training_images_are_doubted(rich, num, is_said):
    inputs = read_inputs(rich)
    test = inputs.evaluation.splits["test"].model_copy(
        update={
            "num_images": 100,
            "without_series": WithoutSeries(num_in_series=num, accuracy=None) if num else None,
        }
    )
    evaluation = inputs.evaluation.model_copy(update={"splits": inputs.evaluation.splits | {"test": test}})
    said = findings(inputs._replace(evaluation=evaluation), row=None)
    assert any(f"Of these, {num} were taken within seconds of a training image" in each for each in said) == is_said


def test_one_image_is_spoken_of_as_one():
    one = tell([[1, 0], [0, 0]])
    assert "but 1 test image cannot exclude" in overfitting(one, tell([[60, 0], [0, 60]]))
    many = tell([[51, 0], [0, 50]])
    with speaking(read_language("ru")):
        said = overfitting(many, tell([[60, 0], [0, 60]]))
    assert "но при таком числе изображений (101 тестовое изображение) не исключён разрыв" in said


def test_splits_of_other_shares_of_classes_are_compared_by_balanced_accuracy():
    """A class that is rare in training alone, and hard in both splits, is no overfitting."""
    said = overfitting(tell([[95, 5], [40, 60]]), tell([[980, 20], [8, 12]])).replace("\u00a0", " ")
    assert said == (
        "On its training images it reaches 79.00 %; with 200 test images, the gap of 1.5 points may be chance. "
        "That compares balanced accuracies, since the splits show the classes in different proportions."
    )


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        ([[5, 0], [0, 5]], "It made no mistake on the test images."),
        ([[5, 0], [1, 4]], "It made one mistake: “dog” taken for “cat”."),
        ([[8, 2], [1, 9]], "It made 3 mistakes: “cat” taken for “dog” twice and “dog” taken for “cat”."),
        ([[8, 2], [2, 8]], "It mistakes no class for another more than twice."),
        ((8 * np.eye(3) + 1).tolist(), "It mistakes no class for another more than once."),
    ],
)  # fmt: skip
def test_few_mistakes_are_named(matrix, said):
    assert confusion(tell(np.array(matrix, int)), ("cat", "dog", "eft")) == said


def test_a_page_begins_with_its_findings(rich, rich_page):
    row = nearest_row(rich.recipe, num_parameters=29)
    lead = " ".join(findings(read_inputs(rich), row=row)).replace("\u00a0", " ")
    before, _, _ = rich_page.text[""].partition("Contents")
    assert lead in before
    assert "this run is 14" in lead  # 86 % of the test images, where 70 to 72 % are published

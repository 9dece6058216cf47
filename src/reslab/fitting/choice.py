"""Which frozen network, image size and head classify the training images best, judged out of folds.

Where pictures are no squares, it also judges how they become some.

Whatever is judged, was computed without the images that it is judged on; no other split is read.
Axes: N images, V views, D features, K classes.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.model_selection import StratifiedKFold

from reslab.data.images import ImageSet
from reslab.errors import UserError
from reslab.measure.estimates import proportion
from reslab.pretrained import Pretrained, is_installed
from reslab.pretrained.heads import STRENGTHS, Head, Integers, Method, solve
from reslab.recipe.networks import MODELS, EfficientNetLite
from reslab.recipe.recipe import LinearHead
from reslab.recipe.shapes import Resizing
from reslab.records import Candidate
from reslab.words import duration, percent

FOLDS = 5
MARGIN = 1.3  # by which things may take longer than measured before
NUM_VIEWS = 2  # the image and its mirror image
SIZES = {"efficientnet_lite0": (128, 192, 256), "efficientnet_lite1": (256,), "efficientnet_lite2": (256,)}
LARGEST_ENLARGED = 256  # pixels
COSTLIER = {"efficientnet_lite0": 1.0, "efficientnet_lite1": 1.6, "efficientnet_lite2": 2.2}  # at equal size

Features = NDArray[np.float32]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Readers:
    """What reads training images, and the validation images that their source brings, however they become squares.

    `resizings` are the ways that are worth comparing, and reading the pictures anew takes about so many `seconds`.
    """

    training: Callable[[Resizing], ImageSet]
    validation: Callable[[Resizing], ImageSet | None] = lambda resize: None
    resizings: tuple[Resizing, ...] = ("squeeze",)
    seconds: float = 0.0


@dataclass(frozen=True)
class Backbone:
    """A frozen network at an image size, and how pictures become its squares."""

    network: str
    image_size: int
    resize: Resizing = "squeeze"

    @property
    def options(self) -> EfficientNetLite:
        """The network's description."""
        options = MODELS[self.network]
        assert isinstance(options, EfficientNetLite)
        return options.model_copy(update={"resize": self.image_size})

    @property
    def cost(self) -> float:
        """How long it computes, against the smallest network at 128 pixels."""
        return COSTLIER[self.network] * (self.image_size / 128) ** 2


@dataclass(frozen=True)
class FittedHead:
    """A head on a backbone, its temperature inside, what it said out of folds (N, K), and how good that was."""

    backbone: Backbone
    head: Head
    logits: NDArray[np.floating]
    candidate: Candidate
    temperature: float
    train_loss: float  # of the head, on the images it was solved on
    train_accuracy: float

    @property
    def loss(self) -> float:
        """The log loss out of folds."""
        assert self.candidate.log_loss is not None
        return self.candidate.log_loss


@dataclass(frozen=True)
class Budget:
    """So many minutes, from when on, by the clock of `time.monotonic`."""

    minutes: float
    began: float

    @classmethod
    def of(cls, minutes: float) -> "Budget":
        """Begin now."""
        return cls(minutes, time.monotonic())

    @property
    def until(self) -> float:
        """When the time is over."""
        return self.began + 60 * self.minutes

    @property
    def spent(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds that are left; below 0 where it is overdrawn."""
        return 60 * self.minutes - self.spent

    def has(self, seconds: float) -> bool:
        """Tell whether something that takes so long would end in time, with a margin for what else is computed."""
        return MARGIN * seconds < self.left

    def share(self, share: float) -> "Budget":
        """Give a budget of the first part of the time."""
        return Budget(share * self.minutes, self.began)


def check_counts(images: ImageSet) -> None:
    """Raises: UserError where there are fewer than two classes, or one of them has fewer than two training images."""
    if len(images.classes) < 2:
        raise UserError(f"{images.expression!r} has one class, {images.classes[0]!r}: a classifier needs at least two")
    for name, count in zip(images.classes, images.counts(), strict=True):
        if count < 2:
            raise UserError(
                f"class {name!r} has {count} training image(s), but choosing by cross-validation needs two of each "
                "class at least: add pictures of it"
            )


def backbones(*, stored_size: int) -> Iterator[Backbone]:
    """List what is worth trying, cheapest first.

    A small picture is worth enlarging, since the networks have learned from large ones.
    """
    for network, sizes in SIZES.items():
        if is_installed(network):
            yield from (Backbone(network, size) for size in sizes if size <= max(stored_size, LARGEST_ENLARGED))


def choose(
    pictures: Readers, *, candidates: list[Backbone], budget: Budget, say: Say, one_head: bool = False
) -> tuple[FittedHead, list[Candidate]]:
    """Judge a discriminant analysis on each backbone, then the logistic regression on the best one and their mean.

    The first backbone decides how pictures become squares. With `one_head` the analysis is all. Whatever would take
    more than is left of the budget is left out, but not the first. All is given as it was judged.
    """
    labels = pictures.training("squeeze").labels.numpy()
    judged: list[Candidate] = []
    best: FittedHead | None = None
    views = np.empty((0, 0, 0), dtype=np.float32)
    speed = math.inf  # images of a size of one cost a second

    def note(found: FittedHead) -> FittedHead:
        judged.append(found.candidate)
        say(describe(found.candidate))
        return found

    def consider(backbone: Backbone, *, reading: float = 0.0) -> FittedHead:
        """Judge a backbone, unless it takes too long; `reading` are the seconds until its pictures are there."""
        nonlocal speed, views
        cost = backbone.cost * NUM_VIEWS * len(labels)
        if best is not None and not budget.has(seconds := reading + cost / speed + best.candidate.seconds):
            judged.append(_left_out(backbone, seconds=seconds))
            return best
        say(f"compute {named(backbone).words}{_about(reading + cost / speed)}")
        images = pictures.training(backbone.resize)
        began = time.perf_counter()
        computed = compute_views(images, backbone)
        speed = min(speed, cost / (time.perf_counter() - began))
        found = note(judge(computed, labels, backbone=backbone, method="lda"))
        if best is not None and best.loss <= found.loss:
            return best
        views = computed
        return found

    first, *others = candidates
    for resize in pictures.resizings:
        best = consider(replace(first, resize=resize), reading=pictures.seconds if best else 0.0)
    assert best is not None
    for other in others:
        best = consider(replace(other, resize=best.backbone.resize))
    if one_head:
        pass  # the analysis is all
    elif budget.has(seconds := logistic_seconds(views)):
        logistic = note(judge(views, labels, backbone=best.backbone, method="logistic"))
        both = note(average(best, logistic, features=views[0], labels=labels))
        best = min((best, logistic, both), key=lambda found: found.loss)
    else:
        judged.append(_left_out(best.backbone, seconds=seconds, what="its logistic regression"))
    return best, [each.model_copy(update={"chosen": each is best.candidate}) for each in judged]


def _about(seconds: float) -> str:
    """Say how long it takes, where that is known."""
    return f", about {duration(seconds)}" if seconds else ""


def _left_out(backbone: Backbone, *, seconds: float, what: str = "it") -> Candidate:
    return named(backbone).model_copy(
        update={"left_out": f"{what} would take about {duration(seconds)}, more than was left"}
    )


def named(backbone: Backbone) -> Candidate:
    """Name a backbone as a candidate that is still to be judged."""
    return Candidate(network=backbone.network, image_size=backbone.image_size, resize=backbone.resize)


def compute_views(images: ImageSet, backbone: Backbone) -> Features:
    """Compute the features (V, N, D) of the images as they are and mirrored."""
    network = Pretrained(backbone.network, image_size=backbone.image_size)
    # One view after the other: each is cached for itself.
    return np.stack([network.features(images.images, mirrored=mirrored) for mirrored in (False, True)])


def judge(views: Features, labels: Integers, *, backbone: Backbone, method: Method) -> FittedHead:
    """Choose the strength with the least log loss out of folds, each one's temperature at its best, and solve on all.

    A fold holds images, never one view of them: the others' views are what its head is computed from.
    """
    began = time.perf_counter()
    strengths = STRENGTHS[method]
    logits = np.empty((len(strengths), len(labels), int(labels.max()) + 1))
    for kept, held in split_folds(labels):
        for place, head in enumerate(solve(method, *stack(views[:, kept], labels[kept]), strengths=strengths)):
            logits[place, held] = head.logits(views[0, held])
    losses = [log_loss(each / fit_temperature(each, labels), labels) for each in logits]
    place = int(np.argmin(losses))
    (head,) = solve(method, *stack(views, labels), strengths=(strengths[place],))
    return _found(
        backbone,
        head,
        logits[place],
        labels,
        features=views[0],
        made=_describe_head(method, strengths[place]),
        seconds=time.perf_counter() - began,
    )


def average(first: FittedHead, second: FittedHead, *, features: Features, labels: Integers) -> FittedHead:
    """Take the mean of the logits of two heads on one backbone, which is a head."""
    mean = (first.logits + second.logits) / 2
    made = LinearHead.model_validate(_settings(first) | _settings(second))
    return _found(first.backbone, first.head.averaged(second.head), mean, labels, features=features, made=made)


def _found(
    backbone: Backbone,
    head: Head,
    logits: NDArray[np.floating],
    labels: Integers,
    *,
    features: Features,
    made: LinearHead,
    seconds: float = 0.0,
) -> FittedHead:
    temperature = fit_temperature(logits, labels)
    head, logits = head.divided(temperature), logits / temperature
    hits = np.array((logits.argmax(1) == labels).sum())
    candidate = named(backbone).model_copy(
        update={
            "head": made,
            "accuracy": proportion(hits, total=np.array(len(labels))),
            "log_loss": log_loss(logits, labels),
            "seconds": seconds,
        }
    )
    answers = head.logits(features)
    accuracy = float((answers.argmax(1) == labels).mean())
    return FittedHead(backbone, head, logits, candidate, temperature, log_loss(answers, labels), accuracy)


def _describe_head(method: Method, strength: float) -> LinearHead:
    return LinearHead(shrinkage=strength) if method == "lda" else LinearHead(penalty=strength)


def _settings(found: FittedHead) -> dict[str, float]:
    assert found.candidate.head is not None
    return found.candidate.head.model_dump(exclude_none=True)


def split_folds(labels: Integers) -> Iterator[tuple[Integers, Integers]]:
    """Cut the images into folds, each class in proportion: five, or as many as the smallest class has images."""
    num = min(FOLDS, int(np.bincount(labels).min()))
    yield from StratifiedKFold(num, shuffle=True, random_state=0).split(np.zeros(len(labels)), labels)


def stack(views: Features, labels: Integers) -> tuple[Features, Integers]:
    """Put the views (V, N, D) under each other, (V x N, D), with their labels."""
    return views.reshape(-1, views.shape[2]), np.tile(labels, len(views))


def fit_temperature(logits: NDArray[np.floating], labels: Integers) -> float:
    """Find the temperature with the least smoothed log loss (Guo et al. 2017, arXiv:1706.04599)."""
    found = minimize_scalar(lambda power: _smoothed_loss(logits / 10**power, labels), bounds=(-2, 3), method="bounded")
    return float(10**found.x)


def log_loss(logits: NDArray[np.floating], labels: Integers) -> float:
    """Compute the mean cross-entropy with the labels."""
    return float(_surprise(logits)[np.arange(len(labels)), labels].mean())


def _smoothed_loss(logits: NDArray[np.floating], labels: Integers) -> float:
    """Compute the cross-entropy with the labels, none of which is held for certain.

    A label of n images a class has the probability (n + 1) / (n + 2), as Platt 1999 has it: a few answers that are all
    right are no reason for a temperature of zero.
    """
    num_images, num_classes = logits.shape
    doubt = 1 / (num_images / num_classes + 2)
    losses = _surprise(logits)
    right = losses[np.arange(num_images), labels]
    wrong = (losses.sum(1) - right) / (num_classes - 1)
    return float(((1 - doubt) * right + doubt * wrong).mean())


def _surprise(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    """Compute the loss (N, K) of each class, were it the right one."""
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(np.log(np.exp(shifted).sum(1, keepdims=True)) - shifted)


def describe(candidate: Candidate) -> str:
    """Say in a line how good a candidate is."""
    assert candidate.accuracy is not None
    accuracy = percent(candidate.accuracy.value, decimals=1)
    return f"{candidate.words}: {accuracy} {candidate.judged_on}, log loss {candidate.log_loss:.3f}"


def logistic_seconds(views: Features) -> float:
    """Guess how long the logistic regressions take, from above."""
    num_rows = views.shape[0] * views.shape[1]
    return float(1 + num_rows * min(num_rows, views.shape[2]) * 2e-5)

"""Choose the frozen network, image size and head that classify the training images best out of folds.

If pictures are not square, the way they become square is chosen too.

Every candidate is judged on images that it was not computed from; no other split is read.
Axes: N images, V views, D features, K classes.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reslab.data.expression import find_groupings
from reslab.data.folds import Folds, number_groups, split_folds
from reslab.data.framing import Form
from reslab.data.images import ImageSet
from reslab.data.load import check_classes
from reslab.data.sizes import find_image_size
from reslab.errors import UserError
from reslab.measure.calibration import fit_temperature_smoothed
from reslab.measure.estimates import share_of
from reslab.measure.metrics import log_loss
from reslab.pretrained import Pretrained, is_installed
from reslab.pretrained.heads import STRENGTHS, Head, Integers, Method, relative_spread, solve
from reslab.recipe.networks import MODELS, EfficientNetLite
from reslab.recipe.recipe import LinearHead
from reslab.recipe.shapes import Resizing
from reslab.records import Candidate
from reslab.words import duration, percent

FEW_GROUPS = 20  # fewer say little about other groups
MARGIN = 1.3  # factor by which things may take longer than estimated
FORECAST_FROM = 1000  # pictures, from which on the first candidate has a forecast
NUM_VIEWS = 2  # the image and its mirror image
SIZES = {"efficientnet_lite0": (128, 192, 256), "efficientnet_lite1": (256,), "efficientnet_lite2": (256,)}
LARGEST_ENLARGED = 256  # pixels
LARGEST_STORED = 192  # pixels a side; larger photographs bring no gain
COSTLIER = {"efficientnet_lite0": 1.0, "efficientnet_lite1": 1.6, "efficientnet_lite2": 2.2}  # at the same size

Features = NDArray[np.float32]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Readers:
    """Functions that read the training images, and the source's own validation images, for a way of resizing.

    `resizings` are the ways worth comparing, and reading the pictures again takes about `seconds`.
    """

    training: Callable[[Resizing], ImageSet]
    validation: Callable[[Resizing], ImageSet | None] = lambda resize: None
    resizings: tuple[Resizing, ...] = ("squeeze",)
    seconds: float = 0.0


@dataclass(frozen=True)
class Backbone:
    """A frozen network at an image size, with a way of making pictures square."""

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
        """Computing time relative to the smallest network at 128 pixels."""
        return COSTLIER[self.network] * (self.image_size / 128) ** 2


@dataclass(frozen=True)
class FittedHead:
    """A calibrated head on a backbone, its out-of-fold logits (N, K), and their metrics."""

    backbone: Backbone
    head: Head
    logits: NDArray[np.floating]
    candidate: Candidate
    temperature: float
    train_loss: float  # on the images that the head was solved on
    train_accuracy: float

    @property
    def loss(self) -> float:
        """The out-of-fold log loss."""
        assert self.candidate.log_loss is not None
        return self.candidate.log_loss


@dataclass(frozen=True)
class Budget:
    """A number of minutes from a start by `time.monotonic`."""

    minutes: float
    began: float

    @classmethod
    def of(cls, minutes: float) -> "Budget":
        """Begin now."""
        return cls(minutes, time.monotonic())

    @property
    def until(self) -> float:
        """The time at which the budget ends, by `time.monotonic`."""
        return self.began + 60 * self.minutes

    @property
    def spent(self) -> float:
        """Seconds spent so far."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds left; negative if overdrawn."""
        return 60 * self.minutes - self.spent

    def has(self, seconds: float) -> bool:
        """Return whether something that takes `seconds` would end in time, with a safety margin."""
        return MARGIN * seconds < self.left

    def share(self, share: float) -> "Budget":
        """Return a budget of the first part of the time."""
        return Budget(share * self.minutes, self.began)


def find_stored_form(expression: str, *, data_dir: Path | None = None) -> Form:
    """Find the size at which the pictures of an expression are stored. Raises: as `find_image_size`."""
    return Form(find_image_size(expression, largest=LARGEST_STORED, data_dir=data_dir))


def check_counts(images: ImageSet) -> None:
    """Raises: UserError if there are fewer than two classes, or one has fewer than two training images or groups."""
    check_classes(images)
    labels, groups = images.labels.numpy(), number_groups(images.keys, num=len(images.labels))
    for label, (name, count) in enumerate(zip(images.classes, images.counts(), strict=True)):
        if count < 2:
            raise UserError(
                f"class {name!r} has {count} training image(s), but choosing by cross-validation needs two of each "
                "class at least: add pictures of it"
            )
        if len(np.unique(groups[labels == label])) < 2:
            if rules := find_groupings(images.expression):
                kind, _, minutes = rules[0].partition(":")
                finer = " (such as time:1)" if kind == "time" and float(minutes) > 1 else ""
                raise UserError(
                    f"?group={rules[0]} puts all {count} training images of class {name!r} in one group, but choosing "
                    f"by cross-validation needs two groups of each class at least: use a finer grouping{finer}, or add "
                    "pictures of another series"
                )
            if images.digests is not None and len(np.unique(images.digests[labels == label])) > 1:
                raise UserError(
                    f"the table's column of groups puts all {count} training images of class {name!r} in one group, "
                    "but choosing by cross-validation needs two groups of each class at least: ignore the column with "
                    "?group=none, or add pictures of another group"
                )
            raise UserError(
                f"the {count} training images of class {name!r} are copies or one group, but choosing by "
                "cross-validation needs two groups of each class at least: add another"
            )


def backbones(*, stored_size: int) -> Iterator[Backbone]:
    """Yield the backbones worth trying, cheapest first.

    Small pictures are worth enlarging, since the networks have learned from large ones.
    """
    for network, sizes in SIZES.items():
        if is_installed(network):
            yield from (Backbone(network, size) for size in sizes if size <= max(stored_size, LARGEST_ENLARGED))


def choose(
    pictures: Readers, *, candidates: list[Backbone], budget: Budget, say: Say, one_head: bool = False
) -> tuple[FittedHead, list[Candidate]]:
    """Judge discriminant analysis on each backbone, then logistic regression on the best one and the mean of both.

    The first backbone decides how pictures become square. With `one_head`, only discriminant analysis is tried.
    Whatever would exceed the budget is left out, except the first candidate. Return the best head and all candidates
    in order.
    """
    training = pictures.training("squeeze")
    labels = training.labels.numpy()
    folds = split_folds(labels, training.keys)
    judged: list[Candidate] = []
    best: FittedHead | None = None
    views = np.empty((0, 0, 0), dtype=np.float32)
    speed = math.inf  # units of cost, as of `Backbone.cost`, per second

    def note(found: FittedHead) -> FittedHead:
        judged.append(found.candidate)
        say(describe(found.candidate))
        return found

    def consider(backbone: Backbone, *, reading: float = 0.0) -> FittedHead:
        """Judge a backbone unless it takes too long; `reading` is the time in seconds for reading its pictures."""
        nonlocal speed, views
        cost = backbone.cost * NUM_VIEWS * len(labels)
        if best is not None and not budget.has(seconds := reading + cost / speed + best.candidate.seconds):
            judged.append(_left_out(backbone, seconds=seconds))
            return best
        known = measure_speed(pictures.training(backbone.resize), backbone) if best is None else speed
        say(f"compute {named(backbone).words}{_about(reading + cost / known)}")
        computed, per_second = compute_timed(pictures.training(backbone.resize), backbone)
        speed = min(speed, backbone.cost * per_second)
        found = note(judge(computed, labels, folds=folds, backbone=backbone, method="lda"))
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
        pass  # discriminant analysis only
    elif budget.has(seconds := logistic_seconds(views)):
        logistic = note(judge(views, labels, folds=folds, backbone=best.backbone, method="logistic"))
        both = note(average(best, logistic, features=views[0], labels=labels))
        best = min((best, logistic, both), key=lambda found: found.loss)
    else:
        judged.append(_left_out(best.backbone, seconds=seconds, what="its logistic regression"))
    return best, [each.model_copy(update={"chosen": each is best.candidate}) for each in judged]


def _about(seconds: float) -> str:
    """Describe how long something takes, if that is known."""
    return f", about {duration(seconds)}" if seconds else ""


def _left_out(backbone: Backbone, *, seconds: float, what: str = "it") -> Candidate:
    return named(backbone).model_copy(update={"left_out": what, "would_take": seconds})


def named(backbone: Backbone) -> Candidate:
    """Describe a backbone as a candidate that is not yet judged."""
    return Candidate(network=backbone.network, image_size=backbone.image_size, resize=backbone.resize)


def compute_views(images: ImageSet, backbone: Backbone) -> Features:
    """Compute the features (V, N, D) of the images as they are and mirrored."""
    return compute_timed(images, backbone)[0]


def compute_timed(images: ImageSet, backbone: Backbone) -> tuple[Features, float]:
    """Compute the same, and the speed in pictures per second without those from the cache."""
    network = Pretrained(backbone.network, image_size=backbone.image_size)
    # One view after the other: each is cached separately.
    views = np.stack([network.features(images.images, mirrored=mirrored) for mirrored in (False, True)])
    return views, network.measure_speed(images.images)


def measure_speed(images: ImageSet, backbone: Backbone) -> float:
    """Measure units of cost, as of `Backbone.cost`, per second on a few of many pictures; few need no forecast."""
    if len(images.labels) < FORECAST_FROM:
        return math.inf
    return backbone.cost * Pretrained(backbone.network, image_size=backbone.image_size).measure_speed(images.images)


def judge(views: Features, labels: Integers, *, folds: Folds, backbone: Backbone, method: Method) -> FittedHead:
    """Choose the strength with the lowest out-of-fold log loss, each at its best temperature, and solve on all images.

    All views of an image are in the same fold, so a head never sees another view of the images it is judged on.
    """
    began = time.perf_counter()
    strengths = STRENGTHS[method]
    logits = np.empty((len(strengths), len(labels), int(labels.max()) + 1))
    of_folds = [solve(method, *stack(views[:, kept], labels[kept]), strengths=strengths) for kept, _ in folds]
    for heads, (_, held) in zip(of_folds, folds, strict=True):
        for place, head in enumerate(heads):
            logits[place, held] = head.logits(views[0, held])
    losses = [log_loss(each / fit_temperature_smoothed(each, labels), labels) for each in logits]
    place = int(np.argmin(losses))
    (head,) = solve(method, *stack(views, labels), strengths=(strengths[place],))
    for heads, (kept, held) in zip(of_folds, folds, strict=True):
        seen = views[0, kept]
        logits[place, held] *= relative_spread(head.logits(seen), heads[place].logits(seen))
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
    """Average two heads on the same backbone; the mean of their logits is a linear head too."""
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
    temperature = fit_temperature_smoothed(logits, labels)
    head, logits = head.divided(temperature), logits / temperature
    candidate = named(backbone).model_copy(
        update={
            "head": made,
            "accuracy": share_of(logits.argmax(1) == labels),
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


def describe_few_groups(images: ImageSet) -> str | None:
    """Describe what too few groups of training images mean for the figures; None if there are enough."""
    num = len(np.unique(number_groups(images.keys, num=len(images.labels))))
    num_different = len(np.unique(number_groups(images.digests, num=len(images.labels))))
    if num >= min(FEW_GROUPS, num_different):
        return None
    return (
        f"the training pictures are of {num} groups only: pictures of other groups may be classified worse, and taken "
        "for unlike more often, than out-of-fold figures say"
    )


def stack(views: Features, labels: Integers) -> tuple[Features, Integers]:
    """Stack the views (V, N, D) into rows (V x N, D), with their labels."""
    return views.reshape(-1, views.shape[2]), np.tile(labels, len(views))


def describe(candidate: Candidate) -> str:
    """Describe a candidate and its metrics in a line."""
    assert candidate.accuracy is not None
    accuracy = percent(candidate.accuracy.value, decimals=1)
    return f"{candidate.words}: {accuracy} {candidate.judged_on}, log loss {candidate.log_loss:.3f}"


def logistic_seconds(views: Features) -> float:
    """Return an upper estimate of the time for the logistic regressions, in seconds."""
    num_rows = views.shape[0] * views.shape[1]
    return float(1 + num_rows * min(num_rows, views.shape[2]) * 2e-5)

"""Feature fusion: the features of the base and of a network trained on ImageNet under one linear head.

The second network may distinguish what the base never had to. Only the head is trained, so once features are computed
it takes seconds; those of the pretrained network are cached.

The base has seen its training images, so its features separate them better than new images, and a head solved on both
networks' features would trust the base too much. Therefore the head is a product of two experts: the base's own rows
extended by new ones, and the pretrained network's classifier of all classes. Their weights are fitted on held-out
images, weighted by the expected frequency of their classes. That calibrates the product, so it needs no temperature.
A base that was trained further on all classes has rows for all of them.

If few images are held out, training images that the features have not seen help to fit the weights, each judged by
experts solved without its fold.
Source: logistic regression; the offset in `regress` is that of generalized linear models, McCullagh and Nelder 1989;
see `join` for the product.
Axes: N images, D features, K classes of which K' are old, H images that the weights are fitted on.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reslab import models
from reslab.data.split import limit
from reslab.measure.calibration import find_obstacle
from reslab.network.finishing import weigh
from reslab.pretrained.heads import Floats, relative_spread, solve_lda
from reslab.recipe.networks import EfficientNetLite, Fusion, Kept, Model
from reslab.records import Weights

SIZE: Final = 0  # of the pretrained network
IMAGE_SIZE = 192
PENALTIES = (1e-2, 3e-3, 1e-3)  # factors on half the squared rows, added to the mean cross-entropy
SHRINKAGES = (0.1, 0.3, 0.5)  # of the shared covariance
FEW = 100  # images per class, below which discriminant analysis is the better classifier
PRIOR_WIDTH = 1.0  # prior standard deviation of powers, scales and shifts around their initial values
ITERATIONS = 100


def describe(weights: Weights, *, keep_old: bool) -> Fusion:
    """Describe a network fused with a pretrained one; an already fused network keeps its description."""
    model = weights.model
    fused = model if isinstance(model, Fusion) else _beside_pretrained(model)
    return fused.model_copy(update={"kept": _kept(weights) if keep_old else ()})


def _beside_pretrained(model: Model) -> Fusion:
    assert not isinstance(model, Fusion)
    return Fusion(base=model, pretrained=EfficientNetLite(size=SIZE, resize=IMAGE_SIZE))


def _kept(weights: Weights) -> tuple[Kept, ...]:
    """Return the base's classes as kept, separately from those that it had kept itself."""
    model, num_classes = weights.model, len(weights.classes)
    earlier = model.kept if isinstance(model, Fusion) else ()
    rest = num_classes - sum(part.classes for part in earlier)
    return (*earlier, Kept(classes=rest, features=num_features(model)))


def num_features(model: Model) -> int:
    """Return the number of features of a network without allocating its weights."""
    with torch.device("meta"):
        return models.build(model, num_classes=1).head.in_features


class LabelledFeatures(NamedTuple):
    """Features (N, D) and labels (N,)."""

    features: Tensor
    labels: Tensor

    def followed_by(self, other: "LabelledFeatures") -> "LabelledFeatures":
        return LabelledFeatures(torch.cat([self.features, other.features]), torch.cat([self.labels, other.labels]))

    def at(self, places: Tensor) -> "LabelledFeatures":
        return LabelledFeatures(self.features[places], self.labels[places])

    def few(self, classes: tuple[str, ...], *, num: int) -> "LabelledFeatures":
        """Select at most `num` images of each class."""
        return self.at(torch.from_numpy(limit(self.labels.numpy(), classes=classes, num=num)))


class Judges(NamedTuple):
    """Labels (H,) and weights (H,), of mean 1, of the images that the weights of experts are fitted on.

    With `are_smoothed` labels even experts that make no mistake, as on few images, are not trusted to be certain.
    """

    labels: Tensor
    weights: Tensor
    are_smoothed: bool = False

    @classmethod
    def of(cls, labels: Tensor, *, coming: Tensor, are_smoothed: bool = False) -> "Judges":
        """Weight images by the expected frequencies `coming` (K,) of their classes."""
        weights = weigh(labels, coming=coming).float()
        return cls(labels, weights / weights.mean(), are_smoothed)

    @property
    def effective_num(self) -> float:
        """Compute the effective sample size of the weighted images (Kish 1965, "Survey Sampling")."""
        return float(self.weights.sum() ** 2 / self.weights.square().sum())

    def loss(self, logits: Tensor) -> Tensor:
        """Compute the mean cross-entropy of logits (H, K); labels are smoothed as in `fit_temperature_smoothed`."""
        losses = -F.log_softmax(logits, dim=1)
        is_label = F.one_hot(self.labels, logits.shape[1]).bool()
        own = losses[is_label]
        if self.are_smoothed:
            likeliest_mistake, num = losses.masked_fill(is_label, torch.inf).amin(1), self.effective_num
            own = ((num + 1) * own + likeliest_mistake) / (num + 2)
        return (self.weights * own).mean()


class SolvedHead(NamedTuple):
    """A head, (K, D) and (K,), and the strength of the regularization that made it."""

    weight: Tensor
    bias: Tensor
    strength: float

    def logits(self, features: Tensor) -> Tensor:
        """Compute logits (N, K)."""
        return features @ self.weight.T + self.bias

    @torch.no_grad()
    def write(self, head: nn.Linear) -> None:
        """Copy it into the layer of a network."""
        head.weight.copy_(self.weight)
        head.bias.copy_(self.bias)


class Experts(NamedTuple):
    """Two heads whose logits are joined, and their logits (H, K) for the images that say how."""

    first: SolvedHead
    second: SolvedHead
    first_logits: Tensor
    second_logits: Tensor


class Product(NamedTuple):
    """A head for all features; its logits (H, K) for the images that its weights were fitted on, and their mean loss.

    Those of folds come from heads that were solved without them.
    """

    head: SolvedHead
    logits: Tensor
    loss: float


Pairs = list[tuple[SolvedHead, SolvedHead]]
Solve = Callable[[LabelledFeatures], Pairs]  # one pair for each strength


@torch.no_grad()
def candidates(
    head: nn.Linear,
    training: LabelledFeatures,
    *,
    held_out: LabelledFeatures,
    coming: Tensor,
    num_old: int,
    num_known: int,
    num_base_features: int,
    keep_old: bool,
    is_unchanged: bool = False,
    folds: Sequence[Tensor] = (),
) -> list[Product]:
    """Solve a head for each penalty: new rows added to the first network's, which are kept or joined to a second one's.

    The first `num_known` rows of `head`, the old classes or all, belong to the first network, whose features are the
    first `num_base_features`. If no image was used to train these features, all its rows are solved again. `folds` are
    places of training images that, each fold left out of training in turn, judge the experts like held-out images.
    """
    old = SolvedHead(head.weight[:num_known].detach().cpu(), head.bias[:num_known].detach().cpu(), 0.0)
    own, pretrained = slice(num_base_features), slice(num_base_features, None)

    def keep(images: LabelledFeatures) -> Pairs:
        return [(old, rows) for rows in regress(images, given=old.logits(images.features), penalties=PENALTIES)]

    def extend_rows(images: LabelledFeatures) -> SolvedHead:
        if num_known > num_old:
            return old
        (new,) = _regress_on(own, images, given=old.logits(images.features), penalties=PENALTIES[:1])
        return _stack(old, new)

    def discriminate(images: LabelledFeatures) -> Pairs:
        seconds = _discriminate(pretrained, images)
        firsts = _discriminate(own, images) if is_unchanged else [extend_rows(images)] * len(seconds)
        return list(zip(firsts, seconds, strict=True))

    def regress_all(images: LabelledFeatures) -> Pairs:
        seconds = _regress_on(pretrained, images, penalties=PENALTIES)
        firsts = _regress_on(own, images, penalties=PENALTIES) if is_unchanged else [extend_rows(images)] * len(seconds)
        return list(zip(firsts, seconds, strict=True))

    judged = torch.cat([held_out.labels, *(training.labels[fold] for fold in folds)])
    judges = Judges.of(judged, coming=coming, are_smoothed=is_unchanged)
    look = partial(_look, training=training, held_out=held_out, folds=folds)
    if keep_old:
        return [calibrate_rows(each, judges) for each in look(keep)]
    found: list[Experts] = []
    if is_unchanged or min(np.bincount(training.labels)) < FEW:
        found = [each for each in look(discriminate) if is_unchanged or _can_judge(each, judges)]
    if is_unchanged or not found:
        found += look(regress_all)
    return [join(each, judges, num_old=num_old) for each in found]


def _look(
    solve: Solve, *, training: LabelledFeatures, held_out: LabelledFeatures, folds: Sequence[Tensor]
) -> list[Experts]:
    """Solve pairs on all training images, and show each pair the held-out ones and, solved without them, the folds."""
    solved = solve(training)
    seen = [[(first.logits(held_out.features), second.logits(held_out.features))] for first, second in solved]
    for fold in folds:
        is_kept = torch.ones(len(training.labels), dtype=torch.bool)
        is_kept[fold] = False
        kept, left_out = training.at(is_kept), training.at(fold)
        for parts, whole, pair in zip(seen, solved, solve(kept), strict=True):
            first, second = (_as_of_all(*each, kept=kept, left_out=left_out) for each in zip(whole, pair, strict=True))
            parts.append((first, second))
    return [
        Experts(*pair, *(torch.cat(logits) for logits in zip(*parts, strict=True)))
        for pair, parts in zip(solved, seen, strict=True)
    ]


def _as_of_all(whole: SolvedHead, part: SolvedHead, *, kept: LabelledFeatures, left_out: LabelledFeatures) -> Tensor:
    """Compute the logits of a fold's head for the images left out, on the scale of the head solved on all images."""
    both = (head.logits(kept.features).numpy() for head in (whole, part))
    return relative_spread(*both) * part.logits(left_out.features)


def _discriminate(places: slice, training: LabelledFeatures) -> list[SolvedHead]:
    """Solve discriminant analysis on the pretrained features, which is better for classes with few images.

    It is overconfident at any shrinkage, so it is only useful if its weight can be calibrated: by mistakes on held-out
    images, or by smoothed labels.
    """
    features, labels = training.features[:, places].double().numpy(), training.labels.numpy()
    return [
        _at(places, training, SolvedHead(_tensor(head.weight), _tensor(head.bias), shrinkage))
        for head, shrinkage in zip(solve_lda(features, labels, SHRINKAGES), SHRINKAGES, strict=True)
    ]


def _tensor(array: Floats) -> Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float32))


def _can_judge(experts: Experts, judges: Judges) -> bool:
    """Return whether the images suffice to fit the weights of each expert."""
    both = experts.first_logits + experts.second_logits
    return all(find_obstacle(each.numpy(), judges.labels.numpy()) is None for each in (experts.first_logits, both))


def _stack(old: SolvedHead, new: SolvedHead) -> SolvedHead:
    return SolvedHead(torch.cat([old.weight, new.weight]), torch.cat([old.bias, new.bias]), new.strength)


def _regress_on(
    places: slice, training: LabelledFeatures, *, penalties: tuple[float, ...], given: Tensor | None = None
) -> list[SolvedHead]:
    """Regress on some of the features; rows are 0 at the others, and classes whose logits are `given` get no rows."""
    given = torch.zeros(len(training.labels), 0) if given is None else given
    alone = LabelledFeatures(training.features[:, places], training.labels)
    return [_at(places, training, solved) for solved in regress(alone, given=given, penalties=penalties)]


def _at(places: slice, training: LabelledFeatures, solved: SolvedHead) -> SolvedHead:
    """Extend a head on some of the features to all of them, with zeros."""
    weight = torch.zeros(len(solved.bias), training.features.shape[1])
    weight[:, places] = solved.weight
    return solved._replace(weight=weight)


@torch.enable_grad()
def join(experts: Experts, judges: Judges, *, num_old: int) -> Product:
    """Multiply the probabilities of both heads, each to a power; fit the powers and a shift of the new classes.

    They start at the geometric mean, and few images change them little.
    Source: a product of experts, Hinton 2002, with powers as in logarithmic opinion pools, Heskes 1998.
    """
    first, second, one, other = experts
    is_new = torch.arange(len(first.bias)) >= num_old
    powers, shift = torch.full((2,), 0.5, requires_grad=True), torch.zeros((), requires_grad=True)

    def logits() -> Tensor:
        return powers[0] * one + powers[1] * other + shift * is_new

    _calibrate(lambda: judges.loss(logits()), [powers, shift], num_images=judges.effective_num)
    with torch.no_grad():
        weight = powers[0] * first.weight + powers[1] * second.weight
        bias = powers[0] * first.bias + powers[1] * second.bias + shift * is_new
        found = SolvedHead(weight, bias, second.strength)
        return Product(found, logits(), float(judges.loss(logits())))


@torch.enable_grad()
def regress(training: LabelledFeatures, *, given: Tensor, penalties: tuple[float, ...]) -> list[SolvedHead]:
    """Fit rows for the classes after those whose logits (N, K') are `given`: a logistic regression for each penalty."""
    mean, deviation = _moments(training.features)
    scaled = (training.features - mean) / deviation
    weight = torch.zeros(int(training.labels.max()) + 1 - given.shape[1], scaled.shape[1], requires_grad=True)
    bias = torch.zeros(len(weight), requires_grad=True)
    found = []
    for penalty in penalties:  # from strong to weak, each starting from the previous solution

        def loss(penalty: float = penalty) -> Tensor:
            logits = torch.cat([given, scaled @ weight.T + bias], 1)
            return F.cross_entropy(logits, training.labels) + penalty / 2 * weight.square().sum()

        _minimize(loss, [weight, bias])
        found.append(_unscaled(weight.detach().clone(), bias.detach().clone(), mean, deviation, strength=penalty))
    return found


@torch.enable_grad()
def calibrate_rows(experts: Experts, judges: Judges) -> Product:
    """Fit a scale and a shift of the second head's rows, the new classes, given the first one's, the old classes.

    Few images change them little.
    """
    old, rows, old_logits, logits = experts
    scale, shift = torch.ones((), requires_grad=True), torch.zeros((), requires_grad=True)

    def all_logits() -> Tensor:
        return torch.cat([old_logits, scale * logits + shift], 1)

    _calibrate(lambda: judges.loss(all_logits()), [scale, shift], num_images=judges.effective_num)
    with torch.no_grad():
        found = rows._replace(weight=rows.weight * scale, bias=rows.bias * scale + shift)
        return Product(_stack(old, found), all_logits(), float(judges.loss(all_logits())))


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    deviation = features.std(0)
    return features.mean(0), torch.where(deviation > 1e-8, deviation, 1.0)


def _unscaled(weight: Tensor, bias: Tensor, mean: Tensor, deviation: Tensor, *, strength: float) -> SolvedHead:
    """Convert `weight` and `bias` for standardised features to a head for unstandardised ones."""
    plain = weight.double() / deviation
    return SolvedHead(plain.float(), (bias.double() - plain @ mean.double()).float(), strength)


def _calibrate(loss: Callable[[], Tensor], parameters: list[Tensor], *, num_images: float) -> None:
    """Minimize a mean over held-out images plus the penalty of a normal prior around the initial parameters.

    Without the prior, parameters would grow without bound if some product makes no mistakes.
    """
    start = [each.detach().clone() for each in parameters]

    def penalized() -> Tensor:
        squares = sum((each - at).square().sum() for each, at in zip(parameters, start, strict=True))
        return loss() + squares / (2 * PRIOR_WIDTH**2 * num_images)

    _minimize(penalized, parameters)


def _minimize(loss: Callable[[], Tensor], parameters: list[Tensor]) -> None:
    """Minimize a convex loss by L-BFGS."""
    optimizer = torch.optim.LBFGS(parameters, max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]

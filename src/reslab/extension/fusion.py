"""Feature fusion: the base beside a network trained on ImageNet, their features under one linear head.

What the base never saw a need to tell apart, the other network may. Nothing is trained but the head, so once there are
features it takes seconds; those of the pretrained network are cached.

The base has seen its training images, so its features tell them apart better than any new ones, and a head that is
solved on both networks' features trusts the base too much. So the head is a product of two experts: the base's own rows
with new ones beside them, and the pretrained network's classifier of all classes; held-out images say how much each
counts.
A base that was trained further on all classes brings the rows of all.
Source: logistic regression; the offset in `regress` is that of generalized linear models, McCullagh and Nelder 1989;
see `join` for the product.
Axes: N images, D features, K classes of which K' are old.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reslab import models
from reslab.measure.calibration import find_obstacle
from reslab.recipe.networks import EfficientNetLite, Fusion, Kept, Model
from reslab.records import Weights

SIZE: Final = 0  # of the pretrained network
IMAGE_SIZE = 128
PENALTIES = (1e-2, 3e-3, 1e-3)  # times half the squares of the rows, beside the mean cross-entropy
ITERATIONS = 100


def describe(weights: Weights, *, keep_old: bool) -> Fusion:
    """Describe a network beside a pretrained one; a fused one stays as it is."""
    model = weights.model
    fused = model if isinstance(model, Fusion) else _beside_pretrained(model)
    return fused.model_copy(update={"kept": _kept(weights) if keep_old else ()})


def _beside_pretrained(model: Model) -> Fusion:
    assert not isinstance(model, Fusion)
    return Fusion(base=model, pretrained=EfficientNetLite(size=SIZE, resize=IMAGE_SIZE))


def _kept(weights: Weights) -> tuple[Kept, ...]:
    """Keep the base's classes, and apart from them those that it had kept itself."""
    model, num_classes = weights.model, len(weights.classes)
    earlier = model.kept if isinstance(model, Fusion) else ()
    rest = num_classes - sum(part.classes for part in earlier)
    return (*earlier, Kept(classes=rest, features=num_features(model)))


def num_features(model: Model) -> int:
    """Count the features of a network, without building its weights."""
    with torch.device("meta"):
        return models.build(model, num_classes=1).head.in_features


class LabelledFeatures(NamedTuple):
    """Features (N, D) and labels (N,)."""

    features: Tensor
    labels: Tensor


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


@torch.no_grad()
def candidates(
    head: nn.Linear,
    training: LabelledFeatures,
    *,
    held_out: LabelledFeatures,
    num_old: int,
    num_known: int,
    num_base_features: int,
    keep_old: bool,
) -> list[SolvedHead]:
    """Solve a head for each penalty: new rows beside the first network's, which are kept or joined to a second opinion.

    The first network knows the first `num_known` rows of `head`, the old classes or all; its features are the first
    `num_base_features`.
    """
    old = SolvedHead(head.weight[:num_known].detach().cpu(), head.bias[:num_known].detach().cpu(), 0.0)
    old_logits = old.logits(training.features)
    if keep_old:
        rows = regress(training, given=old_logits, penalties=PENALTIES)
        old_held = old.logits(held_out.features)
        return [_stack(old, calibrate_rows(each, held_out, old_logits=old_held)) for each in rows]
    places = slice(num_base_features), slice(num_base_features, None)
    if num_known == num_old:
        (new,) = _regress_on(places[0], training, given=old_logits, penalties=PENALTIES[:1])
        old = _stack(old, new)
    nothing = torch.zeros(len(training.labels), 0)
    seconds = _regress_on(places[1], training, given=nothing, penalties=PENALTIES)
    return [join(old, each, held_out=held_out, num_old=num_old) for each in seconds]


def _stack(old: SolvedHead, new: SolvedHead) -> SolvedHead:
    return SolvedHead(torch.cat([old.weight, new.weight]), torch.cat([old.bias, new.bias]), new.strength)


def _regress_on(
    places: slice, training: LabelledFeatures, *, given: Tensor, penalties: tuple[float, ...]
) -> list[SolvedHead]:
    """Regress on some of the features alone; the rows are 0 at the others."""
    alone = LabelledFeatures(training.features[:, places], training.labels)
    found = []
    for solved in regress(alone, given=given, penalties=penalties):
        weight = torch.zeros(len(solved.bias), training.features.shape[1])
        weight[:, places] = solved.weight
        found.append(solved._replace(weight=weight))
    return found


@torch.enable_grad()
def join(first: SolvedHead, second: SolvedHead, *, held_out: LabelledFeatures, num_old: int) -> SolvedHead:
    """Multiply the probabilities of both, each to a power; the powers and a shift of the new classes are calibrated.

    The rows of the old and of the new classes of the `first` have each a power of their own.
    Too few held-out images leave the geometric mean.
    Source: a product of experts, Hinton 2002, with powers as in logarithmic opinion pools, Heskes 1998.
    """
    is_new = torch.arange(len(first.bias)) >= num_old
    powers, shift = torch.full((3,), 0.5, requires_grad=True), torch.zeros((), requires_grad=True)
    one, other = first.logits(held_out.features), second.logits(held_out.features)

    def scales() -> Tensor:
        return torch.where(is_new, powers[1], powers[0])

    def loss() -> Tensor:
        return F.cross_entropy(scales() * one + powers[2] * other + shift * is_new, held_out.labels)

    if not find_obstacle((one + other).numpy(), held_out.labels.numpy()):
        _minimize(loss, [powers, shift])
    with torch.no_grad():
        weight = scales()[:, None] * first.weight + powers[2] * second.weight
        bias = scales() * first.bias + powers[2] * second.bias + shift * is_new
    return SolvedHead(weight, bias, second.strength)


@torch.enable_grad()
def regress(training: LabelledFeatures, *, given: Tensor, penalties: tuple[float, ...]) -> list[SolvedHead]:
    """Fit rows for the classes after those whose logits (N, K') are `given`: a logistic regression for each penalty."""
    mean, deviation = _moments(training.features)
    scaled = (training.features - mean) / deviation
    weight = torch.zeros(int(training.labels.max()) + 1 - given.shape[1], scaled.shape[1], requires_grad=True)
    bias = torch.zeros(len(weight), requires_grad=True)
    found = []
    for penalty in penalties:  # from strong to weak, each from where the last one ended

        def loss(penalty: float = penalty) -> Tensor:
            logits = torch.cat([given, scaled @ weight.T + bias], 1)
            return F.cross_entropy(logits, training.labels) + penalty / 2 * weight.square().sum()

        _minimize(loss, [weight, bias])
        found.append(_unscaled(weight.detach().clone(), bias.detach().clone(), mean, deviation, strength=penalty))
    return found


@torch.enable_grad()
def calibrate_rows(rows: SolvedHead, held_out: LabelledFeatures, *, old_logits: Tensor) -> SolvedHead:
    """Scale and shift the new rows as held-out images say, the old logits given; too few of them change nothing."""
    logits = rows.logits(held_out.features)
    if find_obstacle(torch.cat([old_logits, logits], 1).numpy(), held_out.labels.numpy()):
        return rows
    scale, shift = torch.ones((), requires_grad=True), torch.zeros((), requires_grad=True)

    def loss() -> Tensor:
        return F.cross_entropy(torch.cat([old_logits, scale * logits + shift], 1), held_out.labels)

    _minimize(loss, [scale, shift])
    by = float(scale.detach())
    return rows._replace(weight=rows.weight * by, bias=rows.bias * by + float(shift.detach()))


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    deviation = features.std(0)
    return features.mean(0), torch.where(deviation > 1e-8, deviation, 1.0)


def _unscaled(weight: Tensor, bias: Tensor, mean: Tensor, deviation: Tensor, *, strength: float) -> SolvedHead:
    """Give the head on features as they are that is `weight` and `bias` on standardised ones."""
    plain = weight.double() / deviation
    return SolvedHead(plain.float(), (bias.double() - plain @ mean.double()).float(), strength)


def _minimize(loss: Callable[[], Tensor], parameters: list[Tensor]) -> None:
    """Minimize a convex loss by L-BFGS."""
    optimizer = torch.optim.LBFGS(parameters, max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]

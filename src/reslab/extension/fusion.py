"""Feature fusion: the base beside a network trained on ImageNet, their features under one linear head.

What the base never saw a need to tell apart, the other network may. Nothing is trained but the head, so once there are
features it takes seconds; those of the pretrained network are cached.
Source: see `pretrained.heads` for the discriminant analysis; the offset in `solve_rows` is that of generalized linear
models, McCullagh and Nelder 1989.
Axes: N images, D features, K classes of which K' are old.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reslab import models
from reslab.measure.calibration import find_obstacle
from reslab.pretrained.heads import STRENGTHS, solve_lda
from reslab.recipe.networks import EfficientNetLite, Fusion, Kept, Model
from reslab.recipe.recipe import Extension
from reslab.records import Weights

SIZE: Final = 0  # of the pretrained network
IMAGE_SIZE = 128
PENALTIES = (1e-2, 3e-3, 1e-3, 3e-4)  # times half the squares of the rows, beside the mean cross-entropy
ITERATIONS = 100


def describe(weights: Weights, extension: Extension) -> Model:
    """Describe the network that the base becomes by an extension; a fused base stays as it is."""
    model = weights.model
    if extension.method == "fusion":
        fused = model if isinstance(model, Fusion) else _beside_pretrained(model)
        return fused.model_copy(update={"kept": _kept(weights) if extension.keep_old else ()})
    # A head that is trained has rows of one kind.
    return model.model_copy(update={"kept": ()}) if isinstance(model, Fusion) else model


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
    head: nn.Linear, training: LabelledFeatures, *, held_out: LabelledFeatures, num_kept: int
) -> list[SolvedHead]:
    """Solve a head for each strength: the whole one, or beside the rows to keep those of the other classes alone."""
    if not num_kept:
        return solve_all(training)
    weight, bias = head.weight[:num_kept].detach().cpu(), head.bias[:num_kept].detach().cpu()
    old, old_held = (part.features @ weight.T + bias for part in (training, held_out))
    rows = [calibrate_rows(each, held_out, old_logits=old_held) for each in solve_rows(training, old_logits=old)]
    return [SolvedHead(torch.cat([weight, new.weight]), torch.cat([bias, new.bias]), new.strength) for new in rows]


def solve_all(training: LabelledFeatures) -> list[SolvedHead]:
    """Solve a shrunken discriminant analysis for each strength, on standardised features."""
    mean, deviation = _moments(training.features)
    scaled = ((training.features - mean) / deviation).double().numpy()
    strengths = STRENGTHS["lda"]
    found = []
    for head, strength in zip(solve_lda(scaled, training.labels.numpy(), strengths), strengths, strict=True):
        weight, bias = (torch.from_numpy(np.asarray(part)) for part in head)
        found.append(_unscaled(weight, bias, mean, deviation, strength=strength))
    return found


@torch.enable_grad()
def solve_rows(training: LabelledFeatures, *, old_logits: Tensor) -> list[SolvedHead]:
    """Fit the new classes' rows alone by logistic regression, the old logits (N, K') given, for each penalty."""
    mean, deviation = _moments(training.features)
    scaled = (training.features - mean) / deviation
    weight = torch.zeros(int(training.labels.max()) + 1 - old_logits.shape[1], scaled.shape[1], requires_grad=True)
    bias = torch.zeros(len(weight), requires_grad=True)
    found = []
    for penalty in PENALTIES:  # from strong to weak, each from where the last one ended

        def loss(penalty: float = penalty) -> Tensor:
            logits = torch.cat([old_logits, scaled @ weight.T + bias], 1)
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

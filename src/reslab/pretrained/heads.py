"""Linear heads on frozen features: discriminant analysis with shrinkage, and logistic regression.

Source: linear discriminant analysis with the covariance shrunk to a multiple of the identity, Ledoit and Wolf 2004;
logistic regression by scikit-learn, on standardised features.
Differs from it: both add the log priors of the classes to the logits, and all transformations of features
(standardising, rotating) are folded into one weight and one bias.
Axes: N rows, D features, K classes.
"""

import warnings
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]
Method = Literal["lda", "logistic"]

STRENGTHS: dict[Method, tuple[float, ...]] = {
    "lda": (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95),
    "logistic": (3e-4, 1e-3, 3e-3, 1e-2),
}
MAX_ITERATIONS = 200
LOWEST = 1e-6  # variance within classes, relative to the mean square: pictures of a class may be all the same


class Head(NamedTuple):
    """A linear head: logits are features times the transposed `weight` (K, D), plus `bias` (K,)."""

    weight: Floats
    bias: Floats

    def logits(self, features: Floats) -> Floats:
        """Compute logits (N, K)."""
        return np.asarray(features @ self.weight.T + self.bias)

    def write(self, layer: nn.Linear) -> None:
        """Copy it into the layer of a network."""
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(np.asarray(self.weight)))
            layer.bias.copy_(torch.from_numpy(np.asarray(self.bias)))

    def divided(self, temperature: float) -> "Head":
        """Return the head with logits divided by a temperature."""
        return Head(self.weight / temperature, self.bias / temperature)

    def averaged(self, other: "Head") -> "Head":
        """Return the head whose logits are the mean of both."""
        return Head((self.weight + other.weight) / 2, (self.bias + other.bias) / 2)


def spread(logits: Floats) -> float:
    """Return the root mean square of logits (N, K) around the mean of each row."""
    return float((logits - logits.mean(axis=1, keepdims=True)).std())


def relative_spread(whole: Floats, part: Floats) -> float:
    """Return the factor from logits of a head solved on a part of the images to those of one solved on all.

    Discriminant analysis on fewer images gives larger logits. Both heads answer the same images (N, K), which both have
    learned from: how much larger they are there is how much larger they are for images that neither has seen.
    """
    least = spread(part)
    return spread(whole) / least if least > 0 else 1.0


def solve(method: Method, features: Floats, labels: Integers, *, strengths: tuple[float, ...]) -> list[Head]:
    """Compute a head for each strength; every class must have rows."""
    return (solve_lda if method == "lda" else solve_logistic)(features.astype(np.float64), labels, strengths)


def solve_lda(features: Floats, labels: Integers, strengths: tuple[float, ...]) -> list[Head]:
    """Solve discriminant analysis with a shared, shrunken covariance; one decomposition serves all strengths."""
    num_classes = int(labels.max()) + 1
    means = np.stack([features[labels == label].mean(0) for label in range(num_classes)])
    variances, axes = _principal(features - means[labels])
    level = max(variances.sum() / features.shape[1], LOWEST * np.square(features).mean())
    prior = np.log(np.bincount(labels) / len(labels))
    heads = []
    for amount in strengths:
        inside, outside = 1 / ((1 - amount) * variances + amount * level), 1 / (amount * level)
        weight = means * outside + (means @ axes * (inside - outside)) @ axes.T
        heads.append(Head(weight, prior - (means * weight).sum(1) / 2))
    return heads


def solve_logistic(features: Floats, labels: Integers, strengths: tuple[float, ...]) -> list[Head]:
    """Solve logistic regression on standardised features, rotated to the span of the rows, which only saves time."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, deviation = features.mean(0), features.std(0)
    deviation[deviation < 1e-6] = 1.0
    scaled = (features - mean) / deviation
    axes = _principal(scaled)[1] if len(features) < features.shape[1] else None
    rows = scaled if axes is None else scaled @ axes
    model = LogisticRegression(max_iter=MAX_ITERATIONS, tol=1e-3, warm_start=True)
    heads = []
    for strength in sorted(strengths):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # an unconverged solution is good enough
            model.set_params(C=strength).fit(rows, labels)
        weight, bias = np.atleast_2d(model.coef_), model.intercept_
        if len(weight) == 1:  # two classes: the odds of the second
            weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
        weight = (weight if axes is None else weight @ axes.T) / deviation
        heads.append(Head(weight, bias - weight @ mean))
    return [heads[sorted(strengths).index(strength)] for strength in strengths]


def _principal(centred: Floats) -> tuple[Floats, Floats]:
    """Return the variances (M,) along the principal axes, and these axes (D, M), of centred rows (N, D)."""
    num_rows, num_features = centred.shape
    if num_rows >= num_features:
        values, axes = np.linalg.eigh(centred.T @ centred / num_rows)
        return values.clip(min=0), axes
    values, vectors = np.linalg.eigh(centred @ centred.T / num_rows)
    kept = values > values.max(initial=0) * 1e-10
    values, vectors = values[kept], vectors[:, kept]
    return values, centred.T @ vectors / np.sqrt(values * num_rows)

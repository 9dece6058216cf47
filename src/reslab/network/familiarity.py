"""Familiarity: how similar a picture is to the training images, as a conformal p-value.

Several scores measure the similarity of a picture to the training images. Each is divided by how far the lowest 5 % of
the held-out images lie below their median, which a few outliers do not change, and they are summed. None counts for
more than what the highest 5 % exceed, since one score must not outvote the others: noise can have large logits, too.
A picture's familiarity is the share of the held-out images and itself whose sum is no higher: a conformal p-value. Of
pictures from the same distribution as the training images, about 5 % have a familiarity of 0.05 or less, whatever the
network; so answering above that answers about 95 % of them. It would be at most 5 % if scales and limits did not come
from the same held-out images; with very few of these, some more are refused.

A network that was trained on the images has four scores: the energy, the log-sum-exp of the logits minus their mean;
the norm of the features, up to the training images' median; how much nearer the features are to a class than to all
images, by Mahalanobis distances; and the `texture` of the pixels alone. If the layers below the head are frozen, their
features were not trained on these classes, and there are two scores: the energy, and the similarity to the tenth
nearest training image.
benchmarks/held_out_classes.py compares these with others.

Sources: Liu et al. 2020, "Energy-based Out-of-distribution Detection", arXiv:2010.03759; Ren et al. 2021, "A Simple Fix
to Mahalanobis Distance for Improving Near-OOD Detection", arXiv:2106.09022; Park et al. 2023, "Understanding the
Feature Norm for Out-of-Distribution Detection", arXiv:2310.05316; Sun et al. 2022, "Out-of-Distribution Detection with
Deep Nearest Neighbors", arXiv:2204.06507; Bates et al. 2023, "Testing for Outliers with Conformal p-values",
arXiv:2104.08279.
Differs from them: scores are summed, at most 2,000 training images represent all, and norms above the median do not
count as more familiar. The difference of the Mahalanobis distances is computed in the L < K directions that separate
classes, since it is zero in all others.
Axes: N images, D features, K classes, L directions, M training images, H held-out images, S scores.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from reslab.errors import UserError
from reslab.network.texture import Texture, count_statistics, fit_texture
from reslab.records import FAMILIARITY

MOST: Final = 2000  # training images used
FEWEST: Final = 19  # held-out images: with fewer, even the strangest picture has a familiarity above 0.05
_NEIGHBOURS: Final = 10
_SHRINKAGE: Final = 0.1  # of the correlations of features within classes, so that few images suffice
_SAME: Final = 0.999  # cosine of an image's features with themselves in half precision
_TAIL: Final = 0.05  # share of the held-out images with the lowest, or highest, scores
_TEXTURE: Final = "texture."
_MOST_SCORES: Final = 2**24  # whose quantiles PyTorch computes
_EQUAL: Final = 1e-5  # sums that differ by less count as equal, on any device


class Familiarity(nn.Module):
    """Computes familiarities (N,) in (0, 1] from features (N, D), logits (N, K) and, with a `texture`, the images.

    `measure` computes scores from features and logits, and `scores` are those of the held-out images (H, S), with that
    of the `texture` as the last one. `weights` (H,) are for classes that will be more or less frequent than there.
    """

    scores: Tensor
    weights: Tensor
    scales: Tensor
    limits: Tensor
    sums: Tensor

    def __init__(
        self, measure: nn.Module, scores: Tensor, texture: Texture | None = None, *, weights: Tensor | None = None
    ) -> None:
        super().__init__()
        self.measure, self.texture = measure, texture
        self.register_buffer("scores", scores)
        self.register_buffer("weights", torch.ones(len(scores)) if weights is None else weights.float())
        self.register_buffer("scales", _find_scales(scores))
        self.register_buffer("limits", scores.quantile(1 - _TAIL, dim=0))
        self.register_buffer("sums", self.sum_up(scores))

    def forward(self, features: Tensor, logits: Tensor, images: Tensor | None = None) -> Tensor:
        own = self.sum_up(self.score(features, logits, images))
        no_more = torch.where(self.sums <= own[:, None] + _EQUAL, self.weights, 0.0).sum(dim=1)
        heaviest = self.weights.max()  # what an image of an unknown class may weigh
        return (heaviest + no_more) / (heaviest + self.weights.sum())

    def score(self, features: Tensor, logits: Tensor, images: Tensor | None = None) -> Tensor:
        """Compute all scores (N, S); `images` (N, C, H, W) are the network's input."""
        scores: Tensor = self.measure(features, logits)
        if self.texture is None:
            return scores
        assert images is not None
        return torch.cat([scores, self.texture(images)[:, None]], dim=1)

    def sum_up(self, scores: Tensor) -> Tensor:
        """Return the sums (N,) of scores (N, S), on one scale and up to their limits."""
        return (torch.minimum(scores, self.limits) / self.scales).sum(dim=1)

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Return the tensors to store in a weights file."""
        tensors = {"scores": self.scores, **self.measure.state_dict()}
        if not torch.equal(self.weights, torch.ones_like(self.weights)):
            tensors["weights"] = self.weights
        if self.texture is not None:
            tensors |= {_TEXTURE + name: value for name, value in self.texture.state_dict().items()}
        found = {FAMILIARITY + name: value.cpu().numpy() for name, value in tensors.items()}
        # Half precision suffices for training images.
        return {name: value.astype(np.float16) if name.endswith("known") else value for name, value in found.items()}


class Neighbours(nn.Module):
    """Scores from the energy and from `known`, the features (M, D) of training images scaled to norm 1."""

    known: Tensor

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        self.register_buffer("known", known)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        cosine = (F.normalize(features, dim=1) @ self.known.T).topk(_NEIGHBOURS, dim=1).values[:, -1]
        return torch.stack([cosine, _energy(logits)], dim=1)


class Directions(nn.Module):
    """Scores from the energy, the norm of the features, and how much nearer these are to a class than to all images.

    `axes` (D, L) are the directions from the `centre` (D,) of all images in which the class means (K, L) differ, scaled
    to a within-class variance of 1. `shared` (L,) is the share of total variance that lies between classes, and
    `median` () is the median norm.
    """

    centre: Tensor
    axes: Tensor
    means: Tensor
    shared: Tensor
    median: Tensor

    def __init__(self, centre: Tensor, axes: Tensor, means: Tensor, shared: Tensor, median: Tensor) -> None:
        super().__init__()
        found = {"centre": centre, "axes": axes, "means": means, "shared": shared, "median": median}
        for name, value in found.items():
            self.register_buffer(name, value)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        places = (features - self.centre) @ self.axes
        # |z|² is omitted from both distances.
        to_class = (2 * places @ self.means.T - (self.means**2).sum(dim=1)).amax(dim=1)
        to_all = (places**2 * self.shared).sum(dim=1)
        length = torch.minimum(features.norm(dim=1), self.median)
        return torch.stack([_energy(logits), length, to_class - to_all], dim=1)


def fit_familiarity(
    known: Tensor,
    labels: Tensor,
    held_out: Tensor,
    logits: Tensor,
    *,
    statistics: tuple[Tensor, Tensor] | None = None,
    weights: Tensor | None = None,
) -> Familiarity | None:
    """Fit on training features (M, D) and labels (M,), and held-out features (H, D) and logits (H, K).

    `statistics` (M, P) and (H, P) are those of their texture, `weights` (H,) for classes that will be more or less
    frequent. Returns None if held-out images are too few, or the features are not finite.
    """
    if num_effective(held_out, weights) < FEWEST or len(torch.unique(labels)) < 2 or not known.isfinite().all():
        return None
    measure = _find_directions(known, labels)
    scores, texture = measure(held_out.float(), logits.float()), None
    if statistics is not None:
        texture = fit_texture(*statistics)
        scores = torch.cat([scores, texture.score(statistics[1])[:, None]], dim=1)
    return Familiarity(measure, scores, texture, weights=weights)


def fit_frozen(
    known: Tensor,
    held_out: Tensor,
    logits: Tensor,
    *,
    groups: tuple[Tensor, Tensor] | None = None,
    weights: Tensor | None = None,
) -> Familiarity | None:
    """Fit on frozen features (M, D), and features (H, D) and logits (H, K) of held-out images.

    Held-out images may be among the known ones, with out-of-fold logits: each is then compared with the others, or with
    those of other `groups`, (M,) and (H,). `weights` (H,) are as above. Returns None if there are too few.
    """
    if min(len(known), num_effective(held_out, weights)) < FEWEST:
        return None
    stored = F.normalize(known.float(), dim=1).half().float()  # as stored in files
    similarity = F.normalize(held_out.float(), dim=1) @ stored.T
    if groups is not None:
        similarity = similarity.masked_fill(groups[1][:, None] == groups[0], -1.0)
    near = similarity.topk(_NEIGHBOURS + 1, dim=1).values
    is_known = near[:, 0] > _SAME
    cosine = torch.where(is_known, near[:, _NEIGHBOURS], near[:, _NEIGHBOURS - 1])
    return Familiarity(Neighbours(stored), torch.stack([cosine, _energy(logits.float())], dim=1), weights=weights)


def num_effective(held_out: Tensor, weights: Tensor | None) -> float:
    """Count the held-out images (H, ...) in units of the heaviest, which bounds the lowest familiarity."""
    return len(held_out) if weights is None or not len(weights) else float(weights.sum() / weights.max())


def _find_directions(features: Tensor, labels: Tensor) -> Directions:
    """Find where classes differ by linear discriminant analysis of features (M, D) with labels (M,)."""
    rows, (_, places) = features.double(), torch.unique(labels, return_inverse=True)
    chosen = F.one_hot(places).double()
    shares = chosen.mean(dim=0)
    means = chosen.T @ rows / chosen.sum(dim=0)[:, None]
    centre = shares @ means
    within = rows - means[places]
    deviations = within.std(dim=0, correction=0).clamp(min=1e-6)
    scaled = within / deviations
    covariance = (1 - _SHRINKAGE) * scaled.T @ scaled / len(rows) + _SHRINKAGE * torch.eye(len(centre)).double()
    variances, turn = torch.linalg.eigh(covariance)
    whiten = turn / variances.sqrt() / deviations[:, None]
    _, between, main = torch.linalg.svd(shares.sqrt()[:, None] * ((means - centre) @ whiten), full_matrices=False)
    axes = whiten @ main[: len(means) - 1].T
    variance = between[: len(means) - 1] ** 2
    found = (centre, axes, (means - centre) @ axes, variance / (1 + variance), rows.norm(dim=1).median())
    return Directions(*(each.float() for each in found))


def _find_scales(scores: Tensor) -> Tensor:
    """Return how far the lowest scores (H, S) lie below their median; the deviation of those that are mostly equal."""
    tail = scores.quantile(0.5, dim=0) - scores.quantile(_TAIL, dim=0)
    return torch.where(tail > 0, tail, scores.std(dim=0)).clamp(min=1e-6)


def _energy(logits: Tensor) -> Tensor:
    return (logits - logits.mean(dim=1, keepdim=True)).logsumexp(dim=1)


def read_familiarity(
    tensors: Mapping[str, NDArray[Any]], *, num_features: int, image: tuple[int, int], path: Path
) -> Familiarity | None:
    """Read it from the tensors of a weights file; `image` are its network's channels and pixels a side.

    Raises: UserError if it does not fit the network.
    """
    found = {
        name.removeprefix(FAMILIARITY): torch.from_numpy(value).float()
        for name, value in tensors.items()
        if name.startswith(FAMILIARITY)
    }
    if not found:
        return None
    texture = {name: found.pop(name) for name in list(found) if name.startswith(_TEXTURE)}
    weights = found.pop("weights", None)
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    scores = found.pop("scores", torch.empty(0))
    match shapes:
        case {"known": (num, features), "scores": (held_out, 2), **rest}:
            fits = num >= _NEIGHBOURS and not rest
        case {"axes": (features, directions), "means": (num, axes), "scores": (held_out, all_scores), **rest}:
            other = {"centre": (features,), "shared": (directions,), "median": ()}
            fits = num > 0 and axes == directions and rest == other
            fits = fits and all_scores == 3 + bool(texture) and _is_texture(texture, image)
        case _:
            features, held_out, fits = 0, 0, False
    fits = fits and (weights is None or _are_weights(weights, num=held_out))
    if not fits or features != num_features or not 0 < held_out <= _MOST_SCORES:
        raise UserError(f"{path} is damaged: its familiarity tensors do not fit a network of {num_features} features")
    if "known" in found:
        return Familiarity(Neighbours(found["known"]), scores, weights=weights)
    own = Texture(**{name.removeprefix(_TEXTURE): value for name, value in texture.items()}) if texture else None
    return Familiarity(Directions(**found), scores, own, weights=weights)


def _are_weights(values: Tensor, *, num: int) -> bool:
    return values.shape == (num,) and bool(values.isfinite().all() and (values >= 0).all() and values.any())


def _is_texture(tensors: Mapping[str, Tensor], image: tuple[int, int]) -> bool:
    """Return whether the tensors of a texture, if there are any, fit a network's images."""
    num = count_statistics(*image)
    shapes = {_TEXTURE + "centre": (num,), _TEXTURE + "whiten": (num, num), _TEXTURE + "limit": ()}
    return not tensors or {name: tuple(value.shape) for name, value in tensors.items()} == shapes

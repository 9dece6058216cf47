"""How much a picture is like those that a network was trained on, with a promise about those that are.

Several scores say how much a picture is like the training images; their sum counts, each divided by its deviation among
the held-out images. A picture's familiarity is the share of the held-out images and itself that score no more: a
conformal p value. Of pictures that come from where the training images came from, at most 5 % have a familiarity of
0.05 or less, whatever the network is; so to answer above that answers at least 95 % of them.

A network that was trained on the images is asked three things: its energy, the log of the summed exponentials of the
logits, less their mean; how long the features are, up to the training images' median; and how much nearer they are to a
class than to all images, by Mahalanobis distances. One whose layers below the head are frozen has no features of these
classes: it is asked its energy, and how near the tenth nearest training image is. benchmarks/held_out_classes.py
compares these with others.

Sources: Liu et al. 2020, "Energy-based Out-of-distribution Detection", arXiv:2010.03759; Ren et al. 2021, "A Simple Fix
to Mahalanobis Distance for Improving Near-OOD Detection", arXiv:2106.09022; Park et al. 2023, "Understanding the
Feature Norm for Out-of-Distribution Detection", arXiv:2310.05316; Sun et al. 2022, "Out-of-Distribution Detection with
Deep Nearest Neighbors", arXiv:2204.06507; Bates et al. 2023, "Testing for Outliers with Conformal p-values",
arXiv:2104.08279.
Differs from them: scores are summed, at most 2,000 training images stand for all, and long features are no sign of
familiarity. The difference of the Mahalanobis distances is computed in the L < K directions that tell classes apart,
since it is zero in all others.
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
from reslab.records import FAMILIARITY

MOST: Final = 2000  # training images that are looked at
FEWEST: Final = 19  # held-out images: with fewer, the strangest picture of all has a familiarity above 0.05
_NEIGHBOURS: Final = 10
_SHRINKAGE: Final = 0.1  # of the correlations of features within classes, so that few images suffice
_SAME: Final = 0.999  # cosine of an image's features with its own, at half the digits
_EQUAL: Final = 1e-5  # sums that differ by less are equal, whatever computed them


class Familiarity(nn.Module):
    """Turns features (N, D) and logits (N, K) into familiarities (N,) in (0, 1].

    `measure` turns them into scores (N, S), and `scores` are those of the held-out images (H, S).
    """

    scores: Tensor
    deviations: Tensor
    sums: Tensor

    def __init__(self, measure: nn.Module, scores: Tensor) -> None:
        super().__init__()
        self.measure = measure
        self.register_buffer("scores", scores)
        self.register_buffer("deviations", scores.std(dim=0).clamp(min=1e-6))
        self.register_buffer("sums", (scores / self.deviations).sum(dim=1))

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        scores: Tensor = self.measure(features, logits)
        own = (scores / self.deviations).sum(dim=1)
        no_more = (self.sums <= own[:, None] + _EQUAL).sum(dim=1)
        return (1 + no_more).float() / (1 + len(self.sums))

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Give what a file of weights holds of it."""
        tensors = {"scores": self.scores, **self.measure.state_dict()}
        found = {FAMILIARITY + name: value.cpu().numpy() for name, value in tensors.items()}
        # Half the digits of training images suffice.
        return {name: value.astype(np.float16) if name.endswith("known") else value for name, value in found.items()}


class Neighbours(nn.Module):
    """Scores by `known`, the features (M, D) of training images of length 1, and by the energy."""

    known: Tensor

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        self.register_buffer("known", known)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        cosine = (F.normalize(features, dim=1) @ self.known.T).topk(_NEIGHBOURS, dim=1).values[:, -1]
        return torch.stack([cosine, _energy(logits)], dim=1)


class Directions(nn.Module):
    """Scores by the energy, the length of the features, and how much nearer these are to a class than to all images.

    `axes` (D, L) lead from the `centre` (D,) of all images into the directions in which the classes' means (K, L)
    differ, and images of a class have a variance of 1. `shared` (L,) are the parts of all images' variance that lie
    between the classes, and `median` () is that of the lengths.
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
        # |z|² is left out of both distances.
        to_class = (2 * places @ self.means.T - (self.means**2).sum(dim=1)).amax(dim=1)
        to_all = (places**2 * self.shared).sum(dim=1)
        length = torch.minimum(features.norm(dim=1), self.median)
        return torch.stack([_energy(logits), length, to_class - to_all], dim=1)


def fit_familiarity(known: Tensor, labels: Tensor, held_out: Tensor, logits: Tensor) -> Familiarity | None:
    """Learn from features (M, D) and labels (M,) of training images, and features (H, D) and logits (H, K) of others.

    Gives nothing where those are too few, or the features are not finite.
    """
    if len(held_out) < FEWEST or len(torch.unique(labels)) < 2 or not known.isfinite().all():
        return None
    measure = _find_directions(known, labels)
    return Familiarity(measure, measure(held_out.float(), logits.float()))


def fit_frozen(known: Tensor, held_out: Tensor, logits: Tensor) -> Familiarity | None:
    """Learn from features (M, D) that no image has changed, and features (H, D) and logits (H, K) of held-out images.

    Those may be among the known ones, with logits out of folds: each is compared with the others. Gives nothing where
    they are too few.
    """
    if min(len(known), len(held_out)) < FEWEST:
        return None
    stored = F.normalize(known.float(), dim=1).half().float()  # as a file keeps them
    near = (F.normalize(held_out.float(), dim=1) @ stored.T).topk(_NEIGHBOURS + 1, dim=1).values
    is_known = near[:, 0] > _SAME
    cosine = torch.where(is_known, near[:, _NEIGHBOURS], near[:, _NEIGHBOURS - 1])
    return Familiarity(Neighbours(stored), torch.stack([cosine, _energy(logits.float())], dim=1))


def _find_directions(features: Tensor, labels: Tensor) -> Directions:
    """Find by features (M, D) and labels (M,) where classes differ: a linear discriminant analysis."""
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


def _energy(logits: Tensor) -> Tensor:
    return (logits - logits.mean(dim=1, keepdim=True)).logsumexp(dim=1)


def read_familiarity(tensors: Mapping[str, NDArray[Any]], *, num_features: int, path: Path) -> Familiarity | None:
    """Find it among the tensors of a file of weights. Raises: UserError where it does not fit the network."""
    found = {
        name.removeprefix(FAMILIARITY): torch.from_numpy(value).float()
        for name, value in tensors.items()
        if name.startswith(FAMILIARITY)
    }
    if not found:
        return None
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    scores = found.pop("scores", torch.empty(0))
    match shapes:
        case {"known": (num, features), "scores": (_, 2), **rest}:
            fits = num >= _NEIGHBOURS and not rest
        case {"axes": (features, directions), "means": (_, axes), "scores": (_, 3), **rest}:
            other = {"centre": (features,), "shared": (directions,), "median": ()}
            fits = axes == directions and rest == other
        case _:
            features, fits = 0, False
    if not fits or features != num_features:
        raise UserError(
            f"{path} is damaged: what it knows of training images does not fit a network of {num_features} features"
        )
    return Familiarity(Neighbours(found["known"]) if "known" in found else Directions(**found), scores)

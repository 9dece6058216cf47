"""How much a picture is like those that a network was trained on, with a promise about those that are.

Two scores say how near a picture is to the training images: the cosine between its features and those of its tenth
nearest training image, and its energy, the log of the summed exponentials of its logits, less their mean. Each is
ranked among the held-out images and the picture together, and the lower rank counts. A picture's familiarity is the
share of all these, itself among them, whose lower rank is no higher: a full conformal p value. Of pictures that come
from where the training images came from, at most 5 % have a familiarity of 0.05 or less, whatever the network is; so to
answer above that answers at least 95 % of them.

Sources: Sun et al. 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors", arXiv:2204.06507; Liu et al.
2020, "Energy-based Out-of-distribution Detection", arXiv:2010.03759; Bates et al. 2023, "Testing for Outliers with
Conformal p-values", arXiv:2104.08279.
Differs from them: at most 2,000 training images stand for all, and the two scores are joined by their ranks.
Axes: N images, D features, K classes, M training images, H held-out images.
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

MOST: Final = 2000  # training images that are kept
FEWEST: Final = 39  # held-out images: with fewer, a stranger by one score alone has a familiarity above 0.05
_NEIGHBOURS: Final = 10
_EQUAL: Final = 1e-5  # scores that differ by less are equal, whatever computed them


class Familiarity(nn.Module):
    """Turns features (N, D) and logits (N, K) into familiarities (N,) in (0, 1].

    `known` are features (M, D) of training images of length 1, `scores` both scores of the held-out images (H, 2).
    """

    known: Tensor
    scores: Tensor
    others: Tensor  # by each score, how many of the other held-out images have no more (H, 2)

    def __init__(self, known: Tensor, scores: Tensor) -> None:
        super().__init__()
        self.register_buffer("known", known)
        self.register_buffer("scores", scores)
        self.register_buffer("others", _count(scores, scores) - 1)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        scores = _score(features, logits, self.known)
        own = _count(scores, self.scores).amin(dim=1)
        first, second = (
            self.others[:, place] + (scores[:, place, None] <= self.scores[:, place] + _EQUAL).int() for place in (0, 1)
        )
        lower = (torch.minimum(first, second) <= own[:, None]).sum(dim=1)
        return (1 + lower).float() / (1 + len(self.scores))

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Give what a file of weights holds of it; half the digits suffice."""
        known, scores = self.known.half().cpu().numpy(), self.scores.cpu().numpy()
        return {FAMILIARITY + "known": known, FAMILIARITY + "scores": scores}


def fit_familiarity(known: Tensor, held_out: Tensor, logits: Tensor) -> Familiarity | None:
    """Learn from features of training images (M, D) and features (H, D) and logits (H, K) of held-out ones.

    Gives nothing where those are too few.
    """
    if len(held_out) < FEWEST or len(known) < _NEIGHBOURS:
        return None
    stored = F.normalize(known.float(), dim=1).half().float()  # as a file keeps them
    return Familiarity(stored, _score(held_out.float(), logits.float(), stored))


def fit_frozen(features: Tensor, logits: Tensor) -> Familiarity | None:
    """Learn from features (M, D) that no image has changed, each compared with the others, and logits out of folds.

    Gives nothing where those are too few.
    """
    if len(features) < FEWEST:
        return None
    stored = F.normalize(features.float(), dim=1).half().float()
    return Familiarity(stored, _score(features.float(), logits.float(), stored, neighbours=_NEIGHBOURS + 1))


def read_familiarity(tensors: Mapping[str, NDArray[Any]], *, num_features: int, path: Path) -> Familiarity | None:
    """Find it among the tensors of a file of weights. Raises: UserError where it does not fit the network."""
    found = {name: value for name, value in tensors.items() if name.startswith(FAMILIARITY)}
    if not found:
        return None
    known, scores = (found.get(FAMILIARITY + name, np.empty(0)) for name in ("known", "scores"))
    if known.ndim != 2 or known.shape[1] != num_features or len(known) < _NEIGHBOURS or scores.shape[1:] != (2,):
        raise UserError(
            f"{path} is damaged: the images that the network knows have the shape {known.shape} and not "
            f"(M, {num_features})"
        )
    return Familiarity(torch.from_numpy(known).float(), torch.from_numpy(scores).float())


def _score(features: Tensor, logits: Tensor, known: Tensor, *, neighbours: int = _NEIGHBOURS) -> Tensor:
    """Give each image's cosine to the last of its nearest training images, and its energy: (N, 2)."""
    cosine = (F.normalize(features, dim=1) @ known.T).topk(neighbours, dim=1).values[:, -1]
    return torch.stack([cosine, (logits - logits.mean(dim=1, keepdim=True)).logsumexp(dim=1)], dim=1)


def _count(scores: Tensor, among: Tensor) -> Tensor:
    """Count the images of `among` (H, 2) that score no more than each image (N, 2), by either score: (N, 2)."""
    counts = [(among[:, place] <= scores[:, place, None] + _EQUAL).sum(dim=1) for place in (0, 1)]
    return torch.stack(counts, dim=1).int()

"""How much a picture is like those that a network was trained on, with a promise about those that are.

A picture's score is the cosine between its features and those of its tenth nearest training image. Its familiarity is
the share of held-out images, itself among them, that score no more: a conformal p value. Of pictures that come from
where the training images came from, at most 5 % have a familiarity of 0.05 or less, whatever the network is; so to
answer above that answers at least 95 % of them.

Sources: Sun et al. 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors", arXiv:2204.06507; Bates et al.
2023, "Testing for Outliers with Conformal p-values", arXiv:2104.08279.
Differs from them: at most 2,000 training images stand for all.
Axes: N images, D features, M training images, H held-out images.
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
FEWEST: Final = 20  # held-out images: with fewer, not even 95 % can be promised
_NEIGHBOURS: Final = 10
_EQUAL: Final = 1e-5  # cosines that differ by less are equal, whatever computed them


class Familiarity(nn.Module):
    """Turns features (N, D) into familiarities (N,) in (0, 1].

    `known` are features (M, D) of training images of length 1, `scores` those of held-out images in rising order (H,).
    """

    known: Tensor
    scores: Tensor

    def __init__(self, known: Tensor, scores: Tensor) -> None:
        super().__init__()
        self.register_buffer("known", known)
        self.register_buffer("scores", scores)

    def forward(self, features: Tensor) -> Tensor:
        scores = _score(features, self.known)
        lower = (self.scores <= scores[:, None] + _EQUAL).sum(dim=1)
        return (1 + lower).float() / (1 + len(self.scores))

    def to_tensors(self) -> dict[str, NDArray[Any]]:
        """Give what a file of weights holds of it; half the digits suffice."""
        return {
            FAMILIARITY + "known": self.known.half().cpu().numpy(),
            FAMILIARITY + "scores": self.scores.cpu().numpy(),
        }


def fit_familiarity(known: Tensor, held_out: Tensor) -> Familiarity | None:
    """Learn from features of training images (M, D) and held-out ones (H, D); nothing where those are too few."""
    if len(held_out) < FEWEST or len(known) < _NEIGHBOURS:
        return None
    stored = F.normalize(known.float(), dim=1).half().float()  # as a file keeps them
    return Familiarity(stored, _score(held_out.float(), stored).sort().values)


def read_familiarity(tensors: Mapping[str, NDArray[Any]], *, num_features: int, path: Path) -> Familiarity | None:
    """Find it among the tensors of a file of weights. Raises: UserError where it does not fit the network."""
    found = {name: value for name, value in tensors.items() if name.startswith(FAMILIARITY)}
    if not found:
        return None
    known, scores = (found.get(FAMILIARITY + name, np.empty(0)) for name in ("known", "scores"))
    if known.ndim != 2 or known.shape[1] != num_features or len(known) < _NEIGHBOURS or scores.ndim != 1:
        raise UserError(
            f"{path} is damaged: the images that the network knows have the shape {known.shape} and not "
            f"(M, {num_features})"
        )
    return Familiarity(torch.from_numpy(known).float(), torch.from_numpy(scores).float())


def _score(features: Tensor, known: Tensor) -> Tensor:
    """Give each image's cosine to its tenth nearest training image: (N,)."""
    return (F.normalize(features, dim=1) @ known.T).topk(_NEIGHBOURS, dim=1).values[:, -1]

"""A run's network as it is served: pixels to probabilities, evidence and neighbours.

Axes: N pictures, C channels, H rows, W columns, D features, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from reslab.data.images import ImageSet
from reslab.errors import UserError
from reslab.evaluation.heat import evidence_maps
from reslab.machine import kernels
from reslab.measure.class_sets import find_threshold, members
from reslab.models.layers import ImageClassifier
from reslab.network.folding import fold
from reslab.network.network import Network
from reslab.runs import Run
from reslab.serving.neighbours import Index, to_data_url
from reslab.serving.schema import Neighbour

# The evidence for one class costs as much as to classify one or two pictures, and one picture as so many neighbours. A
# few classes are as many as are computed together, or those who ask for none would wait.
HEAT_WEIGHT, NEIGHBOURS_OF_A_PICTURE = 4, 8
MAX_HEAT_CLASSES = 10  # of each picture
MAX_NEIGHBOURS = 320  # of one request


@dataclass(frozen=True)
class Asked:
    """What is asked of a picture: the `top` best classes, where their evidence lies, the `nearest` training images.

    With `coverage`, also the classes that the truth is among in this share of cases.
    """

    top: int = 5
    heat: bool = False
    nearest: int = 0
    coverage: float | None = None

    @property
    def weight(self) -> int:
        """What to answer costs, in pictures that are only classified."""
        return 1 + HEAT_WEIGHT * self.heat * self.top + self.nearest // NEIGHBOURS_OF_A_PICTURE

    def check(self, num_pictures: int) -> None:
        """Raise: UserError where the answer for so many pictures would be too large."""
        if self.heat and self.top > MAX_HEAT_CLASSES:
            raise UserError(
                f"heat=true with top={str(self.top)[:20]} is too much: ask for at most {MAX_HEAT_CLASSES} classes, "
                "or omit heat"
            )
        if num_pictures * self.nearest > MAX_NEIGHBOURS:
            raise UserError(
                f"{num_pictures} pictures with nearest={self.nearest} are too many: a request gives at most "
                f"{MAX_NEIGHBOURS} training images"
            )


@dataclass(frozen=True)
class Question:
    """One picture (C, H, W) uint8, and what is asked of it."""

    pixels: NDArray[np.uint8]
    asked: Asked


@dataclass(frozen=True)
class Reply:
    """The best classes of one picture by number, with probabilities and, where asked for, evidence (T, h, w).

    `class_set` are those that the truth is among as often as was asked for.
    """

    classes: list[int]
    probabilities: list[float]
    evidence: list[list[list[float]]] | None
    nearest: list[Neighbour]
    familiarity: float | None
    class_set: list[int] | None = None


class Served:
    """The network of a run folder or of a `model.safetensors`; `index` is set when the training images are known."""

    def __init__(self, path: Path, *, name: str, device: str = "auto") -> None:
        """Load it. Raises: UserError where there is no finished network."""
        self.network = Network.load(path, device=device)
        kernels.enable(self.network.device)
        self.name, self.run = name, Run.open(path) if path.is_dir() else None
        self.index: Index | None = None
        self.index_note = "No nearest training images."
        with torch.inference_mode():
            self._folded = fold(_WithFeatures(self.network.module).eval())
        # What evidence needs is imported now: later that would hold up everybody who asks.
        self._spread(torch.zeros(self.network.channels, *[self.network.image_size] * 2, dtype=torch.uint8), [0])

    @torch.inference_mode()
    def compute(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits (N, K) and features (N, D) of stored pixels (N, C, H, W), on the CPU."""
        logits, features = self._folded(self.network.prepare(pixels))
        return logits.float().cpu(), features.float().cpu()

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        """Answer for all pictures at once."""
        pixels = torch.from_numpy(np.stack([question.pixels for question in questions]))
        logits, features = self.compute(pixels)
        probabilities = logits.softmax(1)
        familiarities = self._compare(features, logits)
        # Once for all: each call of PyTorch's for one picture takes as long as it does for all.
        most = max(min(question.asked.top, len(self.network.classes)) for question in questions)
        best, labels = (found.tolist() for found in probabilities.topk(most))
        return [
            Reply(
                classes=labels[place][: asked.top],
                probabilities=best[place][: asked.top],
                evidence=self._spread(pixels[place], labels[place][: asked.top]) if asked.heat else None,
                nearest=self._search(features, place, asked.nearest),
                familiarity=familiarities[place],
                class_set=self._choose(probabilities[place], asked),
            )
            for place, asked in enumerate(question.asked for question in questions)
        ]

    @torch.inference_mode()
    def _compare(self, features: Tensor, logits: Tensor) -> list[float] | list[None]:
        known = self.network.familiarity
        return [None] * len(features) if known is None else cast("list[float]", known(features, logits).tolist())

    def find_threshold(self, asked: Asked) -> float | None:
        """Find how large sets of classes have to be. Raises: UserError where the coverage cannot be promised."""
        known = self.network.metadata.class_sets
        return None if asked.coverage is None else find_threshold(known, coverage=asked.coverage)

    def _choose(self, probabilities: Tensor, asked: Asked) -> list[int] | None:
        threshold = self.find_threshold(asked)
        if threshold is None:
            return None
        size = int(members(probabilities.numpy()[None], threshold=threshold).sum())
        return cast("list[int]", probabilities.argsort(descending=True, stable=True)[:size].tolist())

    def use_images(self, images: ImageSet, features: Tensor) -> None:
        """Answer from now on also with the nearest of these training images."""
        self.index, self.index_note = Index(images, features), f"Of {len(features):,} training images."

    def _spread(self, pixels: Tensor, classes: list[int]) -> list[list[list[float]]] | None:
        chosen = torch.tensor([classes], device=self.network.device)
        maps = evidence_maps(self.network.module, self.network.prepare(pixels[None]), classes=chosen)
        return None if maps is None else cast("list[list[list[float]]]", maps[0].double().numpy().round(4).tolist())

    def _search(self, features: Tensor, place: int, num: int) -> list[Neighbour]:
        if self.index is None or num == 0:
            return []
        return [
            Neighbour(
                name=self.network.classes[found.label], similarity=found.similarity, image=to_data_url(found.image)
            )
            for found in self.index.search(features[place, None], num=num)[0]
        ]


class _WithFeatures(nn.Module):
    """A network that hands out its features beside its logits."""

    def __init__(self, model: ImageClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model.features(images)
        return self.model.head(features), features

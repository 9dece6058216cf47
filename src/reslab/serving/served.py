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
from torch import Tensor

from reslab.data.images import ImageSet
from reslab.errors import UserError
from reslab.evaluation.heat import evidence_maps
from reslab.machine import kernels
from reslab.measure.class_sets import find_threshold, members
from reslab.network.folding import fold
from reslab.network.inference import WithFeatures
from reslab.network.network import Network
from reslab.runs import Run
from reslab.serving.neighbours import Index, to_data_url
from reslab.serving.schema import Neighbour

# In pictures, evidence for one class costs one or two; it counts more, so that requests without evidence need not wait
# for a batch full of it. Classifying a picture costs as much as finding this many neighbours.
HEAT_WEIGHT, NEIGHBOURS_OF_A_PICTURE = 4, 8
MAX_HEAT_CLASSES = 10  # per picture
MAX_NEIGHBOURS = 320  # per request


@dataclass(frozen=True)
class Asked:
    """What to compute for a picture: the `top` best classes, their evidence maps, the `nearest` training images.

    With `coverage`, also a set of classes that contains the true one in this share of cases.
    """

    top: int = 5
    heat: bool = False
    nearest: int = 0
    coverage: float | None = None

    @property
    def weight(self) -> int:
        """The cost of an answer, in pictures that are only classified."""
        return 1 + HEAT_WEIGHT * self.heat * self.top + self.nearest // NEIGHBOURS_OF_A_PICTURE

    def check(self, num_pictures: int) -> None:
        """Raises: UserError if the answer for `num_pictures` would be too large."""
        if self.heat and self.top > MAX_HEAT_CLASSES:
            raise UserError(
                f"heat=true with top={str(self.top)[:20]} is too much: ask for at most {MAX_HEAT_CLASSES} classes, "
                "or omit heat"
            )
        if num_pictures * self.nearest > MAX_NEIGHBOURS:
            raise UserError(
                f"{num_pictures} pictures with nearest={self.nearest} are too many: a request returns at most "
                f"{MAX_NEIGHBOURS} training images"
            )


@dataclass(frozen=True)
class Question:
    """One picture (C, H, W) uint8, and what to compute for it."""

    pixels: NDArray[np.uint8]
    asked: Asked


@dataclass(frozen=True)
class Reply:
    """The best classes of one picture by number, with probabilities and, if requested, evidence (T, h, w).

    `class_set` contains the true class in the requested share of cases.
    """

    classes: list[int]
    probabilities: list[float]
    evidence: list[list[list[float]]] | None
    nearest: list[Neighbour]
    familiarity: float | None
    class_set: list[int] | None = None


class Served:
    """The network of a run folder or of a `model.safetensors`; `index` is set once the training images are known."""

    def __init__(self, path: Path, *, name: str, device: str = "auto") -> None:
        """Load it. Raises: UserError if there is no finished network."""
        self.network = Network.load(path, device=device)
        kernels.enable(self.network.device)
        self.name, self.run = name, Run.open(path) if path.is_dir() else None
        self.index: Index | None = None
        self.index_note = "No nearest training images."
        with torch.inference_mode():
            self._folded = fold(WithFeatures(self.network.module).eval())
        # Import what evidence needs now: later it would hold up all requests.
        self._spread(torch.zeros(self.network.channels, *[self.network.image_size] * 2, dtype=torch.uint8), [0])

    @torch.inference_mode()
    def compute(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute logits (N, K) and features (N, D) on the CPU, and the input, of stored pixels (N, C, H, W)."""
        prepared = self.network.prepare(pixels)
        features, logits = self._folded(prepared)
        return logits.float().cpu(), features.float().cpu(), prepared

    def answer(self, questions: Sequence[Question]) -> list[Reply]:
        """Answer all questions in one batch."""
        pixels = torch.from_numpy(np.stack([question.pixels for question in questions]))
        logits, features, prepared = self.compute(pixels)
        probabilities = logits.softmax(1)
        familiarities = self._compare(features, logits, prepared)
        # One call for all: a PyTorch call for one picture takes as long as for all of them.
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
    def _compare(self, features: Tensor, logits: Tensor, prepared: Tensor) -> list[float] | list[None]:
        known = self.network.familiarity
        if known is None:
            return [None] * len(features)
        return cast("list[float]", known(features, logits, prepared.cpu()).tolist())

    def find_threshold(self, asked: Asked) -> float | None:
        """Find the threshold of the sets of classes. Raises: UserError if the coverage cannot be promised."""
        known = self.network.metadata.class_sets
        return None if asked.coverage is None else find_threshold(known, coverage=asked.coverage)

    def _choose(self, probabilities: Tensor, asked: Asked) -> list[int] | None:
        threshold = self.find_threshold(asked)
        if threshold is None:
            return None
        size = int(members(probabilities.numpy()[None], threshold=threshold).sum())
        return cast("list[int]", probabilities.argsort(descending=True, stable=True)[:size].tolist())

    def use_images(self, images: ImageSet, features: Tensor) -> None:
        """From now on, include the nearest of these training images in answers."""
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

"""Feature fusion: the concatenated features of a network and a pretrained network, under one linear head.

Source: the two networks' own; see `reslab.extension.fusion`.
Axes: N images, C channels, H rows, W columns, D features, K classes.
"""

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reslab.models import build
from reslab.models.layers import ImageClassifier
from reslab.recipe.networks import Fusion


class FusionClassifier(ImageClassifier):
    """The base's features, then the pretrained network's, whose input is normalised as in its own training.

    If both networks are the same, as after `fit`, one pass computes the features of both; see `settle`.
    """

    scale: Tensor
    shift: Tensor
    is_twin = False

    def __init__(self, options: Fusion, *, num_classes: int, channels: int) -> None:
        super().__init__()
        self.base = build(options.base, num_classes=num_classes, channels=channels)
        self.pretrained = build(options.pretrained, num_classes=num_classes, channels=channels)
        self.image_size = self.base.image_size
        self.are_alike = options.base == options.pretrained  # in their layers
        # Converts images standardised for the base to the pretrained network's normalisation.
        self.register_buffer("scale", torch.ones(channels))
        self.register_buffer("shift", torch.zeros(channels))
        num_features = self.base.head.in_features + self.pretrained.head.in_features
        del self.base.head, self.pretrained.head
        self.head = (
            SplitLinear(num_features, num_classes, blocks=[(part.classes, part.features) for part in options.kept])
            if options.kept
            else nn.Linear(num_features, num_classes)
        )

    @property
    def is_prepared(self) -> bool:  # type: ignore[override]
        return self.base.is_prepared

    def prepare(self, images: Tensor) -> None:
        self.base.prepare(images)

    def settle(self) -> None:
        base, pretrained = self.base.state_dict(), self.pretrained.state_dict()
        self.is_twin = (
            self.are_alike
            and all(torch.equal(value, pretrained[name]) for name, value in base.items())
            and bool((self.scale == 1).all() and (self.shift == 0).all())
        )

    def train(self, mode: bool = True) -> Self:
        if mode:  # weights are about to change
            self.is_twin = False
        return super().train(mode)

    def features(self, images: Tensor) -> Tensor:
        first = self.base.features(images)
        if self.is_twin:
            return torch.cat([first, first], dim=1)
        seen = torch.addcmul(self.shift[:, None, None], images, self.scale[:, None, None])
        return torch.cat([first, self.pretrained.features(seen)], dim=1)


class SplitLinear(nn.Linear):
    """A linear layer that computes some rows separately, from only the first features, as before they were extended.

    A product with more rows or columns may round differently; `blocks` of (rows, columns) stay bitwise identical.
    """

    def __init__(self, in_features: int, out_features: int, *, blocks: Sequence[tuple[int, int]]) -> None:
        super().__init__(in_features, out_features)
        rest = out_features - sum(rows for rows, _ in blocks)
        self.blocks = (*blocks, (rest, in_features))

    def forward(self, x: Tensor) -> Tensor:
        parts, start = [], 0
        for rows, columns in self.blocks:
            weight = self.weight[start : start + rows, :columns].contiguous()
            parts.append(F.linear(x[:, :columns].contiguous(), weight, self.bias[start : start + rows]))
            start += rows
        return torch.cat(parts, dim=1)

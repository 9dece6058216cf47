import numpy as np
import pytest
import torch

from reslab.data.images import ImageSet
from reslab.evaluation import copies
from reslab.evaluation.copies import find_copies


def as_set(images: torch.Tensor, split: str) -> ImageSet:
    labels = torch.arange(len(images)) % 2
    return ImageSet(images, labels, ("one", "two"), "made", split)  # type: ignore[arg-type]


def test_finds_test_images_that_were_trained_on_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(256, (30, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    train, test = as_set(images[:20], "train"), as_set(torch.stack([images[25], images[3], images[4].flip(2)]), "test")
    found = find_copies(train, test)
    assert found is not None
    assert found.indices.tolist() == [1, 2]
    monkeypatch.setattr(copies, "find_overlap", None)
    again = find_copies(train, test)
    assert again is not None
    assert np.array_equal(again.indices, found.indices)
    monkeypatch.setattr(copies, "MOST_PAIRS", 59)
    assert find_copies(train, test) is None

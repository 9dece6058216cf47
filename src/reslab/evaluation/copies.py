"""Find test images with an exact or near copy among the training images: the network may have memorized them.

Two sets are compared only once, however many runs use them: the result is cached under both fingerprints.
"""

from pathlib import Path
from typing import Any

import numpy as np

from reslab.data.check import duplicates
from reslab.data.check.duplicates import find_overlap
from reslab.data.images import ImageSet
from reslab.data.storage.cache import name_of, opening
from reslab.measure.metrics import Integers
from reslab.runs import Copies
from reslab.runs.files import writing

MOST_PAIRS = 2_000_000_000  # of a training and a test image: about a minute on one core


def find_copies(train: ImageSet, test: ImageSet) -> Copies | None:
    """Find the test images (M,) that occur among the training images; None if there are too many to compare."""
    if train.is_streamed or test.is_streamed or len(train.labels) * len(test.labels) > MOST_PAIRS:
        return None

    def make(part: Path) -> dict[str, Any]:
        overlap = find_overlap(train, test)
        found: Integers = np.unique(np.array([place for _, place in overlap.exact + overlap.near], dtype=np.int64))
        writing(part, lambda: np.save(part / "copies.npy", found))
        return {"origin": test.expression, "split": "copies", "shape": list(found.shape)}

    with opening(name_of("copies", duplicates.VERSION, train.fingerprint, test.fingerprint), make) as path:
        return Copies(np.load(path / "copies.npy", allow_pickle=False))

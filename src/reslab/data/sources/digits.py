"""scikit-learn's `digits`: 1,797 real handwritten digits of 8x8 grey pixels that come with the package.

Source: UCI, "Optical Recognition of Handwritten Digits" (the test part).
Differs from it: the values 0 to 16 are scaled to 0 to 255; without an official split, 20 % of each class is the test's.
"""

import numpy as np

from reslab.data.images import Labelled
from reslab.data.split import cut
from reslab.records import SplitName

NUM_VALUES = 16


def read_digits(*, split: SplitName) -> Labelled:
    """Read one split, (N, 1, 8, 8)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / NUM_VALUES)).astype(np.uint8)[:, None]
    labels = bunch.target.astype(np.int64)
    classes = tuple(str(name) for name in bunch.target_names)
    chosen = cut(labels, classes=classes, split=split)
    return Labelled(images[chosen], labels[chosen], classes)

"""Folds of images for cross-validation, which keep groups of images together.

Axes: N images.
"""

import numpy as np
from numpy.typing import NDArray

from reslab.errors import UserError
from reslab.measure.metrics import Integers

FOLDS = 5

Keys = NDArray[np.uint64]
Folds = list[tuple[Integers, Integers]]  # places of the images to solve a head on, and of those that it answers


def split_folds(labels: Integers, keys: Keys | None = None, *, seed: int = 0) -> Folds:
    """Split the images into stratified folds, each group of equal keys in one of them.

    There are five folds, or as many as the class with the fewest groups has; more if a class would otherwise lie in one
    fold. Raises: UserError if every number of folds leaves a class without images to solve a head on.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    groups, nothing = number_groups(keys, num=len(labels)), np.zeros(len(labels))
    counts, num_groups = np.bincount(labels), len(np.unique(groups))
    fewest = min(FOLDS, *(len(np.unique(groups[labels == label])) for label in range(len(counts))))
    if num_groups == len(labels) and fewest > 1:
        return list(StratifiedKFold(fewest, shuffle=True, random_state=seed).split(nothing, labels))
    for num in range(max(2, fewest), min(FOLDS, num_groups, int(counts.min())) + 1):
        folds = list(StratifiedGroupKFold(num, shuffle=True, random_state=seed).split(nothing, labels, groups))
        if all(len(np.unique(labels[kept])) == len(counts) for kept, _ in folds):
            return folds
    raise UserError("a class has too few training images or groups for cross-validation: add some, or regroup them")


def number_groups(keys: Keys | None, *, num: int) -> Integers:
    """Number the groups of equal keys among `num` images; each image without a key, 0, is a group of its own."""
    if keys is None:
        return np.arange(num)
    _, groups = np.unique(keys, return_inverse=True)
    return np.where(keys == 0, num + np.arange(num), groups)

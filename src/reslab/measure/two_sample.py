"""Test whether two samples come from one distribution: energy distances, permutations, and Holm's correction.

Sources: Székely and Rizzo 2013, "Energy statistics: A class of statistics based on distances"; Holm 1979, "A simple
sequentially rejective multiple test procedure".
Axes: N images of both samples, the reference first; D numbers that describe an image; T tests.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reslab.measure.metrics import Floats

PERMUTATIONS = 999


def energy_tests(described: Sequence[Floats], *, num_reference: int) -> list[float]:
    """Return the p value of each description (N, D): how often a random split of the images differs as much.

    The smallest possible value is 1 / (1 + PERMUTATIONS). All descriptions share the permutations.
    """
    weights = _deal(len(described[0]), num_reference=num_reference)
    return [_test(each, weights) for each in described]


def _deal(num: int, *, num_reference: int) -> NDArray[np.float32]:
    """Return weights (N, 1 + PERMUTATIONS) that subtract one sample's mean from the other's, first unpermuted."""
    as_it_is = np.full(num, 1 / (num - num_reference), dtype=np.float32)
    as_it_is[:num_reference] = -1 / num_reference
    generator = np.random.default_rng(0)
    return np.stack([as_it_is, *(generator.permutation(as_it_is) for _ in range(PERMUTATIONS))], axis=1)


def _test(described: Floats, weights: NDArray[np.float32]) -> float:
    distances = _distances(described)
    energies = -(weights * (distances @ weights)).sum(axis=0)
    # Rounding must not break ties.
    return float((energies >= energies[0] - 1e-5 * distances.mean()).mean())


def _distances(described: Floats) -> NDArray[np.float32]:
    """Return the Euclidean distances (N, N) of rows (N, D)."""
    centred = described - described.mean(axis=0)
    squares = (centred**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * centred @ centred.T, 0))
    return np.asarray(distances, np.float32)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values (T,) so that, if nothing differs, the smallest is at most 5 % in no more than 5 % of cases."""
    order = np.argsort(p_values)
    scaled = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(scaled))
    return [float(each) for each in adjusted]

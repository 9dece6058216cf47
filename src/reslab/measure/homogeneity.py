"""Test whether classes are recognized equally often: an exact test of homogeneity, by sampling.

Source: the permutation test of a contingency table with Pearson's statistic; Agresti 2013, "Categorical Data
Analysis", section 3.5.
Axes: K classes.
"""

from typing import Final

import numpy as np

from reslab.measure.metrics import Floats, Integers

TABLES: Final = 999


def homogeneity_p(hits: Integers, *, totals: Integers) -> float:
    """Return how often chance alone spreads the shares of `hits` (K,) among `totals` (K,), all positive, as much.

    The hits of all classes are dealt to the images at random. The smallest possible value is 1 / (1 + TABLES).
    """
    share = hits.sum() / totals.sum()
    dealt = np.random.default_rng(0).multivariate_hypergeometric(totals, int(hits.sum()), TABLES, method="marginals")

    def spread(some: Integers) -> Floats:
        return np.asarray(((some - share * totals) ** 2 / totals).sum(-1))

    return float((1 + (spread(dealt) >= spread(hits) - 1e-9).sum()) / (1 + TABLES))

"""Whether classes differ in how often they are recognized."""

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from reslab.measure.homogeneity import homogeneity_p


def test_equal_classes_differ_as_rarely_as_promised() -> None:
    """The highest and the lowest of thirty equal recalls are far apart, which is no finding."""
    generator = np.random.default_rng(3)
    totals = np.full(30, 40)
    found = [homogeneity_p(generator.binomial(totals, 0.8), totals=totals) < 0.05 for _ in range(200)]
    assert np.mean(found) < 0.1


def test_the_p_value_is_that_of_pearsons_test_where_images_are_many() -> None:
    totals, hits = np.array([400, 500, 300]), np.array([340, 400, 255])
    expected = chi2_contingency([hits, totals - hits]).pvalue
    assert homogeneity_p(hits, totals=totals) == pytest.approx(expected, abs=0.04)
    assert homogeneity_p(np.array([340, 400, 200]), totals=totals) == 0.001


@pytest.mark.parametrize("hits", [[5, 5], [0, 0]])
def test_classes_without_a_mistake_or_a_hit_do_not_differ(hits: list[int]) -> None:
    assert homogeneity_p(np.array(hits), totals=np.array([5, 5])) == 1

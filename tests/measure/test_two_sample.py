"""Two-sample tests: exact on a hand-made case, calibrated where nothing differs, and Holm's own example."""

import numpy as np
import pytest
from scipy.stats import energy_distance

from reslab.measure import two_sample
from reslab.measure.two_sample import energy_tests, holm


def test_the_statistic_is_the_energy_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_sample, "PERMUTATIONS", 3)
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=30), generator.normal(1, 1, size=20)
    both = np.concatenate([first, second])[:, None]
    weights = np.r_[np.full(30, -1 / 30), np.full(20, 1 / 20)]
    energy = -weights @ np.abs(both - both.T) @ weights
    assert energy == pytest.approx(energy_distance(first, second) ** 2)
    dealt = two_sample._deal(50, num_reference=30)
    np.testing.assert_allclose(dealt[:, 0], weights, rtol=1e-6)
    np.testing.assert_allclose(np.sort(dealt, axis=0), np.sort(weights)[:, None].repeat(4, axis=1), rtol=1e-6)


def test_p_values_are_small_where_samples_differ_and_uniform_where_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_sample, "PERMUTATIONS", 99)
    generator = np.random.default_rng(1)
    alike = [generator.normal(size=(60, 2)) for _ in range(200)]
    p_values = np.array(energy_tests(alike, num_reference=40))
    assert 0.4 < p_values.mean() < 0.6
    assert (p_values <= 0.1).mean() < 0.18
    shifted = alike[0] + np.r_[np.zeros(40), np.full(20, 2.0)][:, None]
    assert energy_tests([shifted, np.ones((60, 1))], num_reference=40) == [0.01, 1]


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]

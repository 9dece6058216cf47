"""Extended learning curves: the right place where the curve is known, an interval that is as wide as it must be."""

import numpy as np
import pytest

from reslab.measure.learning_curve import extrapolate, morgan_mercer_flodin

SHARES = np.array([0.05, 0.1, 0.2, 0.4, 0.8])


def draw(num: int, *, seed: int = 0, error: float = 0.3, exponent: float = 0.5) -> np.ndarray:
    """Answer images, each with a difficulty of its own, with the error of a known curve."""
    errors = np.array([morgan_mercer_flodin(x, *map(np.array, (error, exponent, 0.5))) for x in SHARES])
    hard = np.random.default_rng(seed).random(num)
    return (hard >= errors[:, None]).astype(float)


def test_a_known_curve_is_extended() -> None:
    now, four_times = extrapolate(SHARES, draw(4000), to=(1, 4))
    truth = 1 - morgan_mercer_flodin(4, *map(np.array, (0.3, 0.5, 0.5)))
    assert now.value == pytest.approx(0.7, abs=0.02)
    assert four_times.low < truth < four_times.high
    assert four_times.value == pytest.approx(truth, abs=0.02)


def test_the_curve_is_that_of_the_odds_above_the_floor() -> None:
    error, exponent, floor = map(np.array, (0.5, 2.0, 0.2))
    assert morgan_mercer_flodin(1, error, exponent, floor) == pytest.approx(0.5)
    # 0.4 of 0.9 above the floor of 0.1: odds of 4 to 5, a quarter of that for twice the data.
    assert morgan_mercer_flodin(2, error, exponent, floor) == pytest.approx(0.1 + 0.9 * (0.2 / 1.2))


def test_few_images_mean_a_wide_interval_and_no_errors_no_certainty() -> None:
    (few,), (many,) = (extrapolate(SHARES, draw(num), to=(4,)) for num in (40, 4000))
    assert few.high - few.low > 2 * (many.high - many.low)
    (perfect,) = extrapolate(SHARES, np.ones((5, 30)), to=(1,))
    assert 0.8 < perfect.low < 0.99 < perfect.high <= 1


@pytest.mark.parametrize("x", [[0.8], [0.4, 0.8]])
def test_one_size_is_enough_to_say_something(x: list[float]) -> None:
    (found,) = extrapolate(np.array(x), draw(100)[-len(x) :], to=(4,))
    assert 0.5 < found.low < found.value < found.high < 1

"""Verdicts against hand-computed intervals."""

from statistics import fmean, stdev

import pytest

from reslab.recipe.recipe import Published
from reslab.study.verdict import RowVerdict, Sample, half_width, judge, subtract

T_975 = {1: 12.7062, 2: 4.30265, 4: 2.77645, 9: 2.26216}  # from a printed table, by degrees of freedom


def published(value: float) -> Published:
    return Published(low=value, high=value, source="a table")


def verdict(*values: float, at: float = 0.07, lower_is_better: bool = True) -> RowVerdict:
    return judge(Sample(values), published(at), tolerance=0.005, lower_is_better=lower_is_better)


@pytest.mark.parametrize("values", [(0.07, 0.08), (0.061, 0.064, 0.072), (0.06, 0.07, 0.08, 0.09, 0.05)])
def test_the_interval_of_a_mean_is_students(values: tuple[float, ...]) -> None:
    sample = Sample(values)
    assert sample.mean == fmean(values)
    expected = T_975[len(values) - 1] * stdev(values) / len(values) ** 0.5
    assert sample.half_width == pytest.approx(expected, rel=1e-5)


def test_the_interval_of_a_difference_is_welchs() -> None:
    first, second = Sample((0.10, 0.12, 0.14)), Sample((0.20, 0.21, 0.22, 0.23))
    one, two = 0.0004 / 3, (0.0005 / 3) / 4
    freedom = (one + two) ** 2 / (one**2 / 2 + two**2 / 3)
    assert freedom == pytest.approx(3.2347, abs=1e-4)
    found = subtract(first, second)
    assert found.value == pytest.approx(-0.095)
    # t at 3.2347 degrees of freedom lies between the table's 3.18245 at 3 and 2.77645 at 4.
    assert 2.77645 < found.half_width / (one + two) ** 0.5 < 3.18245
    assert found.is_decided
    assert found.further_seeds is None
    equal = half_width((0.0004, 5), (0.0004, 5))  # of equal spread and number, Welch's freedom is the pooled 8
    assert equal == pytest.approx(2.30600 * (2 * 0.0004 / 5) ** 0.5, rel=1e-5)


def test_one_seed_has_no_interval_and_no_verdict() -> None:
    assert Sample((0.07,)).half_width is None
    assert verdict(0.07) == RowVerdict("not decided")
    assert subtract(Sample((0.1,)), Sample((0.2, 0.3))).half_width is None


def test_the_words() -> None:
    assert verdict(0.0700, 0.0702, 0.0698).word == "reproduced"
    assert verdict(0.0600, 0.0602, 0.0598).word == "better"
    assert verdict(0.0800, 0.0802, 0.0798).word == "worse"
    assert verdict(0.0800, 0.0802, 0.0798, lower_is_better=False).word == "better"
    assert verdict(0.0600, 0.0602, 0.0598, lower_is_better=False).word == "worse"
    assert verdict(0.0749, 0.0751, 0.0753).word == "not decided"  # across the end of the tolerance
    assert verdict(0.0702, 0.0720, 0.0738).word == "not decided"  # 0.0720 ± 0.00447, with 0.0750 as the end
    # All above the published figure, and yet no further from it than the tolerance.
    assert verdict(0.0720, 0.0721, 0.0719).word == "reproduced"


def test_a_published_range_is_tolerated_as_a_whole() -> None:
    known = Published(low=0.92, high=0.93, source="a table")
    for mean, word in ((0.925, "reproduced"), (0.933, "reproduced"), (0.940, "better"), (0.910, "worse")):
        sample = Sample((mean - 0.0001, mean, mean + 0.0001))
        assert judge(sample, known, tolerance=0.005, lower_is_better=False).word == word


def test_so_many_more_seeds_decide_and_one_less_does_not() -> None:
    values = (0.070, 0.076, 0.064)
    further = verdict(*values).further_seeds
    spread = Sample(values).variance
    assert further is not None
    assert half_width((spread, 3 + further)) <= 0.005 < half_width((spread, 2 + further))
    # By hand: deviation 0.006, so t * 0.006 / sqrt(n) <= 0.005 first at n = 9: 2.30600 * 0.006 / 3 = 0.004612.
    assert further == 6


def test_so_many_seeds_are_no_advice() -> None:
    assert verdict(0.0749, 0.0751, 0.07501).further_seeds is None
    assert verdict(0.065, 0.075, 0.085).further_seeds is None  # the mean lies on the very end of the tolerance


def test_a_difference_says_how_many_seeds_of_each_decide_it() -> None:
    found = subtract(Sample((0.06, 0.07, 0.08)), Sample((0.07, 0.08, 0.09)))
    assert not found.is_decided
    # deviation 0.01 each: t(2n-2) * 0.01 * sqrt(2/n) <= 0.01 first at n = 9: 2.11991 * sqrt(2/9) = 0.9993.
    assert found.further_seeds == 6


def test_rows_with_unequally_many_seeds_need_fewer_more() -> None:
    """The second row has two seeds, which alone cannot decide; its spread is nothing beside the first one's."""
    values = [0.1 + 0.004 * sign for sign in (1, -1)] * 6
    deviation = stdev(values)
    found = subtract(Sample(tuple(values)), Sample((0.104, 0.104)))
    assert not found.is_decided
    # By hand: t at 12 degrees of freedom is 2.17881, and 2.17881 * 0.004178 / sqrt(13) = 0.002525 <= 0.004.
    assert 2.17881 * deviation / 13**0.5 <= abs(found.value)
    assert found.further_seeds == 1


def test_two_seeds_decide_nothing() -> None:
    found = judge(Sample((0.07, 0.07), error=0.0001), published(0.07), tolerance=0.005, lower_is_better=True)
    assert found == RowVerdict("not decided", further_seeds=1)
    difference = subtract(Sample((0.1, 0.1)), Sample((0.2, 0.2, 0.2)))
    assert difference.is_decided is False
    assert difference.further_seeds == 1


def test_seeds_that_agree_are_no_surer_than_their_images() -> None:
    assert Sample((0.07, 0.07, 0.07), error=0.0025).half_width == 0.0025
    assert Sample((0.06, 0.07, 0.08), error=0.0025).half_width == Sample((0.06, 0.07, 0.08)).half_width

    def found(error: float, at: float = 0.07) -> RowVerdict:
        sample = Sample((0.07, 0.07, 0.07), error=error)
        return judge(sample, published(at), tolerance=0.005, lower_is_better=True)

    assert found(0.0025).word == "reproduced"
    assert found(0.02) == RowVerdict("not decided", further_seeds=None)  # no seed makes more images
    assert found(0.02, at=0.1).word == "better"
    close = subtract(Sample((0.1, 0.1, 0.1), error=0.03), Sample((0.13, 0.13, 0.13), error=0.04))
    assert close.half_width == pytest.approx(0.05)
    assert not close.is_decided
    assert close.further_seeds is None


def test_an_interval_ends_where_the_metric_does_and_the_verdict_with_it() -> None:
    """By hand: the deviation of 0, 0.01 and 0.02 is 0.01, so half the interval is 4.30265 * 0.01 / sqrt(3)."""
    width = T_975[2] * 0.01 / 3**0.5
    low, high = Sample((0.0, 0.01, 0.02)), Sample((0.98, 0.99, 1.0))
    assert low.interval == (0.0, pytest.approx(0.01 + width, rel=1e-5))
    assert high.interval == (pytest.approx(0.99 - width, rel=1e-5), 1.0)
    assert Sample((0.07,)).interval is None
    for sample, at in ((low, 0.01), (high, 0.99)):
        assert judge(sample, published(at), tolerance=0.026, lower_is_better=True).word == "reproduced"
        assert judge(sample, published(at), tolerance=0.024, lower_is_better=True).word == "not decided"
    far = subtract(Sample((0.5, 1.0, 1.0)), Sample((0.0, 0.0, 0.4)))
    assert far.interval is not None
    assert far.half_width is not None
    assert far.interval == (far.value - far.half_width, 1.0)
    assert subtract(Sample((0.1,)), Sample((0.2, 0.3))).interval is None

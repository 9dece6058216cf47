"""Numbers in words."""

import pytest

from reslab import words
from reslab.records import Estimate


def plain(text):
    return text.replace(words.NBSP, " ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min"), (123, "2 min 3 s"), (3599.4, "59 min 59 s"), (3599.6, "1 h"),
     (3720, "1 h 2 min"), (7170, "2 h"), (86_400, "24 h"), (181_200, "2 d 2 h")],
)  # fmt: skip
def test_duration(seconds, text):
    assert plain(words.duration(seconds)) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(61_706, "61.7 k"), (99_999, "100 k"), (467_946, "0.468 M"), (1_742_762, "1.74 M"), (36_500_000, "36.5 M")],
)
def test_quantity(number, text):
    assert plain(words.quantity(number)) == text


@pytest.mark.parametrize(("probability", "text"), [(0.5, "50.00 %"), (0.9999, "99.99 %"), (0.99999, "over 99.99 %")])
def test_certainty_never_reaches_a_hundred(probability, text):
    assert plain(words.certainty(probability)) == text


def test_numbers():
    assert plain(words.percent(0.9234)) == "92.34 %"
    assert plain(words.between(0.92, 0.931)) == "92.00–93.10 %"
    assert plain(words.between(0.92, 0.92)) == "92.00 %"
    assert plain(words.moment("2026-01-02T03:04:59+00:00")) == "2026-01-02, 03:04 UTC"
    assert [words.counted(number, "epoch") for number in (0, 1, 1200)] == ["0 epochs", "1 epoch", "1,200 epochs"]
    assert [words.listing(["a"]), words.listing(["a", "b"]), words.listing(["a", "b", "c"])] == [
        "a",
        "a and b",
        "a, b and c",
    ]


@pytest.mark.parametrize(
    ("unit", "text"),
    [("percent", "(90.25–100.00)"), ("plain", "(0.902–1.000)"), ("points", "(+90.25 to +100.00)")],
)
def test_an_interval_in_every_unit(unit, text):
    assert words.interval(0.9025, 1.0, unit=unit) == text


def test_an_interval_without_width_is_not_shown_as_certainty():
    assert words.interval(1.0, 1.0) == ""
    assert plain(words.figure(Estimate(value=1, low=1, high=1))) == "100.00 %"
    # One whose ends only look the same gets more decimals.
    assert words.interval(0.99999, 1.0) == "(99.999–100.000)"
    assert words.interval(-0.00001, 0.00001, unit="points") == "(\u22120.001 to +0.001)"
    # Rounding gives none a width.
    assert words.interval(3.0485870001, 3.0485870002, unit="plain") == ""
    assert words.interval(0.95257413, 0.95257413 + 1e-16) == ""


def test_a_figure_with_its_interval():
    estimate = Estimate(value=0.972, low=0.858, high=0.995)
    assert plain(words.figure(estimate)) == "97.20 % (85.80–99.50)"
    assert words.figure(estimate, unit="plain") == "0.972 (0.858–0.995)"
    change = Estimate(value=-0.01, low=-0.02, high=0.005)
    assert words.figure(change, unit="points") == "\u22121.00 points (\u22122.00 to +0.50)"


def test_errors_are_counted_in_words():
    assert words.errors_among(0, 36) == "no errors among 36"
    assert words.errors_among(1, 36) == "1 error among 36"
    assert words.errors_among(700, 10_000) == "700 errors among 10,000"


def test_points_have_a_sign_and_no_negative_nothing():
    assert [words.points(value) for value in (0.0123, -0.5, -0.00001, 0)] == ["+1.23", "\u221250.00", "0.00", "0.00"]


def test_names_and_counts():
    assert words.named("abc") == "a, b and c"
    assert words.named("abcd", most=3) == "a, b and 2 others"
    assert [words.counted(number, "class") for number in (1, 2)] == ["1 class", "2 classes"]

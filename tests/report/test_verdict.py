import pytest

from reslab.recipe.recipe import Published
from reslab.records import Estimate
from reslab.report import verdict


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.90, 0.92, "below"),
        (0.90, 0.927, "within"),  # touching
        (0.928, 0.929, "within"),  # inside
        (0.90, 0.95, "within"),  # around
        (0.93, 0.94, "within"),
        (0.9301, 0.94, "above"),
    ],
)
def test_word_compares_the_whole_interval(low, high, word):
    judged = verdict(Published(low=0.927, high=0.93, source="x"), Estimate(value=(low + high) / 2, low=low, high=high))
    assert judged.word == word


def test_the_value_alone_decides_nothing():
    published = Published(low=0.93, high=0.93, source="x")
    assert verdict(published, Estimate(value=0.92, low=0.91, high=0.931)).word == "within"


def test_sentence_names_both_ranges_and_what_one_seed_leaves_out():
    published = Published(low=0.93, high=0.93, source="x")
    sentence = verdict(published, Estimate(value=0.92, low=0.915, high=0.925)).sentence
    for part in ("91.50–92.50\u00a0%", "93.00\u00a0%", "below", "between seeds"):
        assert part in sentence
    assert sentence.count(".") - sentence.count("0\u00a0%") <= 3  # one sentence

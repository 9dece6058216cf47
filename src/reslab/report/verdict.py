"""Compare a run's accuracy with the published one of its recipe."""

from dataclasses import dataclass
from typing import Literal

from reslab.language import say
from reslab.recipe.recipe import Published
from reslab.records import Estimate
from reslab.words import between


@dataclass(frozen=True)
class Verdict:
    """How our interval compares with the published range, as a word and as a sentence."""

    word: Literal["within", "above", "below"]
    sentence: str


def verdict(published: Published, estimate: Estimate) -> Verdict:
    """Judge a test accuracy with its interval: `within` if the two ranges touch, else the side that ours lies on."""
    ours, theirs = between(estimate.low, estimate.high), between(published.low, published.high)
    limit = say("the interval covers the sampling of test images only, not the spread between seeds")
    if estimate.low > published.high:
        found = say("Our whole interval, {ours}, is above the published {theirs}", ours=ours, theirs=theirs)
        return Verdict("above", f"{found}; {limit}.")
    if estimate.high < published.low:
        found = say("Our whole interval, {ours}, is below the published {theirs}", ours=ours, theirs=theirs)
        return Verdict("below", f"{found}; {limit}.")
    found = say("Our interval, {ours}, overlaps the published {theirs}", ours=ours, theirs=theirs)
    return Verdict("within", f"{found}; {limit}.")

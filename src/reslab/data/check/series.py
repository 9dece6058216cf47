"""Series: pictures taken within seconds of each other, which often show the same scene.

If one of them is in training and another in test, accuracy is too high. Only times that a camera may have written
count (see `read_times`).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from reslab.data.check.findings import SECONDS, Series
from reslab.data.expression import LocatedTerm, with_grouping
from reslab.data.images import ImageSet
from reslab.data.load import list_files
from reslab.data.sources.groups import group_by, read_times
from reslab.data.sources.listing import Listing, keys_of
from reslab.errors import UserError
from reslab.records import SplitName

SAMPLED: Final = 24  # pictures; if none has a time, no other is opened
LEAST_SHARE: Final = 0.1  # of a source's pictures
MINUTES: Final = (5, 1)  # between series, tried in this order


def have_times(listing: Listing) -> bool:
    """Return whether some of a source's pictures say when they were taken; all are opened if some of a sample do."""
    origin = str(listing.root)
    some = listing.files[:: -(-len(listing.files) // SAMPLED)]
    return any(read_times(some, origin=origin)) and any(read_times(listing.files, origin=origin))


def find_series(expression: str, sources: Sequence[tuple[LocatedTerm, Listing]]) -> list[Series | None]:
    """Find each source's pictures taken in series that nothing keeps in one split.

    None for a source if they are few, times say nothing, or none of it is trained on. The expression that keeps each
    series in one split is the same for all sources that need it.
    """
    found = [_find(term, listing) for term, listing in sources]
    grouped = expression
    for (term, _), each in zip(sources, found, strict=True):
        if each is not None and each.rule is not None:
            grouped = with_grouping(grouped, term, each.rule)
    return [None if each is None else each.describe(grouped) for each in found]


def find_in_series(train: ImageSet, test: ImageSet, *, data_dir: Path | None) -> NDArray[np.int64]:
    """Find the test images (M,) taken within seconds of a training image of the same source."""
    if train.digests is None or test.digests is None or train.is_streamed:
        return np.empty(0, dtype=np.int64)
    found = [np.empty(0, dtype=np.uint64)]
    for _, listing in list_files(train.expression, data_dir=data_dir):
        if not have_times(listing):
            continue
        taken = read_times(listing.files, origin=str(listing.root), only_cameras=True)
        times = np.array(taken, dtype="datetime64[s]")
        keys, is_known = keys_of(listing.digests()), ~np.isnat(times)
        if len(np.unique(times[is_known])) <= len(listing.classes):  # not when pictures were taken
            continue
        learned = np.sort(times[is_known & np.isin(keys, train.digests)])
        tested = is_known & np.isin(keys, test.digests)
        seconds = np.timedelta64(SECONDS, "s")
        first = np.searchsorted(learned, times[tested] - seconds, side="left")
        past = np.searchsorted(learned, times[tested] + seconds, side="right")
        found.append(keys[tested][first < past])
    return np.flatnonzero(np.isin(test.digests, np.concatenate(found)))


@dataclass(frozen=True)
class _Found:
    """The series of a source, and the rule by which they can be grouped, if there is one."""

    count: int
    total: int
    rule: str | None
    too_few: tuple[str, ...] = ()
    num_divided: int = 0

    def describe(self, grouped: str) -> Series:
        return Series(
            count=self.count,
            total=self.total,
            expression=None if self.rule is None else grouped,
            too_few=self.too_few,
            num_divided=self.num_divided,
        )


def _find(term: LocatedTerm, listing: Listing) -> _Found | None:
    if term.limit == 0 or listing.groups is not None or term.options.group is not None or not have_times(listing):
        return None
    series = _number(read_times(listing.files, origin=str(listing.root)), num_classes=len(listing.classes))
    count, total = sum(number is not None for number in series), len(listing.files)
    if count < LEAST_SHARE * total:
        return None
    if listing.splits is not None:
        if not (num_divided := _count_divided(series, listing.splits)):
            return None
        return _Found(count, total, f"time:{MINUTES[0]}", num_divided=num_divided)
    for minutes in MINUTES:
        grouped = group_by(listing, rule := f"time:{minutes}")
        if _can_be_divided(grouped):
            return _Found(count, total, rule)
    return _Found(count, total, None, too_few=_name_too_few(grouped))


def _number(times: Sequence[datetime | None], *, num_classes: int) -> list[int | None]:
    """Number the series of pictures taken within seconds of the one before; None for a picture of none.

    If there are no more times than classes, they are not those of pictures.
    """
    numbers: list[int | None] = [None] * len(times)
    ordered = sorted((time, place) for place, time in enumerate(times) if time is not None)
    if len({time for time, _ in ordered}) <= num_classes:
        return numbers
    for (before, first), (time, second) in pairwise(ordered):
        if (time - before).total_seconds() <= SECONDS:
            numbers[first] = first if numbers[first] is None else numbers[first]
            numbers[second] = numbers[first]
    return numbers


def _count_divided(series: Sequence[int | None], splits: Sequence[SplitName]) -> int:
    """Count the series in several of a source's own splits."""
    own: dict[int, set[SplitName]] = defaultdict(set)
    for number, split in zip(series, splits, strict=True):
        if number is not None:
            own[number].add(split)
    return sum(len(each) > 1 for each in own.values())


def _can_be_divided(grouped: Listing) -> bool:
    """Return whether a test split can be cut off that leaves two groups of each class for choosing by folds."""
    try:
        return not _name_too_few(grouped.of_split("train"), least=2)
    except UserError:
        return False


def _name_too_few(grouped: Listing, *, least: int = 3) -> tuple[str, ...]:
    """Name the classes of fewer groups than two for training and one for the test."""
    groups = np.array(grouped.groups)
    counts = [len(np.unique(groups[grouped.labels == label])) for label in range(len(grouped.classes))]
    return tuple(name for name, num in zip(grouped.classes, counts, strict=True) if num < least)

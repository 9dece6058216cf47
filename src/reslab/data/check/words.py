"""The findings of a check as lines of text, counts first."""

from collections.abc import Iterator, Sequence

from reslab.data.check.findings import FEW_IMAGES, SECONDS, SHOWN, Copy, CopyPairs, Report, Series
from reslab.data.expression import leave_out_empty
from reslab.data.sources.listing import describe_unused
from reslab.errors import in_shell
from reslab.words import counted, listing, named, percent

FEW_NAMES = 3  # of files that are unused as expected


def describe(report: Report, *, most: int | None = 3) -> list[str]:
    """Describe the findings: a line for each, and one for each of its first `most` examples (None: all)."""
    return list(_lines(report, most))


def _lines(report: Report, most: int | None) -> Iterator[str]:
    if report.refused:
        yield f"cannot be loaded: {report.refused}"
    yield from report.notes
    for group in report.not_used:
        if group.expected and most is not None:
            yield describe_unused(group.reason, group.advice, group.paths, count=group.count, most=FEW_NAMES)
            continue
        advice = f" ({group.advice})" if group.advice else ""
        yield from _listed(f"{group.count:,} not used, {group.reason}{advice}", group.paths, group.count, most)
    if num := report.broken.count:
        shown = [f"{broken.path} {broken.reason}" for broken in report.broken.pictures]
        yield from _listed(counted(num, "broken picture"), shown, num, most)
    yield from _copies(report, most)
    if num := report.extreme.count:
        shown = [f"{found.image.path} ({found.kind})" for found in report.extreme.images]
        yield from _listed(f"{counted(num, 'picture')} nearly blank", shown, num, most)
    yield from _classes(report)
    yield from _shapes(report)
    for part in report.converted:
        yield from _listed(f"{counted(part.count, 'picture')} converted, {part.loss}", part.paths, part.count, most)
    yield from map(_series, report.series)
    yield from report.proposals


def _listed(finding: str, shown: Sequence[str], count: int, most: int | None) -> Iterator[str]:
    """Yield one line for a finding with one example, else also a line for each of the first `most` (None: all)."""
    if count == 1:
        yield f"{finding}: {shown[0]}"
        return
    yield f"{finding}:"
    yield from (f"  {each}" for each in shown[:most])
    if more := count - len(shown[:most]):
        yield f"  and {more:,} more"


def _copies(report: Report, most: int | None) -> Iterator[str]:
    found = report.duplicates
    if found is None or found.searched == "exact":
        if report.used:
            kind = "copies" if found is None else "near copies"
            expression = in_shell(leave_out_empty(report.expression))
            yield f"{kind} were not searched: run reslab data check {expression}"
        if found is None:
            return
    if tests := len(found.across_splits.test_indices):
        share = percent(tests / max(1, report.used.get("test", tests)))
        finding = f"{counted(tests, 'test image')} ({share}) with a copy among the training images"
        yield from _pairs(finding, found.across_splits, most)
    if found.with_validation.count:
        yield from _pairs(f"{count_pairs(found.with_validation)} across splits", found.with_validation, most)
    if found.across_classes.count:
        yield from _pairs(f"{count_pairs(found.across_classes)} with different labels", found.across_classes, most)
    if found.within_class.count:
        yield from _pairs(f"{count_pairs(found.within_class)} within a class", found.within_class, most)


def count_pairs(copies: CopyPairs) -> str:
    """Format the number of pairs of copies."""
    return f"{counted(copies.count, 'pair')} of copies"


def _pairs(finding: str, copies: CopyPairs, most: int | None) -> Iterator[str]:
    yield from _listed(finding, [_pair(pair) for pair in copies.pairs], copies.count, most)


def _pair(pair: Copy) -> str:
    labels = (
        ""
        if pair.first.class_name == pair.second.class_name
        else f", labelled {pair.first.class_name} and {pair.second.class_name}"
    )
    return f"{pair.first.path} and {pair.second.path} ({pair.kind}{labels})"


def _classes(report: Report) -> Iterator[str]:
    if small := report.small_classes:
        shown = named([f"{name}: {num}" for name, num in small.items()], most=SHOWN)
        images = "training images" if set(report.used) == {"train"} else "images"
        yield f"{counted(len(small), 'class')} of fewer than {FEW_IMAGES} {images}: {shown}"
    if report.imbalance:
        totals = {name: sum(counts.values()) for name, counts in report.classes.items()}
        largest, smallest = max(totals, key=totals.__getitem__), min(totals, key=lambda name: totals[name] or 10**9)
        yield (
            f"imbalance {report.imbalance:.3g}:1, {totals[largest]:,} images of “{largest}” to {totals[smallest]:,} of "
            f"“{smallest}”: look at balanced accuracy and macro F1 first"
        )
    for names in report.look_alike_names:
        yield f"{len(names)} classes with names that look alike: {listing([repr(name) for name in names])}"


def _shapes(report: Report) -> Iterator[str]:
    shapes = report.shapes
    if shapes is not None and shapes.num_squeezed:
        sizes = [f"{width}x{height}" for width, height in (shapes.smallest, shapes.largest)]
        yield (
            f"{counted(shapes.num_squeezed, 'picture')} of 4:3 or longer ({sizes[0]} to {sizes[1]} pixels): squeezing "
            f"to a square loses {percent(shapes.mean_loss, decimals=0)} of the longer side on average, "
            f"{percent(shapes.largest_loss, decimals=0)} at most"
        )


def _series(series: Series) -> str:
    """Say how many pictures were taken in series, and what keeps these in one split."""
    close = f"{series.count:,} of {counted(series.total, 'picture')} were taken within {SECONDS} seconds of another"
    if series.expression is None:
        few = f" of {named([f'“{name}”' for name in series.too_few])}" if series.too_few else ""
        return (
            f"{close}, so both splits may show the same scene, and accuracy be too high; by time there are too few "
            f"series{few} to keep each in one split: add pictures taken at other times, or group these with "
            "?group=REGEX on the file name"
        )
    expression = in_shell(series.expression)
    if series.num_divided:
        return (
            f"{close}, and the source's own splits divide {series.num_divided:,} such series, which makes accuracy too "
            f"high: reslab data check {expression} names the groups to move"
        )
    return (
        f"{close}, so both splits may show the same scene, and accuracy be too high: keep each series in one split, as "
        f"in reslab fit {expression}"
    )

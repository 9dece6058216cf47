"""What a check has found, a line each, counts first."""

import shlex
from collections.abc import Iterator

from reslab.data.check.findings import FEW_IMAGES, SHOWN, Copy, CopyPairs, Report
from reslab.data.sources.listing import describe_unused
from reslab.words import counted, listing, named, percent, some


def describe(report: Report, *, most: int | None = 3) -> list[str]:
    """Say what was found, in a line per finding with at most `most` examples each; None: all."""
    return list(_lines(report, most))


def _lines(report: Report, most: int | None) -> Iterator[str]:
    if report.refused:
        yield f"cannot be loaded: {report.refused}"
    yield from report.notes
    for group in report.not_used:
        yield describe_unused(group.reason, group.advice, group.paths, count=group.count, most=most)
    if num := report.broken.count:
        shown = [f"{broken.path} {broken.reason}" for broken in report.broken.pictures]
        yield f"{counted(num, 'broken picture')}: {some(shown, num, most)}"
    yield from _copies(report, most)
    if num := report.extreme.count:
        shown = [f"{found.image.path} ({found.kind})" for found in report.extreme.images]
        yield f"{counted(num, 'picture')} of next to nothing: {some(shown, num, most)}"
    yield from _classes(report)
    yield from _shapes(report)
    for part in report.converted:
        yield f"{counted(part.count, 'picture')} converted, {part.loss}: {some(part.paths, part.count, most)}"
    yield from report.proposals


def _copies(report: Report, most: int | None) -> Iterator[str]:
    found = report.duplicates
    if found is None or found.searched == "exact":
        if report.used:
            kind = "copies" if found is None else "near copies"
            yield f"{kind} were not looked for here, but reslab data check {shlex.quote(report.expression)} does"
        if found is None:
            return
    if tests := len(found.across_splits.test_indices):
        share = percent(tests / max(1, report.used.get("test", tests)))
        yield (
            f"{counted(tests, 'test image')} ({share}) with a copy among the images to learn from: "
            f"{_pairs(found.across_splits, most)}"
        )
    elif found.across_splits.count:
        yield f"{_counted_pairs(found.across_splits)} across splits: {_pairs(found.across_splits, most)}"
    if found.across_classes.count:
        yield f"{_counted_pairs(found.across_classes)} with different labels: {_pairs(found.across_classes, most)}"
    if found.within_class.count:
        yield f"{_counted_pairs(found.within_class)} within a class: {_pairs(found.within_class, most)}"


def _counted_pairs(copies: CopyPairs) -> str:
    return f"{copies.count:,} {'pair' if copies.count == 1 else 'pairs'} of copies"


def _pairs(copies: CopyPairs, most: int | None) -> str:
    return some([_pair(pair) for pair in copies.pairs], copies.count, most)


def _pair(pair: Copy) -> str:
    labels = (
        ""
        if pair.first.class_name == pair.second.class_name
        else f", {pair.first.class_name} and {pair.second.class_name}"
    )
    return f"{pair.first.path} and {pair.second.path} ({pair.kind}{labels})"


def _classes(report: Report) -> Iterator[str]:
    if small := report.small_classes:
        shown = named([f"{name} {num}" for name, num in small.items()], most=SHOWN)
        yield f"{counted(len(small), 'class')} of fewer than {FEW_IMAGES} images: {shown}"
    if report.imbalance:
        totals = {name: sum(counts.values()) for name, counts in report.classes.items()}
        largest, smallest = max(totals, key=totals.__getitem__), min(totals, key=lambda name: totals[name] or 10**9)
        yield (
            f"imbalance {report.imbalance:.3g}:1, {largest} {totals[largest]:,} to {smallest} {totals[smallest]:,}: "
            "look at balanced accuracy and macro F1 first"
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

"""Check data for problems, either thoroughly or with the checks that cost a training next to nothing.

Axes: N images, C channels, H rows, W columns, K classes.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import numpy as np

from reslab.data.check import findings
from reslab.data.check.duplicates import Overlap, find_exact, find_exact_repeats, find_overlap, find_repeats
from reslab.data.check.findings import CopiesAcross, Copy, CopyPairs, Duplicates, FoundImage, Report
from reslab.data.check.series import find_series, have_times
from reslab.data.expression import LocatedTerm, NamedTerm, leave_out, parse
from reslab.data.framing import Form
from reslab.data.images import ImageSet
from reslab.data.load import check_classes, list_files, load, load_validation
from reslab.data.names import find_alike
from reslab.data.pictures import decode, losses_of, opening
from reslab.data.pixels import blocks_of
from reslab.data.progress import counting, in_threads
from reslab.data.sources.listing import Listing, group_unused
from reslab.data.sources.samples import EmptyClasses
from reslab.errors import UserError
from reslab.records import SplitName
from reslab.words import counted

SIDE: Final = 32  # pixels to which images are resized for the checks
QUICK, QUICK_BYTES = 6000, 256 << 20  # images and bytes of pixels that can be compared within two seconds
LEAST_SIDE: Final = 24  # pixels below which different pictures look like near copies
_CONSTANT: Final = 1.0  # standard deviation of levels (0 to 255)
_DARK, _BRIGHT, _ALMOST_ALL = 8, 247, 0.99  # levels; share of the pixels
_LONG: Final = 4 / 3  # aspect ratio from which squeezing changes a picture visibly


Sources = Sequence[tuple[LocatedTerm, Listing]]


def check(expression: str, *, data_dir: Path | None = None) -> Report:
    """Check all images of a data expression, including the test split; nothing is chosen by them.

    Classes without pictures are reported, and the others checked.
    Raises: UserError if the expression is wrong, or one of its sources cannot be listed.
    """
    try:
        sources = list_files(expression, data_dir=data_dir)
    except EmptyClasses as error:
        others = leave_out(expression, error.names)
        if others is None or error.are_all:
            raise
        return check(others, data_dir=data_dir).model_copy(update={"expression": expression, "refused": str(error)})
    refused: str | None = None
    sets: tuple[ImageSet, ...] = ()
    try:
        sets = _load_all(expression, data_dir)
    except UserError as error:
        refused = str(error)
    broken = tuple(_find_broken(sources, sets, is_refused=refused is not None))
    return _examine(expression, sets, sources, is_thorough=True, broken=broken, refused=refused)


def look(
    expression: str, *, data_dir: Path | None = None, image_size: int = SIDE, skip_damaged: bool = False
) -> Report | None:
    """Read both splits and run the cheap checks; None for official sets. Raises: as `load` does."""
    if is_official(expression):
        return None
    train, test = (
        load(expression, split, data_dir=data_dir, image_size=image_size, skip_damaged=skip_damaged)
        for split in ("train", "test")
    )
    return look_at((train, test), data_dir=data_dir)


def look_at(sets: Sequence[ImageSet], *, data_dir: Path | None = None) -> Report | None:
    """Run the cheap checks on splits that are already loaded; None for official or streamed images.

    Near copies are searched if there are few images and these have enough pixels.
    """
    expression = sets[0].expression
    if is_official(expression) or any(each.is_streamed for each in sets):
        return None
    return _examine(expression, sets, list_files(expression, data_dir=data_dir), is_thorough=False)


def is_official(expression: str) -> bool:
    """Return whether all sources of an expression are official sets."""
    return all(isinstance(term, NamedTerm) for term in parse(expression))


def _load_all(expression: str, data_dir: Path | None) -> tuple[ImageSet, ...]:
    train, test = (
        load(expression, split, data_dir=data_dir, image_size=SIDE, merge=True, skip_damaged=True)
        for split in ("train", "test")
    )
    check_classes(train)
    own = load_validation(
        expression, classes=train.classes, data_dir=data_dir, form=Form(SIDE, white=train.white), skip_damaged=True
    )
    return tuple(each for each in (train, own, test) if each is not None)


def _examine(
    expression: str,
    sets: Sequence[ImageSet],
    sources: Sources,
    *,
    is_thorough: bool,
    broken: tuple[findings.Broken, ...] = (),
    refused: str | None = None,
) -> Report:
    listings = [listing for _, listing in sources]
    num_images = sum(len(each.labels) for each in sets)
    num_bytes = sum(int(np.prod(each.images.shape)) for each in sets)
    is_small = num_bytes <= QUICK_BYTES
    is_near = num_images <= QUICK and all(min(each.images.shape[2:]) >= LEAST_SIDE for each in sets)
    duplicates = _find_duplicates(sets, near=is_thorough or is_near) if sets and (is_thorough or is_small) else None
    classes = _count_classes(sets, listings)
    totals = {name: sum(counts.values()) for name, counts in classes.items()}
    sizes = [num for num in totals.values() if num]
    ratio = max(sizes) / min(sizes) if sizes else 1.0
    with counting("looking at pictures", total=num_images) as show:
        extreme = tuple(found for each in sets for found in _find_extreme(each, show))
    white = sets[0].white if sets else None
    series = [None] * len(sources) if refused else find_series(expression, sources)
    without_series = [listing for listing, each in zip(listings, series, strict=True) if each is None]
    shapes, converted = _look_into(listings, white=white) if is_thorough else (None, ())
    return Report(
        expression=expression,
        used={each.split: len(each.labels) for each in sets},
        classes=classes,
        notes=tuple(note for listing in listings for note in listing.notes),
        not_used=tuple(each for listing in listings for each in _count_unused(listing)),
        broken=findings.BrokenPictures(count=len(broken), pictures=broken),
        duplicates=duplicates,
        extreme=findings.ExtremeImages(count=len(extreme), images=extreme),
        # Training uses only part of a source, and from some classes nothing.
        small_classes={name: num for name, num in totals.items() if num < findings.FEW_IMAGES and (num or is_thorough)},
        imbalance=ratio if ratio > findings.IMBALANCE else None,
        look_alike_names=find_alike(tuple(classes)),
        shapes=shapes,
        converted=converted,
        series=tuple(each for each in series if each is not None),
        proposals=tuple(_propose(without_series, duplicates)),
        refused=refused,
    )


# ---- files


def _count_unused(listing: Listing) -> Iterator[findings.NotUsed]:
    for kind, paths in group_unused(listing.unused).items():
        yield findings.NotUsed(**kind._asdict(), count=len(paths), paths=tuple(paths))


def _find_broken(sources: Sources, sets: Sequence[ImageSet], *, is_refused: bool) -> Iterator[findings.Broken]:
    """Read again the files missing from the splits to find the reason; all files if the splits could not be loaded."""
    if not is_refused and not any(each.num_damaged for each in sets):
        return
    # Two sources may use the same name: if one such picture is missing, read all of that name again.
    used = Counter(name for each in sets for name in each.names or ())
    listed = Counter(name for _, listing in sources for name in listing.names)
    pairs = [pair for _, listing in sources for pair in zip(listing.files, listing.names, strict=True)]
    again = [(path, name) for path, name in pairs if used[name] < listed[name]]
    yield from filter(None, in_threads(_find_reason, again, what="looking for broken pictures"))


def _find_reason(picture: tuple[Path, str]) -> findings.Broken | None:
    """Read a picture to find the reason why it is broken; None if it is not."""
    path, name = picture
    try:
        decode(path, image_size=SIDE, name=name)
    except UserError as error:
        return findings.Broken(path=name, reason=_reason(str(error), name=name))
    return None


def _reason(sentence: str, *, name: str) -> str:
    """Extract the reason from an error message of `decode`, without the file and the advice."""
    return sentence.removeprefix(name).rpartition(": ")[0].strip() or sentence


def _look_into(
    listings: Sequence[Listing], *, white: int | None
) -> tuple[findings.Shapes | None, tuple[findings.Reduced, ...]]:
    """Measure the picture files, and find what reading them leaves out."""
    files = [pair for listing in listings for pair in zip(listing.files, listing.names, strict=True)]
    sizes: list[tuple[int, int]] = []
    losses: dict[str, list[str]] = defaultdict(list)
    with counting("measuring pictures", total=len(files)) as show:
        for done, (file, name) in enumerate(files):
            with suppress(UserError), opening(file, name=name) as image:
                sizes.append(image.size)
                for loss in losses_of(image, white=white):
                    losses[loss].append(name)
            show(done)
    parts = (findings.Reduced(loss=loss, count=len(names), paths=tuple(names)) for loss, names in losses.items())
    return _measure(sizes) if sizes else None, tuple(parts)


def _measure(sizes: Sequence[tuple[int, int]]) -> findings.Shapes:
    sides = np.array(sizes)
    losses = 1 - sides.min(axis=1) / sides.max(axis=1)
    areas = sides.prod(axis=1)
    return findings.Shapes(
        smallest=sizes[areas.argmin()],
        largest=sizes[areas.argmax()],
        num_squeezed=int((losses >= 1 - 1 / _LONG).sum()),
        mean_loss=float(losses.mean()),
        largest_loss=float(losses.max()),
    )


# ---- classes


def _count_classes(sets: Sequence[ImageSet], listings: Sequence[Listing]) -> dict[str, dict[SplitName, int]]:
    """Count the images of each class in each split; if they could not be loaded, count the files."""
    counts: dict[str, dict[SplitName, int]] = {}
    for each in sets:
        for name, num in zip(each.classes, each.counts(), strict=True):
            counts.setdefault(name, {})[each.split] = num
    if not sets:
        for listing in listings:
            for label, name in enumerate(listing.classes):
                counts[name] = {"train": int((listing.labels == label).sum())}
    return counts


# ---- images


def _find_extreme(images: ImageSet, show: Callable[[int], None]) -> Iterator[findings.Extreme]:
    start = 0
    for block in blocks_of(images.images):
        step = max(1, block.shape[2] // SIDE)
        pixels = block[:, :, ::step, ::step].flatten(2).numpy()
        spread = pixels.std(axis=2, dtype=np.float32).max(axis=1)
        dark, bright = (pixels <= _DARK).mean(axis=(1, 2)), (pixels >= _BRIGHT).mean(axis=(1, 2))
        for place in np.flatnonzero((spread < _CONSTANT) | (dark >= _ALMOST_ALL) | (bright >= _ALMOST_ALL)):
            kind: Literal["constant", "nearly black", "nearly white"] = "constant"
            if spread[place] >= _CONSTANT:
                kind = "nearly black" if dark[place] >= _ALMOST_ALL else "nearly white"
            yield findings.Extreme(image=_found(images, start + int(place)), kind=kind)
        start += len(block)
        show(start)


def _found(images: ImageSet, place: int) -> FoundImage:
    name = images.names[place] if images.names is not None else ""
    return FoundImage(
        path=name or f"{images.split}[{place}]",
        split=images.split,
        class_name=images.classes[int(images.labels[place])],
    )


# ---- duplicates


def _find_duplicates(sets: Sequence[ImageSet], *, near: bool) -> Duplicates:
    """Find copies within each split and between each two splits."""
    repeats: Callable[[ImageSet], Overlap] = find_repeats if near else find_exact_repeats
    overlaps: Callable[[ImageSet, ImageSet], Overlap] = find_overlap if near else find_exact
    within: list[Copy] = []
    across: list[Copy] = []
    others: list[Copy] = []
    tests: set[int] = set()
    for number, first in enumerate(sets):
        within += _pairs(first, first, repeats(first))
        for second in sets[number + 1 :]:
            overlap = overlaps(first, second)
            if (first.split, second.split) != ("train", "test"):
                others += _pairs(first, second, overlap)
                continue
            across += _pairs(first, second, overlap)
            tests |= {place for _, place in overlap.exact + overlap.near}
    conflicts = [pair for pair in (*within, *across, *others) if pair.first.class_name != pair.second.class_name]
    agreeing = [pair for pair in within if pair.first.class_name == pair.second.class_name]
    return Duplicates(
        searched="near" if near else "exact",
        within_class=CopyPairs(count=len(agreeing), pairs=tuple(agreeing)),
        across_classes=CopyPairs(count=len(conflicts), pairs=tuple(conflicts)),
        across_splits=CopiesAcross(count=len(across), pairs=tuple(across), test_indices=tuple(sorted(tests))),
        with_validation=CopyPairs(count=len(others), pairs=tuple(others)),
    )


def _pairs(first: ImageSet, second: ImageSet, overlap: Overlap) -> Iterator[Copy]:
    """Yield the images of each pair, exact copies first."""
    kinds: tuple[tuple[findings.Kind, tuple[tuple[int, int], ...]], ...] = (
        ("exact", overlap.exact),
        ("near", overlap.near),
    )
    for kind, pairs in kinds:
        for one, other in pairs:
            yield Copy(first=_found(first, one), second=_found(second, other), kind=kind)


def _propose(listings: Sequence[Listing], duplicates: Duplicates | None) -> Iterator[str]:
    """Propose grouping pictures of these sources if reslab's own split has put near copies on both sides."""
    cut = [listing for listing in listings if listing.splits is None and listing.groups is None]
    names = {name for listing in cut for name in listing.names}
    near = [] if duplicates is None else [pair for pair in duplicates.across_splits.pairs if pair.kind == "near"]
    if num := sum({pair.first.path, pair.second.path} <= names for pair in near):
        rules = ["?group=parent"] if any(map(_has_subfolders, cut)) else []
        rules += ["?group=time:5 (minutes)"] if any(map(have_times, cut)) else []
        yield (
            f"{counted(num, 'pair')} of near copies landed on both sides of the cut: keep pictures of one series "
            f"together with {', '.join(rules)}{' or ' if rules else ''}?group=REGEX on the file name"
        )


def _has_subfolders(listing: Listing) -> bool:
    """Return whether the pictures of a class lie in several folders; otherwise each class would be one group."""
    parents = {(label, name.rpartition("/")[0]) for label, name in zip(listing.labels, listing.names, strict=True)}
    return len(parents) > len(np.unique(listing.labels))

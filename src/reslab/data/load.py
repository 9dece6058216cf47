"""Load images from a data expression: into memory, as a file of raw pixels, or streamed from shards.

Axes: N images, C channels, H rows, W columns, K classes.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import numpy as np
import torch
from numpy.typing import NDArray

from reslab.data.expression import LocatedTerm, NamedTerm, ShardsTerm, Term, parse
from reslab.data.frames import to_expression
from reslab.data.framing import Form
from reslab.data.images import ImageSet, Labelled
from reslab.data.names import write_choice
from reslab.data.notes import say_once
from reslab.data.pictures import check_channels, with_channels
from reslab.data.pixels import Converted, Pixels, join
from reslab.data.sources.catalog import OFFICIAL
from reslab.data.sources.cifar import find_data_dir, read_cifar
from reslab.data.sources.decoded import open_listing
from reslab.data.sources.digits import read_digits
from reslab.data.sources.folder import list_folder, would_read
from reslab.data.sources.foreign_shards import find_foreign, open_foreign, white_of_foreign
from reslab.data.sources.listing import Listing, keys_of
from reslab.data.sources.npz import has_validation, open_npz, white_of_npz
from reslab.data.sources.packed import is_packed, list_packed
from reslab.data.sources.shards import open_shards, stream_shards, white_of_shards
from reslab.data.sources.table import list_table
from reslab.data.sources.white import brightest, white_of_listing
from reslab.data.split import limit
from reslab.data.storage.blocks import Source
from reslab.data.storage.blocks import resize as resize_images
from reslab.data.storage.stored import read_cached
from reslab.errors import UserError, naming_problem
from reslab.recipe.shapes import Channels, Resizing
from reslab.records import SplitName
from reslab.words import counted

if TYPE_CHECKING:
    import pandas


def load(
    expression: "str | pandas.DataFrame",
    split: SplitName,
    *,
    data_dir: Path | None = None,
    image_size: int = 32,
    merge: bool = False,
    stream: int | None = None,
    skip_damaged: bool = False,
    resize: Resizing = "squeeze",
    channels: Channels = "auto",
    white: int | None = None,
) -> ImageSet:
    """Load a split of a data expression, resized to squares.

    If a source stores its splits apart, only the files of that split are opened. Folders, arrays and shards are read
    once, into a cache on disk.

    Parameters
    ----------
    expression : str or pandas.DataFrame
        Which classes of which sources, such as `cifar10`, `digits:0-6` or `folder:pictures`. Classes of a source with
        `@0` are known but have no training images. A DataFrame needs the same columns as tables of `csv:`; its paths
        are relative to `data_dir` or the current directory.
    split : {"train", "validation", "test"}
        The split to load. Only sources that store validation images have a validation split (`reslab data show`); a
        recipe holds such images out of the training split of others.
    data_dir : Path, optional
        Folder of CIFAR, to which missing files are downloaded; by default $RESLAB_DATA, else the user's cache folder.
        If given, relative paths of the expression start there if they exist there, else in the current directory.
    image_size : int, default 32
        The side of the images in pixels.
    merge : bool, default False
        Whether to merge classes of the same name in several sources; otherwise they are an error.
    stream : int, optional
        Read shards on demand, keeping `stream` images in memory.
    skip_damaged : bool, default False
        Whether to skip unreadable pictures and missing or truncated shards.
    resize : {"squeeze", "pad", "crop"}, default "squeeze"
        How pictures become squares: `pad` adds black bars, `crop` takes the middle.
    channels : {"auto", 1, 3}, default "auto"
        Convert all images to grey (1) or RGB (3); `auto` leaves them as they are.
    white : int, optional
        The value that becomes white in grey pictures and whole numbers of more than 8 bits; brighter ones are clipped.
        By default the smallest of 1, 255, 1023, 4095, 16383 and 65535 that holds all training images.

    Returns
    -------
    ImageSet
        Images (N, C, H, W) uint8, labels (N,) and the names of the classes.

    Raises
    ------
    UserError
        If the expression is invalid or its sources cannot be used.
    Failure
        If a download fails.

    Examples
    --------
    >>> import reslab
    >>> images = reslab.load("digits:0-2", "train", image_size=8)
    >>> images.images.shape[1:], images.classes
    (torch.Size([1, 8, 8]), ('0', '1', '2'))
    """
    if split not in ("train", "validation", "test"):
        raise UserError(f"{split!r} is no split: load 'train', 'validation' or 'test'")
    expression = to_expression(expression, data_dir=data_dir)
    terms = parse(expression)
    form = Form(image_size, resize, channels, _find_white(terms, data_dir) if white is None else white)
    if split == "validation":
        classes = load(
            expression,
            "train",
            data_dir=data_dir,
            image_size=image_size,
            merge=merge,
            skip_damaged=skip_damaged,
            resize=resize,
            channels=channels,
            white=form.white,
        ).classes
        own = load_validation(expression, classes=classes, data_dir=data_dir, form=form, skip_damaged=skip_damaged)
        if own is None:
            raise UserError(
                f"{expression} comes without validation images: load 'train' and hold some of its images out"
            )
        return own
    if stream is not None:
        return _stream(terms, expression, split, form, buffer=stream, skip_damaged=skip_damaged)
    parts = [_read_term(term, split, data_dir, form, skip_damaged) for term in terms]
    _check_channels(terms, parts, expression)
    _check_names(parts, expression, merge)
    _check_counts(terms, parts, expression, split)
    return _as_set(_join(parts), expression, split, white=form.white)


def check_classes(images: ImageSet) -> None:
    """Raises: UserError if there is only one class, which leaves nothing to classify."""
    if len(images.classes) < 2:
        raise UserError(f"{images.expression!r} has one class, {images.classes[0]!r}: a classifier needs at least two")


def load_validation(
    expression: str,
    *,
    classes: Sequence[str],
    data_dir: Path | None = None,
    form: Form,
    skip_damaged: bool = False,
) -> ImageSet | None:
    """Load the validation images that the sources of an expression come with; None if no source has any.

    `classes` are all classes of the expression, by which they are labelled; `form` has the white of its training
    images. A source with a limit of 0 has none.
    Raises: as `load` does.
    """
    # Pictures before arrays, since fingerprints of earlier runs depend on it.
    with_some = sorted(_find_validation(expression, data_dir), key=lambda term: term.source == "npz")
    parts = [_read_term(term, "validation", data_dir, form, skip_damaged) for term in with_some]
    if not any(len(part.labels) for part in parts):
        return None
    found = _join(parts)
    numbers = np.array([classes.index(name) for name in found.classes], dtype=np.int64)
    labelled = found._replace(labels=numbers[found.labels], classes=tuple(classes))
    return _as_set(labelled, expression, "validation", white=form.white)


def find_validation(expression: str, *, data_dir: Path | None = None) -> list[str]:
    """List the sources of an expression that come with validation images, without reading these."""
    return [term.origin for term in _find_validation(expression, data_dir)]


def _find_validation(expression: str, data_dir: Path | None) -> list[LocatedTerm]:
    taken = [term for term in parse(expression) if isinstance(term, LocatedTerm) and term.limit != 0]
    return [term for term in taken if _has_validation(term, data_dir)]


def _has_validation(term: LocatedTerm, data_dir: Path | None) -> bool:
    if term.source == "npz":
        return has_validation(find_place(term.path, data_dir))
    return "validation" in (_list_term(term, data_dir).splits or ())


def load_uncut(
    expression: str, *, data_dir: Path | None = None, form: Form, skip_damaged: bool = False
) -> ImageSet | None:
    """Load all pictures of an expression as one set, if all are files that nobody has split; None otherwise.

    A class may have a single picture. Limits of training images do not count.
    Raises: as `load` does.
    """
    terms, listings = parse(expression), list_files(expression, data_dir=data_dir)
    if len(listings) < len(terms) or any(listing.splits is not None for _, listing in listings):
        return None
    whole = [(term, listing.uncut()) for term, listing in listings]
    if form.white is None:
        form = form._replace(white=brightest(white_of_listing(listing) for _, listing in whole))
    parts = [
        _read_opened(open_listing(listing, split="train", form=form), term, "train", form, skip_damaged=skip_damaged)
        for term, listing in whole
    ]
    _check_channels(terms, parts, expression)
    _check_names(parts, expression, merge=False)
    return _as_set(_join(parts), expression, "train", white=form.white)


def list_files(expression: str, *, data_dir: Path | None = None) -> list[tuple[LocatedTerm, Listing]]:
    """List the picture files of each folder or table of an expression.

    A source may be missing if its classes are written out and none of its training images are taken.
    Raises: UserError as `load` does.
    """
    found = []
    for term in parse(expression):
        if isinstance(term, LocatedTerm) and term.source != "npz":
            try:
                found.append((term, _list_term(term, data_dir)))
            except UserError:
                if term.limit != 0 or not term.classes:
                    raise
    return found


def check_outside(out: Path | str, expression: str, *, data_dir: Path | None = None, option: str = "--out") -> None:
    """Raises: UserError if a new folder `out` would become a class of a folder of the expression."""
    for term in parse(expression):
        if not isinstance(term, LocatedTerm) or term.source != "folder":
            continue
        place = find_place(term.path, data_dir)
        if not place.is_dir() or not Path(os.path.realpath(out)).is_relative_to(os.path.realpath(place)):
            continue
        if would_read(place, Path(out), classes=term.classes, without=term.without, options=term.options):
            raise UserError(
                f"{os.path.abspath(out)} lies inside {os.path.abspath(place)}, whose folders are classes: give "
                f"{option} a folder elsewhere"
            )


def find_digests(expression: str, split: SplitName, *, data_dir: Path | None = None) -> NDArray[np.uint64]:
    """Hash each picture of a split as stored, without decoding; official sets and packed shards have no hashes."""
    found = [keys_of(listing.of_split(split).digests()) for _, listing in list_files(expression, data_dir=data_dir)]
    for term in parse(expression):
        if isinstance(term, LocatedTerm) and term.source == "npz":
            choice = write_choice(term.classes, term.without)
            digests = open_npz(find_place(term.path, data_dir), split=split, choice=choice).digests
            found += [] if digests is None else [digests]
    return np.concatenate([np.empty(0, dtype=np.uint64), *found])


def _list_term(term: LocatedTerm, data_dir: Path | None) -> Listing:
    def list_source(place: Path) -> Listing:
        lister = list_table if term.source == "csv" else list_folder
        return lister(place, classes=term.classes, without=term.without, options=term.options)

    place = find_place(term.path, data_dir)
    return list_packed(place, list_source) if is_packed(place) else list_source(place)


def find_place(path: Path, data_dir: Path | None) -> Path:
    """Resolve a path of an expression: in `data_dir` if it exists there, else in the working directory."""
    inside = path if data_dir is None else data_dir / path
    with naming_problem(f"{path} cannot be read"):
        return inside if inside.exists() or not path.exists() else path


def join_sets(first: ImageSet, second: ImageSet) -> ImageSet:
    """Concatenate two sets of the same classes."""
    return _as_set(_join([_as_part(first), _as_part(second)]), first.expression, first.split, white=first.white)


def _as_part(images: ImageSet) -> Labelled:
    pixels = images.images if isinstance(images.images, Pixels) else images.images.numpy()
    return Labelled(
        pixels,
        images.labels.numpy(),
        images.classes,
        images.names,
        images.keys,
        images.digests,
        images.num_damaged,
    )


def _as_set(part: Labelled, expression: str, split: SplitName, *, white: int | None) -> ImageSet:
    images = part.images if isinstance(part.images, Pixels) else torch.from_numpy(part.images)
    labels = torch.from_numpy(part.labels)
    return ImageSet(
        images,
        labels,
        part.classes,
        expression,
        split,
        names=part.names,
        keys=part.keys,
        digests=part.digests,
        num_damaged=part.num_damaged,
        white=white,
    )


def _find_white(terms: Sequence[Term], data_dir: Path | None) -> int | None:
    """Find one white for the sources of an expression, by those that training images are taken from."""
    return brightest(_white_of(term, data_dir) for term in terms if term.limit != 0)


def _white_of(term: Term, data_dir: Path | None) -> int | None:
    match term.source:
        case "folder" | "csv":
            return white_of_listing(_list_term(term, data_dir))
        case "npz":
            return white_of_npz(find_place(term.path, data_dir), choice=write_choice(term.classes, term.without))
        case "shards":
            files = find_foreign(term.url)
            return white_of_foreign(files) if files else white_of_shards(term.url)
        case _:
            return None


def _stream(
    terms: Sequence[Term], expression: str, split: SplitName, form: Form, *, buffer: int, skip_damaged: bool
) -> ImageSet:
    """Open the shards of the only term without reading images yet."""
    term = terms[0]
    if not isinstance(term, ShardsTerm) or len(terms) > 1 or term.limit is not None:
        raise UserError(f"{expression!r} cannot be streamed, only a single shards:URL can: pack it (reslab data pack)")
    part = stream_shards(term.url, split=split, form=form, skip_damaged=skip_damaged, buffer=buffer)
    _check_counts(terms, [part], expression, split)
    return _as_set(part, expression, split, white=form.white)


def _read_term(term: Term, split: SplitName, data_dir: Path | None, form: Form, skip_damaged: bool) -> Labelled:
    if split == "train" and term.limit == 0 and term.classes and form.channels != "auto":  # the source need not exist
        nothing = np.empty((0, form.channels, form.image_size, form.image_size), dtype=np.uint8)
        return Labelled(nothing, np.empty(0, dtype=np.int64), term.classes)
    part = _read_source(term, split, data_dir, form, skip_damaged)
    if isinstance(term, NamedTerm):
        part = _select(part, term.classes)
    if term.limit is not None and split == "train":
        chosen = limit(part.labels, classes=part.classes, num=term.limit, digests=part.digests)
        part = part.subset(chosen)
    return (
        part
        if isinstance(part.images, Pixels)
        else part._replace(images=resize_images(part.images, form.image_size, form.resize))
    )


def _read_source(term: Term, split: SplitName, data_dir: Path | None, form: Form, skip_damaged: bool) -> Labelled:
    match term.source:
        case "digits":
            return _convert(read_digits(split=split), term, form.channels)
        case "cifar10" | "cifar100" | "cifar100-coarse" as name:
            part = read_cifar(OFFICIAL[name], split=split, data_dir=find_data_dir(data_dir))
            return _convert(part, term, form.channels)
        case "folder" | "csv":
            source = open_listing(_list_term(term, data_dir), split=split, form=form)
        case "npz":
            source = open_npz(
                find_place(term.path, data_dir),
                split=split,
                white=form.white,
                choice=write_choice(term.classes, term.without),
            )
        case "shards":
            if files := find_foreign(term.url):
                source = open_foreign(files, split=split, form=form)
            else:
                form_stored = form._replace(channels="auto")
                source = open_shards(term.url, split=split, form=form_stored, skip_damaged=skip_damaged)
        case _:
            assert_never(term.source)
    return _read_opened(source, term, split, form, skip_damaged)


def _read_opened(source: Source, term: Term, split: SplitName, form: Form, skip_damaged: bool) -> Labelled:
    part = read_cached(source, origin=term.origin, split=split, form=form, skip_damaged=skip_damaged)
    return _convert(part, term, form.channels)


def _convert(part: Labelled, term: Term, channels: Channels) -> Labelled:
    """Convert a source's images to grey or RGB if necessary, and say so."""
    own = part.images.shape[1]
    if channels == "auto" or channels == own:
        return part
    check_channels(own, channels)
    say_once(f"{term.origin}: images of {counted(own, 'channel')} are converted to {channels}")
    if isinstance(part.images, Pixels):
        return part._replace(images=Converted(part.images, channels))
    return part._replace(images=with_channels(part.images, channels))


def _select(part: Labelled, classes: tuple[str, ...]) -> Labelled:
    """Keep the images of `classes`, numbered in that order; the order of images does not change."""
    if classes == part.classes:
        return part
    numbers = np.full(len(part.classes), -1, dtype=np.int64)
    numbers[[part.classes.index(name) for name in classes]] = np.arange(len(classes))
    labels = numbers[part.labels]
    return part._replace(labels=labels, classes=classes).subset(np.flatnonzero(labels >= 0))


def _join(parts: list[Labelled]) -> Labelled:
    """Concatenate all images; classes are numbered in the order in which their names first occur."""
    if len(parts) == 1:
        return parts[0]
    numbers: dict[str, int] = {}
    for name in (name for part in parts for name in part.classes):
        numbers.setdefault(name, len(numbers))
    labels = [np.array([numbers[name] for name in part.classes], dtype=np.int64)[part.labels] for part in parts]
    return Labelled(
        join([part.images for part in parts]),
        np.concatenate(labels),
        tuple(numbers),
        names=_join_names(parts),
        keys=_join_hashes([part.keys for part in parts], counts=[len(part.labels) for part in parts]),
        digests=_join_hashes([part.digests for part in parts], counts=[len(part.labels) for part in parts]),
        num_damaged=sum(part.num_damaged for part in parts),
    )


def _join_names(parts: Sequence[Labelled]) -> tuple[str, ...] | None:
    if all(part.names is None for part in parts):
        return None
    return tuple(chain.from_iterable(part.names or [""] * len(part.labels) for part in parts))


def _join_hashes(parts: Sequence[NDArray[np.uint64] | None], *, counts: Sequence[int]) -> NDArray[np.uint64] | None:
    if all(part is None for part in parts):
        return None
    return np.concatenate(
        [np.zeros(num, dtype=np.uint64) if part is None else part for part, num in zip(parts, counts, strict=True)]
    )


def _check_channels(terms: Sequence[Term], parts: Sequence[Labelled], expression: str) -> None:
    first, *others = (part.images.shape[1] for part in parts)
    for term, channels in zip(terms[1:], others, strict=True):
        if channels != first:
            raise UserError(
                f"{expression!r} joins images of {counted(first, 'channel')} ({terms[0].origin}) with images of "
                f"{channels} ({term.origin}), but a network takes one kind: set channels to 3, or to 1 for grey "
                "(--set channels=3)"
            )


def _check_names(parts: Sequence[Labelled], expression: str, merge: bool) -> None:
    seen: set[str] = set()
    for name in (name for part in parts for name in part.classes):
        if any("\ud800" <= letter <= "\udfff" for letter in name):
            raise UserError(f"the class name {name!r} of {expression!r} is not valid Unicode: rename it")
        if name in seen and not merge:
            raise UserError(
                f"the class {name!r} is in {expression!r} twice: take each class once, rename one, or say that they "
                "are the same (extend --merge, or --set merge=true)"
            )
        seen.add(name)


def _check_counts(terms: Sequence[Term], parts: Sequence[Labelled], expression: str, split: SplitName) -> None:
    for term, part in zip(terms, parts, strict=True):
        if split == "train" and term.limit == 0:
            continue
        for name, count in zip(part.classes, np.bincount(part.labels, minlength=len(part.classes)), strict=True):
            if count == 0:
                raise UserError(f"the class {name!r} of {expression!r} has no images in the {split} split")
    if not any(len(part.labels) for part in parts):
        if all(term.limit == 0 for term in terms):
            raise UserError(f"{expression!r} has no training images at all: raise the limit @0 of at least one source")
        raise UserError(f"{expression!r} leaves out all classes: take at least two")


@dataclass(frozen=True)
class DataDescription:
    """What an expression resolves to; `image_shape` is (C, H, W), mean and standard deviation are the training split's.

    `notes` say how folders were interpreted and which of their files are not used.
    """

    expression: str
    classes: tuple[str, ...]
    image_shape: tuple[int, ...]
    counts: dict[SplitName, list[int]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprints: dict[SplitName, str]
    notes: tuple[str, ...] = ()


def describe(
    expression: "str | pandas.DataFrame",
    *,
    data_dir: Path | None = None,
    image_size: int = 32,
    merge: bool = False,
    skip_damaged: bool = False,
) -> DataDescription:
    """Load both splits and summarise them; `dataclasses.asdict` makes the result ready for JSON.

    Parameters
    ----------
    expression, data_dir, image_size, merge, skip_damaged
        As for `load`.

    Returns
    -------
    DataDescription
        Classes, counts and fingerprints of each split; shape, mean and standard deviation of the training images.

    Raises
    ------
    UserError, Failure
        As `load` does.

    Examples
    --------
    >>> import reslab
    >>> found = reslab.describe("digits:0-2", image_size=8)
    >>> found.counts
    {'train': [142, 146, 142], 'test': [36, 36, 35]}
    """
    expression = to_expression(expression, data_dir=data_dir)
    train, test = (
        load(expression, split, data_dir=data_dir, image_size=image_size, merge=merge, skip_damaged=skip_damaged)
        for split in ("train", "test")
    )
    own = load_validation(
        expression,
        classes=train.classes,
        data_dir=data_dir,
        form=Form(image_size, white=train.white),
        skip_damaged=skip_damaged,
    )
    splits = [train, test] if own is None else [train, own, test]
    statistics = train.statistics()
    return DataDescription(
        expression=expression,
        classes=train.classes,
        image_shape=tuple(train.images.shape[1:]),
        counts={images.split: images.counts() for images in splits},
        mean=statistics.mean,
        std=statistics.std,
        fingerprints={images.split: images.fingerprint for images in splits},
        notes=tuple(note for _, listing in list_files(expression, data_dir=data_dir) for note in listing.summary()),
    )

"""Images in arrays: which array of a file is what, by common names.

Images are called images, X, x, data or imgs; labels are called labels, y or targets; a split is a word before or after,
as in `x_train`, `train_images` or `y_val`. `classes`, `class_names` or `names` names the classes; without it they are
named by their labels. Without test arrays the validation arrays are the test split, and without either, about 20 % of
the images, chosen by content. Ambiguous interpretations are printed.
Axes: N images, C channels, H rows, W columns.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reslab.data.arrays import (
    Labels,
    Layout,
    PixelRange,
    describe_scale,
    find_layout,
    find_scale,
    find_white,
    is_deep,
    read_labels,
    read_names,
)
from reslab.data.names import nfc
from reslab.data.notes import say_once
from reslab.data.sources.array_files import ArrayFile, StoredArray, open_arrays
from reslab.data.sources.listing import keep_digests, keys_of
from reslab.data.sources.white import keep_white
from reslab.data.split import cut_by_key
from reslab.data.storage.blocks import Block, Source, in_order, stamp_files
from reslab.errors import UserError, did_you_mean
from reslab.records import SplitName
from reslab.words import named

_IMAGES, _LABELS = {"images", "image", "imgs", "x", "data"}, {"labels", "label", "y", "targets", "target"}
_NAMES = ("classes", "class_names", "names", "label_names", "target_names")
_SPLITS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
_GLUED = re.compile(r"(train|val|test)([xy])|([xy])(train|val|test)")  # trainX, Xtest


class _Pair(NamedTuple):
    images: str
    labels: str


class _Selected(NamedTuple):
    """The images of one split: an array, which of its images (M,) belong to the split, and all of its labels (N,)."""

    file: ArrayFile
    name: str
    layout: Layout
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    digests: NDArray[np.uint64]
    chosen: NDArray[np.int64]

    @property
    def array(self) -> StoredArray:
        return self.file.arrays[self.name]

    def blocks(self) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yield indices (m,) and images (m, …) as stored, in ascending order."""
        done = start = 0
        for rows in self.array.blocks():
            inside = self.chosen[done : np.searchsorted(self.chosen, start + len(rows))]
            if len(inside):
                yield inside, rows[inside - start]
                done += len(inside)
            start += len(rows)


def open_npz(path: Path, *, split: SplitName, white: int | None = None, choice: Sequence[str] = ()) -> Source:
    """Read the labels of one split; its blocks are (M, C, H, W).

    `choice` is the choice of classes as written after the path.
    Integers of more than 8 bits run from 0 to `white`; without it, and in all other arrays, the training images decide.
    Raises: UserError that names the invalid array and what it should be, in part only when the blocks are read.
    """
    some = _select(path, split, choice)
    keys = some.digests[some.chosen]
    stamp = stamp_files(some.file.files)
    return Source(len(some.chosen), some.classes, _stream(some, path, white, choice), stamp, keys=keys, digests=keys)


def white_of_npz(path: Path, *, choice: Sequence[str] = ()) -> int | None:
    """Find the white of the training images; None unless they are integers of more than 8 bits.

    Raises: UserError as `open_npz`.
    """
    trained = _select(path, "train", choice)
    if not is_deep(trained.array.dtype):
        return None
    return keep_white(
        lambda: find_white(trained.array.dtype, _find_scale(trained, path)),
        stamp=f"{trained.name} {trained.classes} {stamp_files(trained.file.files)}",
        origin=f"npz:{path}",
    )


def has_validation(path: Path) -> bool:
    """Return whether a file has validation arrays besides test arrays. Raises: UserError as `open_npz`."""
    return {"validation", "test"} <= _open(path)[1].keys()


def _select(path: Path, split: SplitName, choice: Sequence[str]) -> _Selected:
    file, pairs = _open(path)
    if split == "test" and "test" not in pairs and "validation" in pairs:
        say_once(f"npz:{path} has no test arrays: {' and '.join(pairs['validation'])} are the test split")
        pairs = {"train": pairs["train"], "test": pairs["validation"]}
    trained = _read_labels(file, pairs["train"].labels, path)
    values, classes = _read_classes(file, trained, path)
    pair = pairs.get(split, pairs["train"])
    own = trained if pair == pairs["train"] else _read_labels(file, pair.labels, path)
    labels = _number(own, values, pair.labels, path)
    images = file.arrays[pair.images]
    layout = _check_images(images, pair.images, len(labels), path, trained=file.arrays[pairs["train"].images])
    labels, classes = _choose_classes(labels, classes, choice, path)
    digests, chosen = _find_digests(file, pair.images, path), np.flatnonzero(labels >= 0)
    if len(pairs) == 1:
        chosen = chosen[cut_by_key(digests[chosen], labels[chosen], classes=classes, split=split, choice=choice)]
    return _Selected(file, pair.images, layout, labels, classes, digests, chosen)


def _open(path: Path) -> tuple[ArrayFile, dict[SplitName, _Pair]]:
    file = open_arrays(path)
    pairs, used = _find_pairs(file, path)
    if path.suffix == ".npy" and path.stem not in (*used, *_NAMES):
        _check_plain(file.arrays[path.stem], path.stem, path)
        raise UserError(f"the name of {path} says neither images nor labels: give npz: the file with the images")
    if unused := [name for name in file.arrays if name not in used and name not in _NAMES]:
        say_once(f"npz:{path}: {named(unused)} {'is' if len(unused) == 1 else 'are'} not used")
    return file, pairs


# ---- which array is what


def _find_pairs(file: ArrayFile, path: Path) -> tuple[dict[SplitName, _Pair], set[str]]:
    found: dict[tuple[str, SplitName], str] = {}
    for name in file.arrays:
        if role := _role_of(name, num_arrays=len(file.arrays)):
            if role in found:
                raise UserError(f"{path} holds {found[role]!r} and {name!r}, which could both be meant: leave one out")
            found[role] = name
    pairs: dict[SplitName, _Pair] = {}
    for split in ("train", "validation", "test"):
        images, labels = found.get(("images", split)), found.get(("labels", split))
        if images and labels:
            pairs[split] = _Pair(images, labels)
        elif images or labels:
            missing = "labels" if images else "images"
            raise UserError(f"{path} holds {images or labels!r} but no {missing} of the {split} split: it needs both")
    if "train" not in pairs:
        raise UserError(
            f"{path} holds {named(list(file.arrays)) or 'nothing'}: it needs 'images' and 'labels', or 'x_train' and "
            "'y_train'"
        )
    return pairs, {name for pair in pairs.values() for name in pair}


def _role_of(name: str, *, num_arrays: int) -> tuple[str, SplitName] | None:
    """Tell from an array's name whether it holds images or labels, and of which split."""
    if num_arrays == 2 and name in ("arr_0", "arr_1"):  # numpy.savez(FILE, images, labels)
        return ("images" if name == "arr_0" else "labels"), "train"
    lower = name.lower()
    words = [word for word in _GLUED.sub(r"\1\3 \2\4", lower).replace("_", " ").replace("-", " ").split() if word]
    kinds = [word for word in words if word in _IMAGES | _LABELS]
    splits = [_SPLITS[word] for word in words if word in _SPLITS]
    if len(kinds) != 1 or len(splits) > 1 or len(kinds) + len(splits) != len(words):
        return None
    return ("images" if kinds[0] in _IMAGES else "labels"), (splits[0] if splits else "train")


# ---- labels and classes


def _read_labels(file: ArrayFile, name: str, path: Path) -> Labels:
    try:
        labels = read_labels(_read(file.arrays[name], name, path))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path}: {name!r} {error}") from None
    if labels.values.dtype.kind != "U":
        return labels
    there, inverse = np.unique(labels.values, return_inverse=True)
    return Labels(np.array(_plain_names(there, name, path))[inverse])


def _plain_names(names: NDArray[Any], name: str, path: Path) -> list[str]:
    """Return the names of classes without spaces around them. Raises: UserError if one is empty."""
    plain = [nfc(str(each)).strip() for each in names.ravel()]
    if "" in plain:
        raise UserError(f"{path}: {name!r} has an empty name: each class needs a name, so leave out what has no label")
    return plain


def _read(array: StoredArray, name: str, path: Path) -> NDArray[Any]:
    _check_plain(array, name, path)
    return array.read()


def _check_plain(array: StoredArray, name: str, path: Path) -> None:
    if array.dtype.hasobject:
        raise UserError(
            f"{path}: {name!r} is an array of Python objects, a pickle, which can run any code when it is opened: save "
            "it as plain numbers or strings"
        )


def _read_classes(file: ArrayFile, labels: Labels, path: Path) -> tuple[list[Any], tuple[str, ...]]:
    """Return the labels that occur, and the name of each."""
    own = labels.own_classes()
    found = [name for name in _NAMES if name in file.arrays]
    if not found:
        return own, tuple(map(str, own))
    key = found[0]
    try:
        names = _plain_names(read_names(_read(file.arrays[key], key, path)), key, path)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path}: {key!r} {error}") from None
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{path}: {key!r} has {repeated[0]!r} twice, but each class needs a name of its own")
    if labels.values.dtype.kind == "U":
        return list(names), tuple(names)
    first = 1 if own[0] > 0 and own[-1] == len(names) else 0
    if first:
        say_once(f"npz:{path}: labels begin at 1, so {names[0]!r} is 1")
    return list(range(first, first + len(names))), tuple(names)


def _choose_classes(
    labels: NDArray[np.int64], classes: tuple[str, ...], choice: Sequence[str], path: Path
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Number the chosen classes in their order, and images of others -1. Raises: UserError if one does not exist."""
    without = [name.removeprefix("-") for name in choice if name.startswith("-")]
    taken = [name for name in choice if not name.startswith("-")] or [name for name in classes if name not in without]
    for name in (*taken, *without):
        if name not in classes:
            known = did_you_mean(name, classes, otherwise="it has " + named(classes))
            raise UserError(f"npz:{path} has no class {name!r}: {known}")
    if not taken:
        raise UserError(f"npz:{path}:{','.join(choice)} leaves out all classes: take at least two")
    numbers = np.array([taken.index(name) if name in taken else -1 for name in classes], dtype=np.int64)
    return numbers[labels], tuple(taken)


def _number(labels: Labels, values: list[Any], name: str, path: Path) -> NDArray[np.int64]:
    """Map labels to the indices of their values. Raises: UserError if one is not among `values`."""
    numbers = {value: number for number, value in enumerate(values)}
    there, inverse = np.unique(labels.values, return_inverse=True)
    for value in there.tolist():
        if value not in numbers:
            raise UserError(
                f"{path}: {name!r} has the label {value!r}, but the classes are {named(list(map(str, values)))}"
            )
    return np.array([numbers[value] for value in there.tolist()], dtype=np.int64)[inverse]


# ---- images


def _find_digests(file: ArrayFile, name: str, path: Path) -> NDArray[np.uint64]:
    """Hash each image as stored, (N,)."""
    array = file.arrays[name]

    def digest() -> Iterator[bytes]:
        return (hashlib.sha256(image.tobytes()).digest() for rows in array.blocks() for image in rows)

    stamp = f"{name} {stamp_files(file.files)}"
    return keys_of(keep_digests(digest, num=array.shape[0], stamp=stamp, origin=f"npz:{path}"))


def _stream(some: _Selected, path: Path, white: int | None, choice: Sequence[str]) -> Iterator[Block]:
    """Yield the images in ascending order."""
    trained = _select(path, "train", choice)
    scale = _find_scale(trained, path, white)
    if _kind_of(some.array.dtype) != _kind_of(trained.array.dtype):
        raise UserError(
            f"{path}: {some.name!r} is {some.array.dtype}, but {trained.name!r}, which decides on black and white, "
            f"is {trained.array.dtype}: save both alike"
        )
    if words := describe_scale(trained.array.dtype, scale):
        say_once(f"npz:{path}: {trained.name!r} is {words}")
    done = 0
    for places, rows in some.blocks():
        _check_finite(rows, some.name, path)
        images = np.ascontiguousarray(scale.apply(some.layout.arrange(rows)))
        yield in_order(images, some.labels[places], start=done)
        done += len(places)


def _find_scale(trained: _Selected, path: Path, white: int | None = None) -> PixelRange:
    """Choose black and white by the training images. Raises: UserError if some values are not finite."""
    dtype = trained.array.dtype
    if dtype.kind == "b" or dtype == np.uint8:
        return find_scale(dtype, 0.0, 255.0)
    ends = [(rows.min(), rows.max()) for _, rows in trained.blocks()]
    _check_finite(np.array(ends), trained.name, path)
    low, high = float(min(low for low, _ in ends)), float(max(high for _, high in ends))
    return find_scale(dtype, low, high, white=white)


def _check_finite(values: NDArray[Any], name: str, path: Path) -> None:
    if not np.isfinite(values).all():
        raise UserError(f"{path}: {name!r} has values that are not finite: replace them")


def _kind_of(dtype: np.dtype[Any]) -> str:
    """Tell truth values, fractions, and integers of 8 bits or more, which have other values for white, apart."""
    return f"{'i' if dtype.kind in 'iu' else dtype.kind}{' deep' if is_deep(dtype) else ''}"


def _check_images(images: StoredArray, name: str, num: int, path: Path, *, trained: StoredArray) -> Layout:
    _check_plain(images, name, path)
    if images.dtype.kind not in "biuf":
        raise UserError(f"{path}: {name!r} is {images.dtype}, it must be numbers")
    is_flat = len(images.shape) == 2 and trained.shape[1:] == images.shape[1:] and trained.dtype.kind in "biuf"
    rows = next(iter(trained.blocks()), None) if is_flat else None
    layout = find_layout(images.shape, rows=rows) if len(images.shape) > 1 and 0 not in images.shape else None
    if layout is None:
        raise UserError(
            f"{path}: {name!r} has shape {images.shape}, it must be (N, H, W), (N, H, W, C) or (N, C, H, W) with C up "
            "to 4, or rows of squares"
        )
    if images.shape[0] != num:
        raise UserError(
            f"{path}: {name!r} has {images.shape[0]} images but there are {num} labels: they must be as many"
        )
    if len(images.shape) == 2:
        order = ", one colour plane after another" if layout.channels_first else ""
        say_once(f"npz:{path}: the rows of {name!r} are images of {'x'.join(map(str, layout.shape))}{order}")
    return layout

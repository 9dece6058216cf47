"""Shards written by other programs: local tar archives in the WebDataset layout, without reslab's index.

Each image has two files of the same name: a picture (`jpg`, `jpeg`, `png`, `webp`) and its label, which is a number or
a name in `cls` or `txt`, or the field `label`, `cls` or `class` of an object in `json`. A tar belongs to the split that
a word of its name stands for; without test shards, about 20 % of the pictures become the test split, chosen by content.
Axes: N images, C channels, H rows, W columns.
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reslab.data.arrays import Labels, read_labels
from reslab.data.framing import Form
from reslab.data.notes import say_once
from reslab.data.pictures import describe_decoders, list_visible
from reslab.data.sources.decoded import BLOCK, decode_all
from reslab.data.sources.folder import split_in
from reslab.data.sources.listing import keep_digests, keys_of
from reslab.data.sources.shard_index import INDEX
from reslab.data.sources.shards import MAX_MEMBER, PICTURES
from reslab.data.sources.white import brightest, keep_white, white_of_pictures
from reslab.data.split import cut_by_key
from reslab.data.storage.blocks import Source, stamp_files
from reslab.errors import UserError, naming_problem
from reslab.records import SplitName
from reslab.words import named

_LABELS = ("cls", "txt", "json")
_FIELDS = ("label", "cls", "class")
_BEGINNING = re.compile("(train)|(val|dev)|(test)", re.IGNORECASE)
MAX_LABEL = 1 << 20  # bytes


class _Sample(NamedTuple):
    """A picture with its label, and where its bytes are in its tar."""

    file: Path
    picture: str
    label: str | int
    start: int
    num_bytes: int


class _ListedSplit(NamedTuple):
    """The pictures of one split, M samples with their labels (M,), of K classes."""

    samples: list[_Sample]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    digests: NDArray[np.uint64]


def find_foreign(url: str) -> tuple[Path, ...]:
    """List the tars of a local folder without reslab's index, or the named tar; empty if there are none."""
    if "://" in url:  # which may be longer than any path
        return ()
    path = Path(url)
    if path.is_file():
        return (path,)
    return tuple(list_visible(path, "*.tar")) if path.is_dir() and not (path / INDEX).exists() else ()


def open_foreign(files: Sequence[Path], *, split: SplitName, form: Form) -> Source:
    """Read the labels of one split; the blocks are (M, 3, H, W).

    Raises: UserError if an archive is invalid, or an image has no label.
    """
    some, labels, classes, digests = _list_split(files, split)
    pictures = ([(name, io.BytesIO(content)) for name, content in block] for block in _read_pictures(some))
    blocks = decode_all(pictures, labels, form)
    stamp = f"{stamp_files(files)} {describe_decoders()}"
    return Source(len(some), classes, blocks, stamp, keys=digests, digests=digests)


def sample_training(files: Sequence[Path], *, num: int) -> tuple[list[bytes], int]:
    """Read about `num` training pictures, undecoded, and count all. Raises: as `open_foreign`."""
    samples = _list_split(files, "train").samples
    some = samples[:: max(1, len(samples) // num)]
    return [content for block in _read_pictures(some) for _, content in block], len(samples)


def white_of_foreign(files: Sequence[Path]) -> int | None:
    """Find the white of the training pictures; None if none has more than 8 bits of grey.

    Raises: UserError as `open_foreign`.
    """
    origin = f"shards:{files[0].parent}"

    def find() -> int | None:
        read = _read_pictures(_list_split(files, "train").samples)
        blocks = ([(name, io.BytesIO(content)) for name, content in block] for block in read)
        whites = [white_of_pictures(each, origin=origin) for each in blocks]
        return brightest(whites)

    return keep_white(find, stamp=stamp_files(files), origin=origin)


def _list_split(files: Sequence[Path], split: SplitName) -> _ListedSplit:
    by_split: dict[SplitName, list[Path]] = {"train": [], "validation": [], "test": []}
    for file in files:
        by_split[_split_of(file)].append(file)
    if not by_split["train"]:
        raise UserError(f"{files[0].parent} holds no shards for training: their names need the word train")
    if not by_split["test"] and by_split["validation"]:
        say_once(f"shards:{files[0].parent} has no test shards: those for validation are the test split")
        by_split["test"], by_split["validation"] = by_split["validation"], []
    elif by_split["validation"]:
        say_once(f"shards:{files[0].parent}: {named([file.name for file in by_split['validation']])} are not used")
    train = _list_samples(by_split["train"])
    values = _read(train).own_classes()
    is_cut = not by_split["test"]
    samples = _list_samples(by_split["test"]) if split == "test" and not is_cut else train
    labels, classes = _number(samples, values), tuple(map(str, values))
    digests = _find_digests(samples)
    chosen = cut_by_key(digests, labels, classes=classes, split=split) if is_cut else np.arange(len(labels))
    return _ListedSplit([samples[place] for place in chosen], labels[chosen], classes, digests[chosen])


def _split_of(file: Path) -> SplitName:
    match _BEGINNING.match(file.name):
        case None:
            return split_in(file) or "train"
        case found:
            return "train" if found[1] else "validation" if found[2] else "test"


def _read(samples: Sequence[_Sample]) -> Labels:
    try:
        return read_labels(np.array([sample.label for sample in samples]))
    except ValueError as error:
        raise UserError(f"{samples[0].file.parent}: the label of the images {error}") from None


def _number(samples: Sequence[_Sample], values: Sequence[Any]) -> NDArray[np.int64]:
    numbers = {value: number for number, value in enumerate(values)}
    labels = _read(samples).values.tolist()
    for sample, label in zip(samples, labels, strict=True):
        if label not in numbers:
            raise UserError(f"{sample.file}: {sample.picture} has the label {label!r}, which no training image has")
    return np.array([numbers[label] for label in labels], dtype=np.int64)


def _find_digests(samples: Sequence[_Sample]) -> NDArray[np.uint64]:
    """Hash each picture's bytes, (N,)."""

    def digest() -> Iterator[bytes]:
        for block in _read_pictures(samples):
            yield from (hashlib.sha256(content).digest() for _, content in block)

    files = tuple(dict.fromkeys(sample.file for sample in samples))
    digests = keep_digests(digest, num=len(samples), stamp=stamp_files(files), origin=f"shards:{files[0].parent}")
    return keys_of(digests)


# ---- archives


def _list_samples(files: Sequence[Path]) -> list[_Sample]:
    """Read all labels but no pictures. Raises: UserError if a picture has no label."""
    samples = []
    for file in files:
        pictures: dict[str, tarfile.TarInfo] = {}
        labels: dict[str, str | int] = {}
        with naming_problem(f"{file} is not a valid tar archive"), tarfile.open(file, mode="r:") as tar:
            for member in tar:
                key, _, kind = member.name.rpartition(".")
                if not member.isreg() or member.issparse():
                    continue
                if kind.lower() in PICTURES:
                    _check_size(member, file, most=MAX_MEMBER)
                    pictures[key] = member
                elif kind.lower() in _LABELS and key not in labels:
                    labels[key] = _read_label(tar, member, file)
        if missing := next((each.name for key, each in pictures.items() if key not in labels), None):
            raise UserError(f"{file}: {missing} has no label: it needs a .cls, .txt or .json of the same name")
        samples += [
            _Sample(file, each.name, labels[key], each.offset_data, each.size) for key, each in pictures.items()
        ]
    if not samples:
        raise UserError(f"{files[0]} holds no pictures: shards:PATH needs {named(PICTURES)} files in it")
    if len({type(sample.label) for sample in samples}) > 1:  # a class called 7 among names
        return [sample._replace(label=str(sample.label)) for sample in samples]
    return samples


def _read_label(tar: tarfile.TarFile, member: tarfile.TarInfo, file: Path) -> str | int:
    _check_size(member, file, most=MAX_LABEL)
    stream = tar.extractfile(member)
    assert stream is not None
    text = stream.read().decode("utf-8").strip()
    if member.name.lower().endswith(".json"):
        fields = json.loads(text)
        found = [fields[name] for name in _FIELDS if name in fields] if isinstance(fields, dict) else [fields]
        if not found or isinstance(found[0], bool) or not isinstance(found[0], str | int):
            raise UserError(f"{file}: {member.name} has no label: it needs a number or a name in {named(_FIELDS)}")
        return found[0]
    return int(text) if re.fullmatch("-?[0-9]{1,15}", text) else text


def _check_size(member: tarfile.TarInfo, file: Path, *, most: int) -> None:
    if member.size > most:
        raise UserError(f"{file} holds {member.name} of {member.size:,} bytes: at most {most:,} are read")


def _read_pictures(samples: Sequence[_Sample]) -> Iterator[list[tuple[str, bytes]]]:
    """Yield blocks of pictures with their names, read from where they are: a tar has no table of its members."""
    for start in range(0, len(samples), BLOCK):
        block: list[tuple[str, bytes]] = []
        for file, some in groupby(samples[start : start + BLOCK], key=lambda sample: sample.file):
            with naming_problem(f"{file} cannot be read"), file.open("rb") as stream:
                for sample in some:
                    stream.seek(sample.start)
                    block.append((f"{file.name}/{sample.picture}", stream.read(sample.num_bytes)))
        yield block

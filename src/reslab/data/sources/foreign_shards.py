"""Shards written by other programs: local tar archives in the WebDataset layout, without reslab's index.

Each image has two files of the same name: a picture (`jpg`, `jpeg`, `png`, `webp`) and its label, which is a number or
a name in `cls`, in the field `label`, `cls` or `class` of an object in `json`, or in `txt`. A tar belongs to the split
that a word of its name stands for; without test shards, about 20 % of the pictures become the test split, by content.
Axes: N images, C channels, H rows, W columns.
"""

import hashlib
import io
import json
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reslab.data.framing import Form
from reslab.data.names import nfc
from reslab.data.notes import say_once
from reslab.data.pictures import describe_decoders, has_picture_ending, is_junk, list_visible
from reslab.data.sources.decoded import BLOCK, decode_all
from reslab.data.sources.folder import split_in
from reslab.data.sources.listing import Unused, describe_all_unused, keep_digests, keys_of
from reslab.data.sources.shard_index import INDEX
from reslab.data.sources.shards import MAX_MEMBER, PICTURES
from reslab.data.sources.white import brightest, keep_white, white_of_pictures
from reslab.data.split import cut_by_key
from reslab.data.storage.blocks import Source, stamp_files
from reslab.errors import UserError, naming_problem
from reslab.records import SplitName
from reslab.words import named

_LABELS = ("cls", "json", "txt")  # in order of preference: text beside another label is a caption
_FIELDS = ("label", "cls", "class")
_NUMBER = re.compile("0|-?[1-9][0-9]{0,14}")  # 01 is a name
MAX_LABEL = 1 << 20  # bytes


class _Sample(NamedTuple):
    """A picture with its label, and where its bytes are in its tar."""

    file: Path
    picture: str
    label: str
    start: int
    num_bytes: int


class _ListedSplit(NamedTuple):
    """The pictures of one split, M samples with their labels (M,), of K classes."""

    samples: list[_Sample]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    digests: NDArray[np.uint64]


def find_foreign(url: str) -> tuple[Path, ...]:
    """List the tars of a local folder without reslab's index, or the named tar; empty if there are none.

    Raises: UserError if the folder cannot be read.
    """
    if "://" in url:  # which may be longer than any path
        return ()
    path = Path(url)
    with naming_problem(f"{url} cannot be read"):
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
    stamp = f"{stamp_files(files)} {describe_decoders()} {hashlib.sha256(labels.tobytes()).hexdigest()}"
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
        by_split[split_in(file) or "train"].append(file)
    if not by_split["train"]:
        raise UserError(f"{files[0].parent} holds no shards for training: their names need the word train")
    if not by_split["test"] and by_split["validation"]:
        say_once(f"shards:{files[0].parent} has no test shards: those for validation are the test split")
        by_split["test"], by_split["validation"] = by_split["validation"], []
    elif by_split["validation"]:
        say_once(f"shards:{files[0].parent}: {named([file.name for file in by_split['validation']])} are not used")
    train = _list_samples(by_split["train"])
    classes = _find_classes(train)
    is_cut = not by_split["test"]
    samples = _list_samples(by_split["test"]) if split == "test" and not is_cut else train
    labels = _number(samples, classes)
    digests = _find_digests(samples)
    chosen = cut_by_key(digests, labels, classes=classes, split=split) if is_cut else np.arange(len(labels))
    return _ListedSplit([samples[place] for place in chosen], labels[chosen], classes, digests[chosen])


def _find_classes(samples: Sequence[_Sample]) -> tuple[str, ...]:
    """Return the labels that occur, in order of value if all are numbers, else of name."""
    there = {sample.label for sample in samples}
    if not all(map(_NUMBER.fullmatch, there)):
        return tuple(sorted(there))
    if (lowest := min(there, key=int)).startswith("-"):
        raise UserError(f"{samples[0].file.parent}: an image has the label {lowest}: labels are 0 or more, or names")
    return tuple(sorted(there, key=int))


def _number(samples: Sequence[_Sample], classes: Sequence[str]) -> NDArray[np.int64]:
    numbers = {name: number for number, name in enumerate(classes)}
    for sample in samples:
        if sample.label not in numbers:
            raise UserError(
                f"{sample.file}: {sample.picture} has the label {sample.label!r}, which no training image has"
            )
    return np.array([numbers[sample.label] for sample in samples], dtype=np.int64)


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
    samples: list[_Sample] = []
    unused: list[Unused] = []
    for file in files:
        with naming_problem(f"{file} is not a valid tar archive"), tarfile.open(file, mode="r:") as tar:
            images, others = _list_members(tar, file)
            unused += others
            for members in images.values():
                pictures = [members[kind] for kind in members if kind in PICTURES]
                if len(pictures) > 1:
                    raise UserError(
                        f"{file} holds {named([each.name for each in pictures])}, but an image has one picture: leave "
                        "the others out"
                    )
                if not pictures:
                    unused += [_unused(each, file, "labels without a picture") for each in members.values()]
                for each in pictures:
                    label, beside = _choose_label(tar, each, members, file)
                    unused += beside
                    samples.append(_Sample(file, each.name, label, each.offset_data, each.size))
    reasons = describe_all_unused(unused)
    if not samples:
        why = "; ".join(["", *reasons])
        raise UserError(f"{files[0]} holds no pictures: shards:PATH needs {named(PICTURES)} files in it{why}")
    for reason in reasons:
        say_once(f"shards:{files[0].parent}: {reason}")
    return samples


def _list_members(tar: tarfile.TarFile, file: Path) -> tuple[dict[str, dict[str, tarfile.TarInfo]], list[Unused]]:
    """List the pictures and labels of each image, by their endings, and the unused files.

    Raises: UserError if one is there twice, or is too large.
    """
    found: dict[str, dict[str, tarfile.TarInfo]] = defaultdict(dict)
    unused: list[Unused] = []
    for member in tar:
        key, _, kind = member.name.rpartition(".")
        kind = kind.lower()
        if member.isdir() or any(map(is_junk, PurePosixPath(member.name).parts)):
            continue
        if not member.isreg() or member.issparse():
            unused.append(_unused(member, file, "links and special files", "pack the files themselves"))
        elif kind not in (*PICTURES, *_LABELS):
            ending = PurePosixPath(member.name).suffix.lower()
            advice = "save them as JPEG or PNG" if has_picture_ending(Path(member.name)) else ""
            unused.append(_unused(member, file, f"{ending} files" if ending else "files without an ending", advice))
        elif kind in found[key]:
            raise UserError(f"{file} holds {member.name} twice: pack it again")
        else:
            _check_size(member, file, most=MAX_MEMBER if kind in PICTURES else MAX_LABEL)
            found[key][kind] = member
    return found, unused


def _unused(member: tarfile.TarInfo, file: Path, reason: str, advice: str = "") -> Unused:
    return Unused(f"{file.name}/{member.name}", reason, advice)


def _choose_label(
    tar: tarfile.TarFile, picture: tarfile.TarInfo, members: Mapping[str, tarfile.TarInfo], file: Path
) -> tuple[str, list[Unused]]:
    """Read the label beside a picture, and list the other files that could hold it.

    Raises: UserError if there is none.
    """
    for kind in _LABELS:
        if kind in members and (label := _read_label(tar, members[kind], file)):
            others = [each for each in members.values() if each not in (picture, members[kind])]
            return label, [_unused(each, file, "files beside another label") for each in others]
    raise UserError(
        f"{file}: {picture.name} has no label: it needs a .cls or .txt of the same name, or a .json with a number or a "
        f"name in {named(_FIELDS)}"
    )


def _read_label(tar: tarfile.TarFile, member: tarfile.TarInfo, file: Path) -> str:
    """Read a label; empty if there is none."""
    stream = tar.extractfile(member)
    assert stream is not None
    with naming_problem(f"{file}: {member.name} cannot be read as a label"):
        text = stream.read().decode("utf-8")
        if member.name.lower().endswith(".json"):
            fields = json.loads(text)
            found = [fields[name] for name in _FIELDS if name in fields] if isinstance(fields, dict) else [fields]
            is_label = bool(found) and isinstance(found[0], str | int) and not isinstance(found[0], bool)
            text = str(found[0]) if is_label else ""
    return nfc(text).strip()


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

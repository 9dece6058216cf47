"""A listing of picture files as a value: files, labels, splits, groups, and what is not used.

Folders and tables produce one (`folder.py`, `table.py`). Cutting a test split, decoding, the cache and the data check
need nothing else. Axes: N files, K classes.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from reslab.data.progress import READERS, counting
from reslab.data.split import cut_by_key
from reslab.data.storage.blocks import stamp_files
from reslab.data.storage.cache import name_of, opening
from reslab.errors import UserError
from reslab.records import SplitName
from reslab.runs.files import writing
from reslab.words import some

T = TypeVar("T")

_SHOWN = 3  # names in a sentence


class Unused(NamedTuple):
    """An unused file or folder: its path in the source, why it is unused, and what would make it usable.

    It is `expected` if nothing is wrong with it, such as what the user has not chosen, or a README.
    """

    path: str
    reason: str
    advice: str
    expected: bool = False


class UnusedKind(NamedTuple):
    """What unused files have in common; as in `Unused`."""

    reason: str
    advice: str
    expected: bool


@dataclass(frozen=True, eq=False)
class Listing:
    """The picture files of a source.

    `names` (N,) are the files' paths inside the source, with "/", never absolute; `labels` (N,) are int64 in [0, K).
    `choice` is the choice of classes as written after a path. Without `splits` the test split is cut by content. Files
    of one group stay in one split. `notes` are sentences on how the source was interpreted.
    """

    root: Path
    files: tuple[Path, ...]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    choice: tuple[str, ...] = ()
    splits: tuple[SplitName, ...] | None = None
    groups: tuple[str, ...] | None = None
    unused: tuple[Unused, ...] = ()
    notes: tuple[str, ...] = ()

    def digests(self) -> NDArray[np.uint8]:
        """Return the SHA-256 of each file's bytes, (N, 32), computed once and kept in the cache.

        Raises: UserError if a file cannot be read.
        """
        return digest_files(self.files, origin=str(self.root))

    def keys(self) -> NDArray[np.uint64]:
        """Return the keys (N,) that decide each file's split: hashes of group names, or of contents without groups."""
        if self.groups is None:
            return keys_of(self.digests())
        hashes = [hashlib.sha256(group.encode(errors="surrogatepass")).digest() for group in self.groups]
        return keys_of(np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, 32))

    def subset(self, places: Sequence[int] | NDArray[np.int64]) -> "Listing":
        """Select files, in the order given, with the same classes."""
        return replace(
            self,
            files=_pick(self.files, places),
            names=_pick(self.names, places),
            labels=self.labels[np.asarray(places, dtype=np.int64)],
            splits=None if self.splits is None else _pick(self.splits, places),
            groups=None if self.groups is None else _pick(self.groups, places),
        )

    def of_split(self, split: SplitName) -> "Listing":
        """Select the files of a split; a source without splits of its own has no validation files.

        Raises: UserError if a class is too small to be cut.
        """
        if self.splits is not None:
            return self.subset([place for place, own in enumerate(self.splits) if own == split])
        if split == "validation":
            return self.subset([])
        chosen = cut_by_key(
            self.keys(),
            self.labels,
            classes=self.classes,
            split=split,
            choice=self.choice,
            is_grouped=self.groups is not None,
        )
        return self.subset(chosen)

    def uncut(self) -> "Listing":
        """Take all files as the training split, so that no test split is cut."""
        split: SplitName = "train"
        return replace(self, splits=(split,) * len(self.files))

    def summary(self) -> list[str]:
        """Describe how the source was interpreted and what is not used, a sentence each."""
        return [*self.notes, *describe_all_unused(self.unused)]


def _pick(values: tuple[T, ...], places: Sequence[int] | NDArray[np.int64]) -> tuple[T, ...]:
    return tuple(values[place] for place in places)


def group_unused(unused: Sequence[Unused]) -> dict[UnusedKind, list[str]]:
    """Group the paths of unused files by kind, the most frequent first."""
    groups: dict[UnusedKind, list[str]] = defaultdict(list)
    for each in unused:
        groups[UnusedKind(each.reason, each.advice, each.expected)].append(each.path)
    return dict(sorted(groups.items(), key=lambda group: -len(group[1])))


def describe_all_unused(unused: Sequence[Unused]) -> list[str]:
    """Count the unused files by reason, a sentence each."""
    return [
        describe_unused(kind.reason, kind.advice, paths, count=len(paths), most=_SHOWN)
        for kind, paths in group_unused(unused).items()
    ]


def describe_unused(reason: str, advice: str, paths: Sequence[str], *, count: int, most: int | None) -> str:
    """Say that `count` files are not used for one reason, showing at most `most` paths."""
    return f"{count:,} not used, {reason}: {some(paths, count, most)}{f' ({advice})' if advice else ''}"


def keys_of(digests: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Turn the first eight bytes of digests (N, 32) into numbers (N,); 0 is reserved for images without a key."""
    return np.maximum(np.ascontiguousarray(digests[:, :8]).view(">u8")[:, 0].astype(np.uint64), 1)


def digest_files(files: Sequence[Path], *, origin: str) -> NDArray[np.uint8]:
    """Return the SHA-256 of each file's bytes, (N, 32), from the cache if no file has changed."""

    def digest() -> Iterator[bytes]:
        with ThreadPoolExecutor(READERS) as pool:
            yield from pool.map(_digest, files)

    return keep_digests(digest, num=len(files), stamp=stamp_files(files), origin=origin)


def keep_digests(digest: Callable[[], Iterable[bytes]], *, num: int, stamp: str, origin: str) -> NDArray[np.uint8]:
    """Return `num` digests, (N, 32), from the cache if the stamp is the same."""
    if not num:
        return np.empty((0, 32), dtype=np.uint8)

    def make(part: Path) -> dict[str, object]:
        found = np.empty((num, 32), dtype=np.uint8)
        with counting(f"{origin}: hashes", total=num) as show:
            for number, each in enumerate(digest()):
                found[number] = np.frombuffer(each, dtype=np.uint8)
                show(number + 1)
        writing(part, lambda: np.save(part / "digests.npy", found))
        return {"origin": origin, "split": "digests", "shape": list(found.shape)}

    with opening(name_of("digests", stamp), make) as path:
        digests: NDArray[np.uint8] = np.load(path / "digests.npy", allow_pickle=False)
    return digests


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None

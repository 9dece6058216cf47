"""The index of a folder or address of shards: `reslab.json`, and the labels of each split as an array.

It lists the name, size and SHA-256 of every shard, so that missing, truncated or changed shards are detected.
Axes: N images, C channels, H rows, W columns.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt, StringConstraints, ValidationError

from reslab.data.addresses import open_address
from reslab.errors import Failure, UserError, extra, first_complaint, naming_problem
from reslab.recipe.value import Part
from reslab.records import SplitName

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

INDEX = "reslab.json"
MAX_INDEX = 1 << 30  # bytes; a hundred thousand shards take 20 MB

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", max_length=200)]  # never a path
Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class File(Part):
    """A file beside the index."""

    name: Name
    num_bytes: NonNegativeInt
    sha256: Digest


class Shard(File):
    """A tar archive of images."""

    num_images: PositiveInt


class ShardedSplit(Part):
    """The shards of a split, and its labels in the same order.

    `hashes` are those of each image in its source, which decide what is held out: see `Hashes`.
    """

    labels: File
    hashes: File | None = None
    shards: Annotated[tuple[Shard, ...], Field(min_length=1)]

    @property
    def num_images(self) -> int:
        return sum(shard.num_images for shard in self.shards)


class Hashes(NamedTuple):
    """For each image in the order of shards, uint64 (N,): its index in the packed set, its key and its digest.

    Keys and digests are those of an `ImageSet`, 0 if there is none.
    """

    places: NDArray[np.uint64]
    keys: NDArray[np.uint64]
    digests: NDArray[np.uint64]


class ShardIndex(Part):
    """The packed data: images of shape (C, H, W), the expression that they came from, and the white of its pictures."""

    schema_version: Literal[1] = 1
    expression: str
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    image_shape: tuple[Literal[1, 3], PositiveInt, PositiveInt]
    white: PositiveInt | None = None
    splits: dict[Literal["train", "test"], ShardedSplit]


@dataclass(frozen=True)
class Store:
    """A local or remote folder, whose files are accessed by name."""

    url: str
    system: "AbstractFileSystem"
    root: str

    @classmethod
    def at(cls, url: str) -> "Store":
        """Open a path or an address. Raises: UserError if its protocol is not available."""
        with extra("shards"):
            system, root = open_address(url)
        return cls(url, system, root.rstrip("/"))

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def read(self, name: str) -> bytes:
        """Read a whole file. Raises: FileNotFoundError; Failure if it cannot be read for another reason."""
        try:
            content: bytes = self.system.cat_file(self.path(name))
        except FileNotFoundError:
            raise
        except Exception as error:
            raise Failure(f"{self.url}/{name} cannot be read: {error}") from None
        return content

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes; None if it does not exist."""
        try:
            return int(self.system.size(self.path(name)))
        except FileNotFoundError:
            return None
        except Exception as error:
            raise Failure(f"{self.url}/{name} cannot be accessed: {error}") from None

    def write(self, name: str, content: bytes) -> None:
        """Write a file. Raises: Failure if it cannot be written."""
        try:
            self.system.makedirs(self.root, exist_ok=True)
            self.system.pipe_file(self.path(name), content)
        except Exception as error:
            raise Failure(f"{self.url}/{name} cannot be written: {error}") from None


def read_index(store: Store) -> tuple[ShardIndex, str]:
    """Read the index and its SHA-256. Raises: UserError if it is missing or invalid."""
    try:
        if (store.size(INDEX) or 0) > MAX_INDEX:
            raise UserError(f"{store.url}/{INDEX} is too large to be an index")
        content = store.read(INDEX)
    except FileNotFoundError:
        raise UserError(
            f"{store.url} holds no {INDEX}: shards:URL reads what reslab data pack EXPR --to URL wrote; is the address "
            "right?"
        ) from None
    try:
        parsed = json.loads(content)
        index = ShardIndex.model_validate(parsed)
    except (ValueError, RecursionError) as error:
        why = first_complaint(error, parsed) if isinstance(error, ValidationError) else str(error)
        raise UserError(f"{store.url}/{INDEX} is not an index of shards ({why}): pack them again") from None
    if len(set(index.classes)) < len(index.classes):
        raise UserError(f"{store.url}/{INDEX} names a class twice: pack the shards again")
    return index, hashlib.sha256(content).hexdigest()


def read_labels(store: Store, index: ShardIndex, split: SplitName) -> NDArray[np.int64]:
    """Read the labels (N,) of a split in the order of its shards. Raises: UserError if they are damaged."""
    file, num = index.splits[split].labels, index.splits[split].num_images  # type: ignore[index]
    labels = _read_array(store, file, what=f"the labels of the {split} split")
    right = isinstance(labels, np.ndarray) and labels.dtype.kind in "iu" and labels.shape == (num,)
    if not right or labels.min() < 0 or labels.max() >= len(index.classes):
        raise UserError(f"{store.url}/{file.name} should hold {num} labels from 0 to {len(index.classes) - 1}")
    return labels.astype(np.int64)


def read_hashes(store: Store, index: ShardIndex, split: SplitName) -> Hashes | None:
    """Read the hashes of the images in their source; None if there are none. Raises: UserError if damaged."""
    packed = index.splits[split]  # type: ignore[index]
    if packed.hashes is None:
        return None
    found = _read_array(store, packed.hashes, what=f"the hashes of the {split} split")
    if found.dtype != np.uint64 or found.shape != (len(Hashes._fields), packed.num_images):
        raise UserError(f"{store.url}/{packed.hashes.name} should hold places, keys and digests: pack it again")
    return Hashes(*found)


def _read_array(store: Store, file: File, *, what: str) -> NDArray[Any]:
    try:
        content = store.read(file.name)
    except FileNotFoundError:
        raise UserError(f"{store.url}/{file.name}, {what}, is missing: pack it again") from None
    if problem := compare(content, file):
        raise UserError(f"{store.url}/{file.name}, {what}, is damaged ({problem})")
    with naming_problem(f"{store.url}/{file.name}, {what}, is not an array"):
        found: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return found


def compare(content: bytes, file: File) -> str | None:
    """Describe how content differs from what the index lists; None if it does not."""
    if len(content) != file.num_bytes:
        return f"{len(content):,} bytes instead of {file.num_bytes:,}"
    digest = hashlib.sha256(content).hexdigest()
    return None if digest == file.sha256 else f"SHA-256 {digest[:12]}… instead of {file.sha256[:12]}…"


def find_damaged(store: Store, shards: Sequence[Shard]) -> dict[int, str]:
    """Check every shard's size, not its content; return the problems by shard number."""
    found = {}
    for number, shard in enumerate(shards):
        size = store.size(shard.name)
        if size is None:
            found[number] = "is missing"
        elif size != shard.num_bytes:
            found[number] = f"has {size:,} bytes instead of {shard.num_bytes:,}"
    return found

"""Write the images of a data expression as shards in the WebDataset layout; `shards.py` reads them.

Pictures are PNG and thus lossless. Their order is shuffled, so that each shard holds images of all classes; each
picture's number is its original index.
"""

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reslab.data.addresses import SCHEME
from reslab.data.framing import Form
from reslab.data.images import ImageSet
from reslab.data.load import check_outside, load, load_validation
from reslab.data.notes import say_once
from reslab.data.sources.shard_index import INDEX, File, Hashes, Shard, ShardedSplit, ShardIndex, Store
from reslab.errors import UserError
from reslab.records import SplitName
from reslab.words import counted

PACKED_SPLITS: tuple[SplitName, ...] = ("train", "test")
IMAGES_PER_SHARD = 5000


def pack(
    expression: str,
    url: str,
    *,
    data_dir: Path | None = None,
    image_size: int = 32,
    images_per_shard: int = IMAGES_PER_SHARD,
) -> ShardIndex:
    """Write both splits of `expression`, squares of `image_size` pixels, to shards in the folder or address `url`.

    The index is written last, so that an interrupted pack is not taken for a complete one. Raises: UserError if shards
    already exist, or the images are neither grey nor RGB; Failure if they cannot be written; and as `load`.
    """
    if not SCHEME.match(url):
        check_outside(url, expression, data_dir=data_dir, option="--to")
    store = Store.at(url)
    if store.size(INDEX) is not None:
        raise UserError(f"{url} holds shards already: choose another folder, or remove them first")
    sets = [load(expression, split, data_dir=data_dir, image_size=image_size) for split in PACKED_SPLITS]
    channels = sets[0].images.shape[1]
    if channels not in (1, 3):
        raise UserError(f"{expression!r} has images of {channels} channels: shards hold grey or RGB pictures")
    own = load_validation(
        expression, classes=sets[0].classes, data_dir=data_dir, form=Form(image_size, white=sets[0].white)
    )
    if own is not None:
        say_once(
            f"{expression}: {counted(len(own.labels), 'validation picture')} not packed, since shards hold training "
            "and test pictures: move them to the training pictures to pack them"
        )
    splits = {each.split: _pack_split(store, each, images_per_shard) for each in sets}
    index = ShardIndex(
        expression=expression,
        classes=sets[0].classes,
        image_shape=(1 if channels == 1 else 3, image_size, image_size),
        white=sets[0].white,
        splits=splits,  # type: ignore[arg-type]
    )
    store.write(INDEX, (index.model_dump_json(indent=1) + "\n").encode())
    return index


def _pack_split(store: Store, images: ImageSet, images_per_shard: int) -> ShardedSplit:
    order = np.random.default_rng(0).permutation(len(images.labels))
    ends = range(images_per_shard, len(order), images_per_shard)
    shards = []
    for number, places in enumerate(np.split(order, ends)):
        content = _write_shard(images, places)
        file = _write(store, f"{images.split}-{number:06}.tar", content)
        shards.append(Shard(**file.model_dump(), num_images=len(places)))
    labels = images.labels.numpy()[order].astype(np.uint32)
    return ShardedSplit(
        labels=_write_array(store, f"{images.split}-labels.npy", labels),
        hashes=_write_hashes(store, images, order),
        shards=tuple(shards),
    )


def _write_hashes(store: Store, images: ImageSet, order: NDArray[np.int64]) -> File | None:
    """Store the hashes that decide an image's split, so that shards are split as their source; None without hashes."""
    if images.keys is None and images.digests is None:
        return None
    none = np.zeros(len(order), dtype=np.uint64)
    keys, digests = (none if each is None else each[order] for each in (images.keys, images.digests))
    return _write_array(store, f"{images.split}-hashes.npy", np.stack(Hashes(order.astype(np.uint64), keys, digests)))


def _write_array(store: Store, name: str, values: NDArray[Any]) -> File:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return _write(store, name, buffer.getvalue())


def _write_shard(images: ImageSet, places: NDArray[np.int64]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        pixels, labels = images.images[places].numpy(), images.labels[places].tolist()
        for place, image, label in zip(places.tolist(), pixels, labels, strict=True):
            _add(tar, f"{place:09}.cls", str(label).encode())
            _add(tar, f"{place:09}.png", _to_png(image))
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _to_png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def _write(store: Store, name: str, content: bytes) -> File:
    store.write(name, content)
    return File(name=name, num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())

"""Features of pictures in the cache on disk, found by the content of the pictures.

An entry holds the pictures that were computed together: `features.npy`, (N, D) float32, and `pictures.npy`, (N, 16)
uint8, a digest of each. Entries of the same network, size, view and route share the first half of their names.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reslab.data.storage.cache import find_cache, is_sound, make_room, name_of, opening
from reslab.runs.files import writing

DIGEST = 16  # bytes
HALF = 16  # letters of a name
ENTRY = 2048  # pictures per entry, the most that an interruption can lose

Digest = bytes
Computed = Callable[[list[int]], NDArray[np.float32]]  # places of pictures to features (M, D)


def digest_of(picture: NDArray[np.uint8]) -> Digest:
    """Return a digest that identifies a picture (C, H, W)."""
    return hashlib.blake2b(
        np.ascontiguousarray(picture).tobytes(), digest_size=DIGEST, person=repr(picture.shape).encode()[:16]
    ).digest()


def find_or_compute(
    digests: list[Digest], compute: Computed, *, identity: tuple[Any, ...], origin: str, num_features: int
) -> NDArray[np.float32]:
    """Return the features (N, D) of pictures, computing each distinct picture once for an `identity`."""
    group = name_of(*identity)[:HALF]
    features = np.empty((len(digests), num_features), dtype=np.float32)
    places: dict[Digest, list[int]] = {}
    for place, digest in enumerate(digests):
        places.setdefault(digest, []).append(place)
    missing = dict(places)
    for path in find_cache().glob(f"{group}-*"):
        with suppress(OSError, ValueError):  # it was removed in the meantime
            if is_sound(path):
                _take(path, features, missing)
    wanted = list(missing.items())
    for start in range(0, len(wanted), ENTRY):
        some = dict(wanted[start : start + ENTRY])

        def make(part: Path, some: dict[Digest, list[int]] = some) -> dict[str, Any]:
            make_room(len(some) * (4 * num_features + DIGEST), what="the features")
            computed = compute([first for first, *_ in some.values()])
            names = np.frombuffer(b"".join(some), dtype=np.uint8).reshape(-1, DIGEST)
            writing(part, lambda: np.save(part / "features.npy", computed))
            writing(part, lambda: np.save(part / "pictures.npy", names))
            return {"origin": origin, "split": "features", "shape": computed.shape}

        content = hashlib.sha256(b"".join(some)).hexdigest()
        with opening(f"{group}-{content[:HALF]}", make) as path:
            _take(path, features, some)
    return features


def _take(path: Path, features: NDArray[np.float32], missing: dict[Digest, list[int]]) -> None:
    """Copy an entry's features of `missing` pictures to their places, and remove these from `missing`."""
    known = np.load(path / "pictures.npy", allow_pickle=False)
    rows = [(row, digest) for row, digest in enumerate(map(bytes, known)) if digest in missing]
    if not rows:
        return
    values = np.load(path / "features.npy", mmap_mode="r", allow_pickle=False)
    for row, digest in rows:
        features[missing.pop(digest)] = values[row]
    with suppress(OSError):
        (path / "entry.json").touch()

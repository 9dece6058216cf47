import errno
import hashlib
import io
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image

from reslab.data import pictures, pixels
from reslab.data.batches import Batches
from reslab.data.check.duplicates import find_overlap
from reslab.data.images import ImageSet
from reslab.data.load import load
from reslab.data.pixels import Joined, Pixels, Selected, StoredPixels
from reslab.data.sources.groups import read_times
from reslab.data.split import hold_out
from reslab.data.storage import cache as disk
from reslab.data.storage import locks, stored
from reslab.data.storage.locks import locked
from reslab.errors import Failure, UserError
from reslab.recipe.recipe import Recipe
from reslab.records import SplitName
from reslab.runs.files import name_place

LOAD = (
    "import sys; from reslab.data.load import load; "
    "print(load('npz:' + sys.argv[1], 'train', image_size=8).fingerprint)"
)

KEEP = """
from reslab.data.storage.cache import keeping, name_of

def make(part):
    (part / "file").write_text("it")
    return {"origin": "it", "split": "it", "shape": []}

print(keeping(name_of("it"), make), flush=True)
input()
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def noise(tmp_path: Path) -> str:
    return write(tmp_path / "noise.npz", seed=0)


def write(path: Path, *, seed: int, num: int = 60) -> str:
    images = np.random.default_rng(seed).integers(0, 256, (num, 8, 8, 3), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(num) % 3, classes=np.array([f"{path.stem} {n}" for n in range(3)]))
    return f"npz:{path}"


def entry_of(cache: Path) -> Path:
    """Find the entry of the images, beside that of their hashes."""
    (file,) = cache.glob("*/images.bin")
    return file.parent


def in_memory(images: ImageSet) -> ImageSet:
    return replace(images, images=images.images[:])


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every set for one that is too large for memory, and go through it in small steps."""
    monkeypatch.setattr(pixels, "SMALL", 0)
    monkeypatch.setattr(stored, "SMALL", 0)
    monkeypatch.setattr(pixels, "BLOCK", 1000)


@pytest.mark.usefixtures("large")
def test_a_stored_set_is_what_it_would_be_in_memory(noise: str, tmp_path: Path) -> None:
    other = write(tmp_path / "other.npz", seed=1)
    for expression in (noise, f"{noise}@7", f"{noise}+{other}", f"{noise}@3+{other}"):
        images = load(expression, "train", image_size=8)
        assert isinstance(images.images, Pixels)
        same = in_memory(images)
        assert isinstance(same.images, torch.Tensor)
        assert images.fingerprint == same.fingerprint
        assert images.statistics() == same.statistics()
        held, held_same = hold_out(images, 6, seed=0), hold_out(same, 6, seed=0)
        assert isinstance(held[0].images, Pixels)
        assert [part.fingerprint for part in held] == [part.fingerprint for part in held_same]
        assert torch.equal(held[0].subset([4, 2]).images[:], held_same[0].images[[4, 2]])
        assert find_overlap(images, held[0]) == find_overlap(same, held_same[0])


@pytest.mark.usefixtures("large")
def test_no_kind_of_set_that_is_not_in_memory_is_forgotten(noise: str, tmp_path: Path) -> None:
    images = load(f"{noise}@3+{write(tmp_path / 'other.npz', seed=1)}", "train", image_size=8).images
    assert isinstance(images, Joined)
    assert [type(part) for part in images.parts] == [Selected, StoredPixels]


@pytest.mark.usefixtures("large")
def test_batches_of_a_file_are_those_of_memory(noise: str, small_recipe: Recipe) -> None:
    images = load(noise, "train", image_size=8)
    both = [
        list(Batches(each, recipe=small_recipe, by=each.statistics(), seed=0, device=torch.device("cpu")).epoch(1))
        for each in (images, in_memory(images))
    ]
    assert len(both[0]) > 1
    for (ours, our_labels), (theirs, their_labels) in zip(*both, strict=True):
        assert torch.equal(ours, theirs)
        assert torch.equal(our_labels, their_labels)


@pytest.mark.parametrize("positioned", [True, False])
def test_a_file_is_read_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, positioned: bool) -> None:
    if not positioned:
        monkeypatch.delattr(os, "preadv")
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 4, 4), dtype=np.uint8)
    (tmp_path / "images.bin").write_bytes(images.tobytes())
    file = StoredPixels(tmp_path / "images.bin", images.shape)
    every_third = Selected(file, np.arange(0, 40, 3))
    for places in ([], [39], [3, 3, 4, 5, 0], [7, 6, 5], list(range(40))):
        np.testing.assert_array_equal(file[places], images[places])
    np.testing.assert_array_equal(every_third[::-1], images[np.arange(0, 40, 3)[::-1]])


def test_a_file_is_indexed_as_a_tensor_is(tmp_path: Path) -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (9, 3, 4, 4), dtype=np.uint8))
    (tmp_path / "images.bin").write_bytes(images.numpy().tobytes())
    file = StoredPixels(tmp_path / "images.bin", tuple(images.shape))
    mask = torch.arange(9) % 2 == 1
    for chosen in (mask, mask.numpy(), mask.tolist(), [-1, 0], torch.tensor([-9]), 3, -2, slice(-2, None)):
        assert torch.equal(file[chosen], images[chosen])  # type: ignore[index]
        assert torch.equal(Selected(file, np.arange(9))[chosen], images[chosen])  # type: ignore[index]
    for wrong in ([9], [-10], 9, [0.5], mask[:8]):
        with pytest.raises(IndexError, match="from -9 to 8, or by a mask of 9"):
            file[wrong]  # type: ignore[index]


def test_neighbours_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that who goes through all images but a few, held out for validation, asks the system seldom."""
    (tmp_path / "images.bin").write_bytes(bytes(1000 * 48))
    kept = Selected(StoredPixels(tmp_path / "images.bin", (1000, 3, 4, 4)), np.delete(np.arange(1000), [17, 500]))
    calls: list[int] = []
    read = pixels._read_some
    monkeypatch.setattr(pixels, "_read_some", lambda *file, at: (calls.append(at), read(*file, at=at))[1])
    assert kept[:].shape == (998, 3, 4, 4)
    assert calls == [0, 18 * 48, 501 * 48]


def test_threads_read_one_file(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (200, 3, 4, 4), dtype=np.uint8)
    (tmp_path / "images.bin").write_bytes(images.tobytes())
    file = StoredPixels(tmp_path / "images.bin", images.shape)
    orders = [np.random.default_rng(seed).permutation(200) for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for order, found in zip(orders, pool.map(file.read, orders), strict=True):
            np.testing.assert_array_equal(found, images[order])


@pytest.mark.usefixtures("large")
def test_a_file_that_is_cut_short_while_it_is_read_is_named(noise: str, cache: Path) -> None:
    images = load(noise, "train", image_size=8)
    before = images.fingerprint
    (file,) = cache.glob("*/images.bin")
    os.truncate(file, file.stat().st_size - 100)
    assert images.images[:47].shape == (47, 3, 8, 8)  # all but the last
    with pytest.raises(Failure, match=r"images\.bin was truncated while in use: start again"):
        images.images[:]
    assert load(noise, "train", image_size=8).fingerprint == before


def test_a_source_is_read_once_until_it_changes(noise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(disk, "_make", lambda path, make, keep=disk._make: (made.append(path), keep(path, make)))
    first = load(noise, "train", image_size=8)
    assert load(noise, "train", image_size=8).fingerprint == first.fingerprint
    assert len(made) == 2  # the images and their hashes
    load(noise, "test", image_size=8)
    load(noise, "train", image_size=4)
    assert len(made) == 4
    write(Path(noise.removeprefix("npz:")), seed=2)
    assert load(noise, "train", image_size=8).fingerprint != first.fingerprint
    assert len(made) == 6


def replace_unseen(path: Path, content: bytes) -> None:
    """Put other content of the same length in a file's place, and set its time back."""
    before = path.stat()
    assert len(content) == before.st_size
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_a_file_replaced_with_size_and_time_kept_is_read_anew(noise: str, tmp_path: Path) -> None:
    before = load(noise, "train", image_size=8).fingerprint
    (tmp_path / "other").mkdir()
    other = write(tmp_path / "other" / "noise.npz", seed=2)
    replace_unseen(Path(noise.removeprefix("npz:")), Path(other.removeprefix("npz:")).read_bytes())
    assert load(noise, "train", image_size=8).fingerprint != before


def test_pictures_replaced_with_size_and_time_kept_are_read_anew(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "pets" / name / f"{number}.bmp")
    before = load(f"folder:{tmp_path / 'pets'}", "test", image_size=8).fingerprint
    for number in range(5):
        file = tmp_path / "pets" / "dog" / f"{number}.bmp"
        replace_unseen(file, file.read_bytes()[:54] + bytes([200 + number]) * 192)
    assert load(f"folder:{tmp_path / 'pets'}", "test", image_size=8).fingerprint != before


def test_an_entry_changed_with_size_and_time_kept_is_made_anew(noise: str, cache: Path) -> None:
    before = load(noise, "train", image_size=8).fingerprint
    (file,) = cache.glob("*/images.bin")
    replace_unseen(file, bytes(file.stat().st_size))
    assert load(noise, "train", image_size=8).fingerprint == before


@pytest.mark.parametrize("name", ["images.bin", "labels.npy", "entry.json"])
def test_a_damaged_entry_is_made_anew(noise: str, cache: Path, name: str) -> None:
    first = load(noise, "train", image_size=8)
    file = entry_of(cache) / name
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    disk._digest.cache_clear()  # as another process would
    assert load(noise, "train", image_size=8).fingerprint == first.fingerprint
    assert file.read_bytes() != content


def test_an_entry_is_hashed_once_whatever_is_made_beside_it(
    noise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load(noise, "train", image_size=8).fingerprint
    assert load(noise, "train", image_size=8).fingerprint == before  # checked
    first = [entry.path for entry in disk.list_cache()]
    other = write(tmp_path / "other.npz", seed=1, num=20)
    hashed: list[Path] = []
    digest = hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, how: (hashed.append(Path(file.name)), digest(file, how))[1]
    )
    load(other, "train", image_size=8)
    assert load(noise, "train", image_size=8).fingerprint == before
    assert hashed
    assert not [path for path in hashed if path.parent in first]


def test_processes_that_race_make_one_entry(noise: str, cache: Path) -> None:
    command = [sys.executable, "-c", LOAD, noise.removeprefix("npz:")]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [racer.communicate()[0].strip() for racer in racers]
    assert outputs == [load(noise, "train", image_size=8).fingerprint] * 2
    assert len(list(cache.glob("*/images.bin"))) == 1
    assert not list(cache.glob(".*.part"))


def test_what_a_killed_process_has_left_is_taken_away(noise: str, cache: Path) -> None:
    load(noise, "train", image_size=8)
    entry = entry_of(cache)
    entry.rename(part := cache / f".{entry.name}.{name_place()}.4194305.0.part")
    assert part not in [each.path for each in disk.list_cache()]
    other = cache / f".{disk.name_of('another')}.{name_place()}.4194305.0.part"
    other.mkdir()
    (other / "images.bin").write_bytes(bytes(1000))
    load(noise, "train", image_size=8)
    assert not part.exists()
    assert not other.exists()
    assert entry.exists()
    entry.rename(part)
    size = disk._size(cache)
    assert disk.clear_cache() == size
    assert list(cache.iterdir()) == []


def test_without_locks_nobody_removes_what_another_makes_or_has_made(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    name = disk.name_of("it")

    def write(part: Path, content: str) -> dict[str, Any]:
        (part / "file").write_text(content)
        return {"origin": "it", "split": "it", "shape": []}

    def make(part: Path) -> dict[str, Any]:
        write(part, "slow")
        with disk.opening(name, lambda part: write(part, "fast")) as path:
            versions.append((path / "file").stat().st_ino)
        return write(part, "slow")

    versions: list[int] = []
    with disk.opening(name, make) as path:
        assert (path / "file").read_text() == "fast"
        assert (path / "file").stat().st_ino == versions[0]
    assert not list(cache.glob(".*.part"))


def test_the_one_used_longest_ago_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expressions = [write(tmp_path / f"{name}.npz", seed=0, num=300) for name in "abc"]
    for age, expression in ((20, expressions[0]), (10, expressions[1])):
        load(expression, "train", image_size=8)
        for entry in disk.list_cache():
            if entry.origin == expression:
                os.utime(entry.path / "entry.json", (entry.used - age, entry.used - age))
    size = max(entry.num_bytes for entry in disk.list_cache())
    monkeypatch.setenv("RESLAB_CACHE_GB", str(3 * size / 1e9))
    load(expressions[2], "train", image_size=8)
    kept = [entry.origin for entry in disk.list_cache() if entry.split == "train"]
    assert kept == [expressions[2], expressions[1]]
    monkeypatch.setenv("RESLAB_CACHE_GB", str(0.5 * size / 1e9))
    with pytest.raises(UserError, match=r"the images need 0\.0 GB of the cache in .*RESLAB_CACHE_GB higher, or stream"):
        load(expressions[0], "train", image_size=8)
    monkeypatch.setenv("RESLAB_CACHE_GB", "much")
    with pytest.raises(UserError, match="RESLAB_CACHE_GB=much: set it to the gigabytes"):
        load(expressions[0], "train", image_size=8)


def test_the_cache_can_be_cleared_under_who_uses_it(noise: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "SMALL", 0)
    images = load(noise, "train", image_size=8)
    before = images.images[:]
    assert disk.clear_cache() >= before.numel()
    assert list(cache.iterdir()) == []
    assert torch.equal(images.images[:], before)


def test_what_another_has_locked_is_neither_cleared_nor_waited_for(noise: str, cache: Path) -> None:
    load(noise, "train", image_size=8)
    entry = entry_of(cache)
    others = sum(each.num_bytes for each in disk.list_cache() if each.path != entry)
    with ThreadPoolExecutor(1) as pool, locked(entry):
        assert pool.submit(disk.clear_cache).result(timeout=10) == others
    assert [each.path for each in disk.list_cache()] == [entry]


def test_what_a_process_keeps_stays_until_it_ends(noise: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = subprocess.Popen([sys.executable, "-c", KEEP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert keeper.stdout is not None
    kept = Path(keeper.stdout.readline().strip())
    os.utime(kept / "entry.json", (0, 0))
    load(noise, "train", image_size=8)
    monkeypatch.setenv("RESLAB_CACHE_GB", "2e-5")
    load(noise, "test", image_size=8)
    assert kept in [each.path for each in disk.list_cache()]
    disk.clear_cache()
    assert [each.path for each in disk.list_cache()] == [kept]
    keeper.communicate("\n")
    disk.clear_cache()
    assert list(cache.iterdir()) == []


def test_an_archive_makes_no_room_for_its_own_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ZipFile(tmp_path / "pets.zip", "w") as archive:
        for number in range(40):
            buffer = io.BytesIO()
            Image.new("RGB", (8, 8), (number, number, 0)).save(buffer, "BMP")
            archive.writestr(f"{'cat' if number % 2 else 'dog'}/{number}.bmp", buffer.getvalue())
    monkeypatch.setenv("RESLAB_CACHE_GB", str(1.5 * 40 * 246 / 1e9))
    for _ in range(2):
        with pytest.raises(UserError, match="the images need"):
            load(f"folder:{tmp_path / 'pets.zip'}", "train", image_size=8)
    monkeypatch.setenv("RESLAB_CACHE_GB", str(3 * 40 * 246 / 1e9))
    assert len(load(f"folder:{tmp_path / 'pets.zip'}", "train", image_size=8).labels) > 20
    assert "unpacked" in [each.split for each in disk.list_cache()]


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Draw grey pictures of 16 bits, of which pets/cat/3.png is cut short."""
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(10):
            values = np.full((8, 8), 100 * number, dtype=np.uint16)
            Image.fromarray(values).save(tmp_path / "pets" / name / f"{number}.png")
    damaged = tmp_path / "pets" / "cat" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:45])
    return tmp_path / "pets"


def load_all(pets: Path) -> int:
    splits: tuple[SplitName, ...] = ("train", "test")
    return sum(len(load(f"folder:{pets}", split, image_size=8, skip_damaged=True).labels) for split in splits)


@pytest.mark.parametrize("what", ["white", "pixels"])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.EIO, "Input/output error"), r"\d\.png cannot be read \(Input/output error\): check its disk"),
        (MemoryError(), r"\d\.png needs more memory to decode than is available: shrink it"),
    ],
)
def test_only_what_a_decoder_refuses_is_stored_as_damaged(
    pets: Path, error: Exception, message: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_picture = Image.open

    def fail(file: Any, formats: Any) -> Image.Image:
        if (formats == pictures._DEEP_FORMATS) == (what == "white"):
            raise error
        return open_picture(file, formats=formats)

    with monkeypatch.context() as broken:
        broken.setattr(Image, "open", fail)
        with pytest.raises(UserError, match=message):
            load_all(pets)
    assert load_all(pets) == 19


def test_a_time_that_cannot_be_read_now_is_read_later(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = list(pets.glob("*/*.png"))
    with monkeypatch.context() as broken:
        broken.setattr(Image, "open", raise_memory_error)
        with pytest.raises(UserError, match="more memory"):
            read_times(files, origin="pets")
    assert read_times(files, origin="pets") == [None] * 20


def raise_memory_error(*_: object, **__: object) -> None:
    raise MemoryError


def test_another_decoder_reads_damaged_pictures_again(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (8, 8)).save(pets / "cat" / "3.png", "BMP")
    with monkeypatch.context() as older:
        older.setattr(pictures, "_formats", lambda: ("PNG",))
        assert load_all(pets) == 19
    assert load_all(pets) == 20


def test_an_entry_says_what_it_is(noise: str, cache: Path) -> None:
    load(noise, "train", image_size=8)
    file = entry_of(cache) / "entry.json"
    assert json.loads(file.read_text()).keys() == {"origin", "split", "shape", "damaged", "whites", "sha256"}
    entry, *_ = (entry for entry in disk.list_cache() if entry.split == "train")
    assert (entry.origin, entry.split, entry.shape) == (noise, "train", (52, 3, 8, 8))

import os
import pickle
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from reslab.data.sources import cifar
from reslab.data.sources.archive import Archive
from reslab.data.sources.catalog import OFFICIAL, Cifar
from reslab.data.sources.cifar import find_data_dir, read_cifar, unpickle, verify
from reslab.errors import Failure, UserError

MakeCifar = Callable[[bytes], Cifar]


def read_single(content: bytes, folder: Path, make: MakeCifar) -> Any:
    """Read `content` as if it were the one official training batch."""
    (folder / "tiny").mkdir()
    (folder / "tiny" / "batch").write_bytes(content)
    return read_cifar(make(content), split="train", data_dir=folder)


def test_a_batch_of_python_2_is_read_into_planes(tmp_path: Path, as_cifar10: MakeCifar, build: SimpleNamespace) -> None:
    images = np.arange(2 * 3072, dtype=np.int64).astype(np.uint8).reshape(2, 3072)
    read = read_single(build.pickle({b"labels": [9, 0], b"data": images}), tmp_path, as_cifar10)
    assert read.images.shape == (2, 3, 32, 32)
    assert read.images.dtype == np.uint8
    # Planes R, G, B of 1,024 values, row by row.
    assert read.images[1, 2, 5, 7] == images[1, 2 * 1024 + 5 * 32 + 7]
    assert read.labels.tolist() == [9, 0]
    assert read.labels.dtype == np.int64


def test_the_five_training_batches_are_joined_in_their_order(official: Path) -> None:
    read = read_cifar(OFFICIAL["cifar10"], split="train", data_dir=official)
    assert read.labels.tolist() == list(range(10)) * 10
    expected = np.random.default_rng(5).integers(0, 256, (20, 3072), dtype=np.uint8)
    np.testing.assert_array_equal(read.images[80:].reshape(20, 3072), expected)


@pytest.mark.parametrize(("name", "top"), [("cifar100", 99), ("cifar100-coarse", 19)])
def test_cifar100_has_fine_and_coarse_labels(official: Path, name: str, top: int) -> None:
    read = read_cifar(OFFICIAL[name], split="test", data_dir=official)
    assert read.labels.max() == top
    assert len(read.classes) == top + 1


@pytest.mark.parametrize(
    ("split", "expected"),
    [("train", {f"data_batch_{number}" for number in range(1, 6)}), ("test", {"test_batch"})],
)
def test_a_split_opens_its_own_batches_only(official: Path, opened: list[str], split: Any, expected: set[str]) -> None:
    read_cifar(OFFICIAL["cifar10"], split=split, data_dir=official)
    assert {Path(path).name for path in opened if str(official) in path} == expected


def test_the_archive_is_unpacked_where_the_batches_are_missing(official: Path, build: SimpleNamespace) -> None:
    archive = OFFICIAL["cifar100"].archive
    folder = official / archive.folder
    before = read_cifar(OFFICIAL["cifar100"], split="test", data_dir=official)
    contents = {f"{archive.folder}/{name}": data for name, data in build.contents()["cifar100"].items()}
    (official / archive.name).write_bytes(build.pack(contents))
    for path in folder.iterdir():
        path.unlink()
    after = read_cifar(OFFICIAL["cifar100"], split="test", data_dir=official)
    np.testing.assert_array_equal(after.images, before.images)
    assert sorted(path.name for path in folder.iterdir()) == ["test", "train"]


def test_two_that_miss_an_archive_download_it_once(
    official: Path, build: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, folder = OFFICIAL["cifar100"].archive, official / "elsewhere"
    contents = {f"{archive.folder}/{name}": data for name, data in build.contents()["cifar100"].items()}
    fetched: list[Path] = []

    def fetch(archive: Archive, data_dir: Path) -> None:
        fetched.append(data_dir)
        time.sleep(0.2)
        (data_dir / archive.name).write_bytes(build.pack(contents))

    monkeypatch.setattr(cifar, "fetch", fetch)
    with ThreadPoolExecutor(2) as pool:
        read = [pool.submit(read_cifar, OFFICIAL["cifar100"], split="test", data_dir=folder) for _ in range(2)]
    np.testing.assert_array_equal(read[0].result().images, read[1].result().images)
    assert fetched == [folder]
    assert sorted(path.name for path in folder.iterdir()) == sorted([archive.folder, archive.name])


def test_without_files_or_mirrors_the_sentence_says_what_to_put_where(official: Path) -> None:
    empty = official / "elsewhere"
    archive = OFFICIAL["cifar10"].archive
    with pytest.raises(Failure) as caught:
        read_cifar(OFFICIAL["cifar10"], split="train", data_dir=empty)
    assert str(caught.value) == (
        f"{archive.name} (0.3 MB) is not in {empty} and could not be downloaded (127.0.0.1:9: no connection): "
        f"try again later, or get it from http://127.0.0.1:9/{archive.name} by other means and put it there"
    )


def test_a_truncated_batch_is_named_with_its_size(official: Path) -> None:
    path = official / "cifar-10-batches-py" / "data_batch_3"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(
        UserError, match=rf"data_batch_3 is damaged \({size - 10:,} bytes instead of {size:,}\): delete it"
    ):
        read_cifar(OFFICIAL["cifar10"], split="train", data_dir=official)


def test_an_altered_batch_is_named(official: Path) -> None:
    path = official / "cifar-10-batches-py" / "data_batch_3"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"data_batch_3 is damaged \(SHA-256 "):
        read_cifar(OFFICIAL["cifar10"], split="train", data_dir=official)


class Malicious:
    """Runs a command when a plain unpickler reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path: Path, as_cifar10: MakeCifar) -> None:
    trace = tmp_path / "trace"
    content = pickle.dumps({"labels": [0], "data": Malicious(trace)}, protocol=2)
    pickle.loads(content)  # the attack works on the plain one
    assert trace.exists()
    trace.unlink()
    with pytest.raises(UserError, match=r"batch is not an official batch: it asks for \w+\.system"):
        read_single(content, tmp_path, as_cifar10)
    assert not trace.exists()


@pytest.mark.parametrize(
    "name", ["builtins\neval", "numpy\nload", "numpy.core.multiarray\nfromstring", "numpy\nndarray.tofile"]
)
def test_nothing_but_the_making_of_arrays_is_allowed(name: str) -> None:
    with pytest.raises(UserError, match="it asks for " + re.escape(name.replace("\n", "."))):
        unpickle(f"c{name}\n.".encode(), where=Path("batch"))


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x02", b"not a pickle", b"\x80\x02}(T\xff\xff\xff\x7fabc", b"cnumpy\ndtype\n)R."]
)
def test_a_broken_pickle_is_one_sentence(content: bytes) -> None:
    with pytest.raises(UserError, match=r"^batch is not an official batch: "):
        unpickle(content, where=Path("batch"))


IMAGES = np.zeros((2, 3072), dtype=np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "no uint8 array"),
        ({b"labels": [0, 1]}, "no uint8 array"),
        ({b"labels": [0, 1], b"data": IMAGES.astype(np.float32)}, "no uint8 array"),
        ({b"labels": [0, 1], b"data": IMAGES.reshape(-1)}, "no uint8 array"),
        ({b"labels": [0, 1], b"data": IMAGES[:, :784]}, "784 values, not 3072"),
        ({b"fine_labels": [0, 1], b"data": IMAGES}, "b'labels' is not a list of 2 labels"),
        ({b"labels": [0, 1, 2], b"data": IMAGES}, "not a list of 2 labels"),
        ({b"labels": [0, 10], b"data": IMAGES}, "labels outside 0 to 9"),
        ({b"labels": [0, -1], b"data": IMAGES}, "labels outside 0 to 9"),
        ({b"labels": [0, b"1"], b"data": IMAGES}, "labels outside 0 to 9"),
    ],
)
def test_a_batch_of_another_layout_is_refused(
    content: Any, message: str, tmp_path: Path, as_cifar10: MakeCifar, build: SimpleNamespace
) -> None:
    with pytest.raises(UserError, match=f"batch is not an official batch: .*{message}"):
        read_single(build.pickle(content), tmp_path, as_cifar10)


def test_verify_tells_ok_damaged_and_absent_apart(official: Path, build: SimpleNamespace) -> None:
    (official / "cifar-10-batches-py" / "data_batch_2").write_bytes(build.batch({b"labels": [1]}, seed=0))
    (official / "cifar-10-batches-py" / "test_batch").unlink()
    (official / "cifar-100-python.tar.gz").write_bytes(b"wrong")
    found = {check.file: (check.status, check.detail) for check in verify(official)}
    assert len(found) == 2 + 6 + 2
    assert found["cifar-10-batches-py/data_batch_1"][0] == "ok"
    assert found["cifar-10-batches-py/data_batch_2"][0] == "damaged"
    assert found["cifar-10-batches-py/test_batch"][0] == "absent"
    assert found["cifar-10-python.tar.gz"][0] == "absent"
    size = OFFICIAL["cifar100"].archive.num_bytes
    assert found["cifar-100-python.tar.gz"] == ("damaged", f"5 bytes instead of {size:,}")


def test_verify_of_a_missing_folder_finds_everything_absent(tmp_path: Path) -> None:
    assert {check.status for check in verify(tmp_path / "nothing")} == {"absent"}
    assert not (tmp_path / "nothing").exists()


def test_data_lies_in_the_argument_else_the_variable_else_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESLAB_DATA", str(tmp_path / "variable"))
    assert find_data_dir(tmp_path / "argument") == tmp_path / "argument"
    assert find_data_dir() == tmp_path / "variable"
    monkeypatch.setenv("RESLAB_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert find_data_dir().name == "reslab"

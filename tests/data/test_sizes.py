"""Nothing is chosen by the pictures of the test split."""

import io
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from reslab.data.framing import Form
from reslab.data.packing import pack
from reslab.data.sizes import are_squares, find_image_size, measure_all, measure_reading
from reslab.data.sources.decoded import WORKERS
from reslab.data.sources.shard_index import INDEX


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    """Squares of 24 pixels to train on, and three times as many wide pictures to test with."""
    for split, num, size in (("train", 4, (24, 24)), ("test", 12, (200, 100))):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(num):
                Image.new("RGB", size, (number, 0, 0)).save(tmp_path / split / name / f"{number}.png")
    return f"folder:{tmp_path}"


def test_only_training_pictures_decide(pictures: str, opened: list[str]) -> None:
    assert find_image_size(pictures, largest=192) == 24
    assert are_squares(pictures)
    measure_reading(pictures, Form(image_size=24))
    read = {Path(path).parts[-3] for path in opened if path.endswith(".png")}
    assert read == {"train"}


def test_all_training_pictures_count_for_the_time(pictures: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 8.0])
    monkeypatch.setattr("reslab.data.sizes.time.perf_counter", lambda: next(seconds))
    assert measure_reading(pictures, Form(image_size=24)) == 8.0 / WORKERS


def test_the_smallest_and_the_largest_picture_are_found_by_several_threads(
    pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (10, 40)).save(tmp_path / "test" / "cat" / "small.png")
    (tmp_path / "train" / "dog" / "broken.png").write_bytes(b"broken")
    Image.new("RGB", (250, 250)).save(tmp_path / "train" / "dog" / "icon.png", "ICO")  # which is not read either
    threads = set()
    both = threading.Barrier(2, timeout=10)

    def open_image(*args: Any, **options: Any) -> Any:
        if threading.get_ident() not in threads and len(threads) < 2:
            threads.add(threading.get_ident())
            both.wait()  # for another thread
        return real(*args, **options)

    real = Image.open
    monkeypatch.setattr(Image, "open", open_image)
    assert measure_all(pictures) == ((10, 40), (200, 100))


def test_packed_shards_say_their_size(tmp_path: Path, opened: list[str]) -> None:
    pack("digits:1,4@20", str(tmp_path / "packed"), image_size=16)
    opened.clear()
    assert find_image_size(f"shards:{tmp_path}/packed", largest=192) == 16
    assert are_squares(f"shards:{tmp_path}/packed")
    assert {Path(path).name for path in opened if str(tmp_path) in path} == {INDEX}


def test_training_pictures_of_other_shards_decide(tmp_path: Path, opened: list[str]) -> None:
    for split, num, size in (("train", 4, (24, 20)), ("test", 12, (200, 100))):
        with tarfile.open(tmp_path / f"{split}-0.tar", "w") as tar:
            for number in range(num):
                picture = io.BytesIO()
                Image.new("RGB", size, (number, 0, 0)).save(picture, "PNG")
                for ending, content in (("png", picture.getvalue()), ("cls", str(number % 2).encode())):
                    member = tarfile.TarInfo(f"{number}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    opened.clear()
    assert find_image_size(f"shards:{tmp_path}", largest=192) == 20
    assert not are_squares(f"shards:{tmp_path}")
    assert measure_reading(f"shards:{tmp_path}", Form(image_size=20)) > 0
    assert {Path(path).name for path in opened if path.endswith(".tar")} == {"train-0.tar"}

import io
import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reslab.data.framing import Form
from reslab.data.images import Labelled
from reslab.data.load import load
from reslab.data.sources.decoded import open_listing
from reslab.data.sources.folder import list_folder
from reslab.data.storage.blocks import Block
from reslab.errors import UserError
from reslab.records import SplitName

RED, BLUE = (200, 30, 20), (10, 40, 220)


def save(path: Path, image: Image.Image, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def fill(root: Path, counts: dict[str, int], *, start: int = 0) -> None:
    """Write `counts[class]` pictures of one colour each, which tells them apart."""
    for name, count in counts.items():
        for number in range(start, start + count):
            save(root / name / f"{number:03}.png", Image.new("RGB", (4, 4), (number, 0, 0)))


def read_folder(path: Path, *, split: SplitName, image_size: int) -> Labelled:
    source = open_listing(list_folder(path), split=split, form=Form(image_size))
    blocks = [block for block in source.blocks if isinstance(block, Block)]
    images, labels = (
        np.concatenate(parts) for parts in zip(*((block.images, block.labels) for block in blocks), strict=True)
    )
    return Labelled(images, labels, source.classes)


def read_one(path: Path, image: Image.Image, *, size: int = 8, **options: Any) -> Any:
    """Save one picture where a folder of two classes is, and read it: (3, size, size) as int."""
    for place in ("train/a", "train/b", "test/a", "test/b"):
        save(path / place / "plain.png", Image.new("RGB", (4, 4)))
    save(path / "train" / "a" / "a-first.png", image, **options)
    return read_folder(path, split="train", image_size=size).images[0].astype(int)


def test_train_and_test_folders_are_the_splits(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"dog": 3, "cat": 2})
    fill(tmp_path / "test", {"dog": 1, "cat": 1}, start=100)
    train, test = (load(f"folder:{tmp_path}", split, image_size=4) for split in ("train", "test"))  # type: ignore[arg-type]
    assert train.classes == test.classes == ("cat", "dog")
    assert train.images.shape == (5, 3, 4, 4)
    assert train.labels.tolist() == [0, 0, 1, 1, 1]
    assert train.images[:, 0, 0, 0].tolist() == [0, 1, 0, 1, 2]
    assert test.images[:, 0, 0, 0].tolist() == [100, 100]


@pytest.mark.parametrize("root", ["", "train"])
def test_without_a_test_folder_a_fifth_of_the_pictures_is_the_test_split(tmp_path: Path, root: str) -> None:
    fill(tmp_path / root, {"a": 100, "b": 2})
    train, test = (read_folder(tmp_path, split=split, image_size=4) for split in ("train", "test"))  # type: ignore[arg-type]
    assert 10 <= np.count_nonzero(test.labels == 0) <= 30
    assert np.bincount(train.labels)[1] == np.bincount(test.labels)[1] == 1
    numbers = np.concatenate([read.images[read.labels == 0, 0, 0, 0] for read in (train, test)])
    assert sorted(numbers) == list(range(100))


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_opens_its_own_pictures_only(tmp_path: Path, opened: list[str], split: Any) -> None:
    fill(tmp_path / "train", {"a": 2, "b": 2})
    fill(tmp_path / "test", {"a": 2, "b": 2})
    opened.clear()
    read_folder(tmp_path, split=split, image_size=4)
    pictures = [Path(path).relative_to(tmp_path) for path in opened if path.startswith(str(tmp_path))]
    assert len(set(pictures)) == 4
    assert {path.parts[0] for path in pictures} == {split}


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "tiff", "webp", "jpg", "ppm", "PNG", "tga"])
def test_common_formats_are_read(tmp_path: Path, ending: str) -> None:
    for name, colour in (("a", RED), ("b", BLUE)):
        for split in ("train", "test"):
            save(tmp_path / split / name / f"1.{ending}", Image.new("RGB", (16, 12), colour))
    read = read_folder(tmp_path, split="train", image_size=8)
    for image, label in zip(read.images, read.labels, strict=True):
        assert np.abs(image.astype(int) - np.array((RED, BLUE)[label])[:, None, None]).max() <= 3


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    np.testing.assert_array_equal(read_one(tmp_path, Image.fromarray(grey)), np.stack([grey] * 3))


def test_sixteen_bits_of_grey_are_scaled_not_clipped(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    np.testing.assert_array_equal(read_one(tmp_path, Image.fromarray(deep))[0], np.rint(deep / 257))


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    assert set(np.unique(read_one(tmp_path, Image.fromarray(np.eye(8) > 0)))) == {0, 255}


def test_a_palette_is_looked_up_before_it_is_resized(tmp_path: Path) -> None:
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, *RED, *BLUE])
    image.paste(2, (0, 0, 16, 8))
    read = read_one(tmp_path, image)
    np.testing.assert_array_equal(read[:, 0, 0], BLUE)
    np.testing.assert_array_equal(read[:, -1, -1], RED)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((*RED, 255), (0, 0, 8, 4))
    image.putpixel((7, 7), (100, 0, 0, 51))  # a fifth of it
    read = read_one(tmp_path, image)
    np.testing.assert_array_equal(read[:, 0, 0], RED)
    np.testing.assert_array_equal(read[:, 5, 5], (255, 255, 255))
    np.testing.assert_allclose(read[:, 7, 7], (0.2 * 100 + 0.8 * 255, 204, 204), atol=1)


def test_a_transparent_colour_of_a_palette_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([*BLUE, *RED])
    image.paste(1, (0, 0, 8, 4))
    read = read_one(tmp_path, image, transparency=0)
    np.testing.assert_array_equal(read[:, 0, 0], RED)
    np.testing.assert_array_equal(read[:, 7, 7], (255, 255, 255))


def test_exif_turns_the_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter clockwise
    image = Image.new("RGB", (8, 8), BLUE)
    image.paste(RED, (0, 0, 4, 8))  # the left half, which then is the upper one
    read = read_one(tmp_path, image, exif=exif)
    np.testing.assert_array_equal(read[:, 0, 7], RED)
    np.testing.assert_array_equal(read[:, 7, 0], BLUE)


def test_an_oblong_is_resized_straight_to_the_square_without_aliasing(tmp_path: Path) -> None:
    stripes = np.zeros((32, 64), dtype=np.uint8)
    stripes[:, ::2] = 255
    read = read_one(tmp_path, Image.fromarray(stripes), size=8)
    assert np.abs(read - 127.5).max() < 6  # every eighth column would be all white


def test_files_that_are_no_pictures_are_left_out(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 2, "b": 2, ".cache": 1})
    for name in (".DS_Store", "Thumbs.db", "notes.txt", ".hidden.png", "README"):
        (tmp_path / "a" / name).write_bytes(b"no picture")
    (tmp_path / "labels.csv").write_text("x")
    (tmp_path / "a" / "nested.png").mkdir()
    read = read_folder(tmp_path, split="train", image_size=4)
    assert read.classes == ("a", "b")
    assert len(read.labels) == 2


def broken(kind: str) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format="PNG")
    whole = buffer.getvalue()
    altered = bytearray(whole)
    altered[len(whole) // 2] ^= 255
    return {
        "empty": b"",
        "text": b"hello",
        "truncated": whole[:2000],
        "header only": whole[:20],
        "altered": bytes(altered),
    }[kind]


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "header only", "altered"])
def test_a_broken_picture_is_named(tmp_path: Path, kind: str) -> None:
    for split in ("train", "test"):
        fill(tmp_path / split, {"a": 2, "b": 2})
    (tmp_path / "train" / "b" / "001.png").write_bytes(broken(kind))
    with pytest.raises(UserError, match=r"train/b/001\.png cannot be read as a picture .*replace it or remove it"):
        load(f"folder:{tmp_path}", "train", image_size=4)


def test_a_picture_beyond_the_limit_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: Any) -> None:
    fill(tmp_path, {"a": 2, "b": 2})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)  # refuses from twice that on; the pictures have 16
    with pytest.raises(UserError, match=r"\.png is too large .*: replace or remove them"):
        load(f"folder:{tmp_path}", "train", image_size=4)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9)  # Pillow warns, which would be an error in these tests
    assert len(read_folder(tmp_path, split="train", image_size=4).labels) == 2


def test_pictures_are_decoded_in_several_threads(tmp_path: Path, monkeypatch: Any) -> None:
    fill(tmp_path, {"a": 10, "b": 10})
    monkeypatch.setattr("reslab.data.sources.decoded.WORKERS", 2)
    both = threading.Barrier(2, timeout=10)
    original, calls = Image.open, itertools.count()

    def open_together(path: Path, **options: Any) -> Image.Image:
        if next(calls) < 2:
            both.wait()  # passes only if two are at it at the same time
        return original(path, **options)

    monkeypatch.setattr(Image, "open", open_together)
    assert read_folder(tmp_path, split="train", image_size=4).images[:, 0, 0, 0].max() < 10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "is not a folder"),
        (lambda root: root.write_bytes(b""), "is not a folder"),
        (lambda root: root.mkdir(), "holds no pictures in class folders: reslab reads PATH/CLASS"),
        (lambda root: save(root / "1.png", Image.new("L", (1, 1))), r"\?label=\^\(\[a-z\]\+\)"),
        (lambda root: (fill(root, {"a": 2}), (root / "b").mkdir()), "holds no picture of b: .*:-b"),
        (lambda root: fill(root, {"a": 2, "b": 1}), "class 'b' has 1 image: .*:-b"),
        (lambda root: fill(root / "test", {"a": 2, "b": 2}), "holds test/ but no train/"),
        (
            lambda root: (fill(root / "train", {"a": 1, "b": 1}), fill(root / "test", {"a": 1, "c": 1})),
            r"only one has 'b' \(not in test/\) and 'c' \(not in train/\): .*:-b,-c",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path / "pictures")
    with pytest.raises(UserError, match=message):
        load(f"folder:{tmp_path / 'pictures'}", "test")

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reslab.data.images import Labelled, Split
from reslab.data.load import load
from reslab.data.sources.npz import open_npz
from reslab.errors import UserError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 6, 5), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(20) % 2


def write(path: Path, **arrays: Any) -> Path:
    np.savez(path / "set.npz", **arrays)
    return path / "set.npz"


def read_npz(path: Path, *, split: Split) -> Labelled:
    source = open_npz(path, split=split)
    images, labels, _ = map(np.concatenate, zip(*source.blocks, strict=True))
    return Labelled(images, labels, source.classes)


def test_colour_images_are_turned_to_channels_first(tmp_path: Path) -> None:
    read = read_npz(
        write(tmp_path, images=COLOUR, labels=LABELS, test_images=COLOUR[:4], test_labels=LABELS[:4]), split="train"
    )
    assert read.images.shape == (20, 3, 6, 5)
    assert read.images[7, 2, 4, 1] == COLOUR[7, 4, 1, 2]
    assert read.classes == ("0", "1")
    assert read.labels.dtype == np.int64


def test_grey_images_get_one_channel_and_the_recipes_size(tmp_path: Path) -> None:
    images = load(f"npz:{write(tmp_path, images=GREY, labels=LABELS)}", "train", image_size=9)
    assert images.images.shape == (16, 1, 9, 9)


def test_keras_names_and_columns_of_labels_are_taken(tmp_path: Path) -> None:
    path = write(
        tmp_path, x_train=GREY, y_train=LABELS[:, None], x_test=GREY[:6], y_test=LABELS[:6, None].astype(np.uint8)
    )
    train, test = (read_npz(path, split=split) for split in ("train", "test"))  # type: ignore[arg-type]
    assert train.labels.tolist() == LABELS.tolist()
    np.testing.assert_array_equal(test.images[:, 0], GREY[:6])


def test_classes_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, images=GREY, labels=LABELS, classes=np.array(["no", "yes"]))
    assert load(f"npz:{path}", "test").classes == ("no", "yes")


def test_without_test_arrays_a_fifth_of_each_class_is_the_test_split(tmp_path: Path) -> None:
    path = write(tmp_path, images=GREY, labels=LABELS)
    train, test = (read_npz(path, split=split) for split in ("train", "test"))  # type: ignore[arg-type]
    assert np.bincount(test.labels).tolist() == [2, 2]
    both = np.concatenate([train.images, test.images])[:, 0]
    assert {image.tobytes() for image in both} == {image.tobytes() for image in GREY}


def test_loading_train_does_not_read_the_test_images(tmp_path: Path) -> None:
    wrong = np.array([{}], dtype=object)  # would not be read at all
    path = write(tmp_path, images=GREY, labels=LABELS, test_images=wrong, test_labels=LABELS[:1])
    assert len(read_npz(path, split="train").labels) == 20
    with pytest.raises(UserError, match=r"not a sound .npz archive of plain arrays: Object arrays cannot be loaded"):
        read_npz(path, split="test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": GREY.astype(np.float32)}, "'images' is float32, it must be uint8"),
        ({"images": GREY[0]}, r"'images' has shape \(6, 5\), it must be \(N, H, W\) or"),
        ({"images": COLOUR.transpose(0, 3, 1, 2)}, r"'images' has shape \(20, 3, 6, 5\), it must be .* C up to 4"),
        ({"images": COLOUR[:, :0]}, r"'images' has shape \(20, 0, 5, 3\)"),
        ({"images": GREY[:5]}, "'images' has 5 images but there are 20 labels"),
        ({"images": None}, "holds labels: it needs 'images' and 'labels', or 'x_train' and 'y_train'"),
        ({"labels": LABELS.astype(float)}, "'labels' is float64, it must be of integers"),
        ({"labels": LABELS == 1}, "'labels' is bool"),
        ({"labels": np.eye(2, dtype=int)[LABELS]}, r"'labels' has shape \(20, 2\), it must be \(N,\)"),
        ({"labels": LABELS[:0]}, r"'labels' has shape \(0,\)"),
        ({"labels": LABELS - 1}, "'labels' has the label -1, labels must be 0 to 0"),
        ({"classes": np.array(["only"])}, "'labels' has the label 1, labels must be 0 to 0"),
        ({"classes": np.array([1, 2])}, r"'classes' is int64 \(2,\), it must be strings of shape \(K,\)"),
        ({"classes": np.array(["a", "a"])}, "'classes' has 'a' twice, each class needs a name of its own"),
        ({"classes": np.array(["a", "b", "c"])}, "class 'c' has 0 image"),
        ({"labels": LABELS * 2}, "class '1' has 0 image"),
        ({"test_images": GREY}, "only one of 'test_images' and 'test_labels'"),
        ({"test_images": GREY, "test_labels": LABELS + 1}, "'test_labels' has the label 2, labels must be 0 to 1"),
        ({"test_images": GREY, "test_labels": LABELS[:3]}, "'test_images' has 20 images but there are 3 labels"),
        ({"test_images": GREY, "test_labels": LABELS * 0}, "the class '1' of .* has no images in the test split"),
    ],
)
def test_a_wrong_array_is_named_with_what_it_should_be(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    arrays = {"images": GREY, "labels": LABELS} | change
    path = write(tmp_path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(UserError, match=message):
        load(f"npz:{path}", "test")


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.npz cannot be read: No such file or directory"):
        read_npz(tmp_path / "none.npz", split="train")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_npz(tmp_path, split="train")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 and no more"])
def test_a_file_that_is_no_archive_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"set.npz is not a sound .npz archive"):
        read_npz(tmp_path / "set.npz", split="train")


def test_a_truncated_archive_is_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path, images=GREY, labels=LABELS)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"set.npz is not a sound .npz archive"):
        read_npz(path, split="train")


def test_damage_inside_the_archive_is_one_sentence(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "set.npz", images=GREY, labels=LABELS)
    content = bytearray((tmp_path / "set.npz").read_bytes())
    content[200:260] = bytes(60)
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"set.npz is not a sound .npz archive"):
        read_npz(tmp_path / "set.npz", split="train")


def test_a_single_array_is_not_an_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", GREY)
    with pytest.raises(UserError, match="holds a single array"):
        read_npz(tmp_path / "one.npy", split="train")

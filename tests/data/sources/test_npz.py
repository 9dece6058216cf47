import gzip
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import sklearn.datasets

from reslab.data.framing import Form
from reslab.data.images import Labelled
from reslab.data.load import load, load_validation
from reslab.data.recipe_data import read_split
from reslab.data.sources.npz import has_validation, open_npz
from reslab.data.split import hold_out
from reslab.errors import UserError
from reslab.recipe.shipped import RECIPES
from reslab.records import SplitName

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 6, 5), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(20) % 2


def write(path: Path, **arrays: Any) -> Path:
    np.savez(path / "set.npz", **arrays)
    return path / "set.npz"


def read_npz(path: Path, *, split: SplitName) -> Labelled:
    source = open_npz(path, split=split)
    images, labels = map(np.concatenate, zip(*(block[:2] for block in source.blocks), strict=True))
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
    arrays = {"images": GREY, "labels": LABELS, "test_images": GREY[:4], "test_labels": LABELS[:4]}
    images = load(f"npz:{write(tmp_path, **arrays)}", "train", image_size=9)
    assert images.images.shape == (20, 1, 9, 9)


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


def test_without_test_arrays_the_content_of_each_image_decides_its_split(tmp_path: Path) -> None:
    """Images that are added in front move no other, and copies stay together."""

    def read(images: Any, labels: Any) -> list[set[bytes]]:
        path = write(tmp_path, images=images, labels=labels)
        found = [read_npz(path, split=split).images[:, 0] for split in ("train", "test")]  # type: ignore[arg-type]
        assert sum(map(len, found)) == len(images)
        return [{image.tobytes() for image in part} for part in found]

    many, labels = RNG.integers(0, 256, (100, 6, 5), dtype=np.uint8), np.arange(100) % 2
    train, test = read(many, labels)
    assert 8 < len(test) < 32
    assert not train & test
    more = read(np.concatenate([RNG.integers(0, 256, (7, 6, 5), dtype=np.uint8), many, many[:9]]), np.arange(116) % 2)
    assert not more[0] & more[1]
    assert train <= more[0]
    assert test <= more[1]


def test_beside_test_arrays_the_content_decides_what_is_held_out_and_what_a_limit_takes(tmp_path: Path) -> None:
    many, labels = RNG.integers(0, 256, (40, 6, 6), dtype=np.uint8), np.arange(40) % 2
    order = RNG.permutation(40)
    chosen = []
    for rows in (np.arange(40), order):
        own = {"images": many[rows], "labels": labels[rows], "x_test": many[:4], "y_test": labels[:4]}
        expression = f"npz:{write(tmp_path, **own)}"
        taken = load(f"{expression}@9", "train", image_size=6)
        parts = (*hold_out(load(expression, "train", image_size=6), 8, seed=0), taken)
        chosen.append([{image.numpy().tobytes() for image in part.images} for part in parts])
    assert chosen[0] == chosen[1]
    assert [len(part) for part in chosen[0]] == [32, 8, 18]


def test_loading_train_does_not_read_the_test_images(tmp_path: Path) -> None:
    wrong = np.array([{}], dtype=object)  # would not be read at all
    path = write(tmp_path, images=GREY, labels=LABELS, test_images=wrong, test_labels=LABELS[:1])
    assert len(read_npz(path, split="train").labels) == 20
    with pytest.raises(
        UserError, match="'test_images' is an array of Python objects, a pickle, which can run any code"
    ):
        read_npz(path, split="test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": GREY.astype(complex)}, "'images' is complex128, it must be numbers"),
        ({"images": np.where(GREY < 9, np.nan, GREY)}, "'images' has values that are not finite"),
        ({"images": GREY.astype(object)}, "'images' is an array of Python objects, a pickle, which can run any code"),
        ({"images": GREY[0]}, r"'images' has shape \(6, 5\), it must be \(N, H, W\), "),
        ({"images": GREY.reshape(20, 30)}, r"'images' has shape \(20, 30\), it must be .* or rows of squares"),
        ({"images": COLOUR[:, :0]}, r"'images' has shape \(20, 0, 5, 3\)"),
        ({"images": GREY[:5]}, "'images' has 5 images but there are 20 labels"),
        ({"images": None}, "holds 'labels' but no images of the train split"),
        ({"images": None, "labels": None, "a": GREY}, "holds a: it needs 'images' and 'labels', or 'x_train' and"),
        ({"data": GREY}, "holds 'images' and 'data', which could both be meant"),
        ({"labels": LABELS + 0.5}, "'labels' is float64, it must be whole numbers or names"),
        ({"labels": LABELS.astype(object)}, "'labels' is an array of Python objects, a pickle"),
        ({"labels": np.full((20, 2), 0.5)}, r"'labels' has shape \(20, 2\) but row 0 is not one-hot"),
        ({"labels": LABELS[:0]}, r"'labels' has shape \(0,\)"),
        ({"labels": LABELS - 1}, "'labels' has the label -1: labels are 0 or more"),
        ({"classes": np.array(["only"])}, "'labels' has the label 1, but the classes are 0"),
        ({"classes": np.array(["no", "yes"], dtype=object)}, "'classes' is an array of Python objects"),
        ({"classes": np.array([1, 2])}, r"'classes' is int64 \(2,\), it must be strings of shape \(K,\)"),
        ({"classes": np.array(["a", "a"])}, "'classes' has 'a' twice, but each class needs a name of its own"),
        ({"classes": np.array(["a", "b", "c"])}, "class 'c' has 0 image"),
        ({"test_images": GREY}, "holds 'test_images' but no labels of the test split"),
        (
            {"test_images": GREY, "test_labels": LABELS + 1},
            "'test_labels' has the label 2, but the classes are 0 and 1",
        ),
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


def test_a_folder_without_arrays_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder without arrays of a known kind: give npz: a file, or"):
        read_npz(tmp_path, split="train")
    (tmp_path / "batches").mkdir()
    (tmp_path / "batches/data_batch_1.bin").touch()
    with pytest.raises(UserError, match=r"did you mean npz:\S+/batches\?"):
        read_npz(tmp_path, split="train")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 and no more"])
def test_a_file_that_is_no_archive_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"set.npz is not a valid .npz archive"):
        read_npz(tmp_path / "set.npz", split="train")


def test_a_truncated_archive_is_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path, images=GREY, labels=LABELS)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"set.npz is not a valid .npz archive"):
        read_npz(path, split="train")


def test_damage_inside_the_archive_is_one_sentence(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "set.npz", images=GREY, labels=LABELS)
    content = bytearray((tmp_path / "set.npz").read_bytes())
    content[200:260] = bytes(60)
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"set.npz is not a valid .npz archive"):
        read_npz(tmp_path / "set.npz", split="train")


def test_a_single_array_has_no_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", GREY)
    with pytest.raises(UserError, match="holds 'images' but no labels"):
        read_npz(tmp_path / "images.npy", split="train")


SQUARES = RNG.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
SQUARES[0, 0, 0], SQUARES[0, 0, 1] = 0, 255
SPLIT = {"images": SQUARES, "labels": LABELS, "test_images": SQUARES[:4], "test_labels": LABELS[:4]}
DEEP = SQUARES.astype(np.uint16)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (SQUARES.transpose(0, 3, 1, 2), None),
        (np.asfortranarray(SQUARES), None),
        (SQUARES.reshape(20, -1), "the rows of 'images' are images of 16x16x3"),
        (SQUARES / 255, "'images' is float64 from 0 (black) to 1 (white), mapped to 0 to 255"),
        ((SQUARES / 255).astype(np.float16), "float16 from 0 (black) to 1 (white)"),
        (SQUARES / 127.5 - 1, "'images' is float64 from -1 (black) to 1 (white)"),
        (SQUARES.astype(np.float32), None),
        (SQUARES.astype(np.int64), None),
        (DEEP, None),
        (DEEP * 4, "uint16 from 0 (black) to 1023 (white)"),
        (DEEP * 16, "uint16 from 0 (black) to 4095 (white)"),
        (DEEP * 257, "uint16 from 0 (black) to 65535 (white)"),
    ],
)
def test_images_of_every_layout_and_type_become_the_same_pixels(
    tmp_path: Path, images: Any, said: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, **SPLIT | {"images": images})
    found = read_npz(path, split="train").images
    assert found.dtype == np.uint8
    assert abs(found.astype(int) - SQUARES.transpose(0, 3, 1, 2)).max() <= 1
    lines = capsys.readouterr().err
    assert (said in lines) if said else not lines


@pytest.mark.parametrize("split", ["train", "test"])
def test_rows_of_colour_planes_are_told_from_rows_of_pixels(
    tmp_path: Path, split: SplitName, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = sklearn.datasets.load_sample_images().images[0][:320, :640]
    images = pixels.reshape(10, 32, 20, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)
    planes = images.transpose(0, 3, 1, 2)
    labels = np.arange(200) % 2
    for rows, said in ((images, "are images of 32x32x3\n"), (planes, "of 3x32x32, one colour plane after another\n")):
        flat = rows.reshape(200, -1)
        read = read_npz(
            write(tmp_path, images=flat, labels=labels, test_images=flat[:2], test_labels=[0, 1]), split=split
        )
        assert (read.images == planes[: len(read.images)]).all()
        assert capsys.readouterr().err.endswith(said)


def test_deep_arrays_have_the_white_of_their_training_images(tmp_path: Path) -> None:
    path = write(tmp_path, **SPLIT | {"images": DEEP * 16, "test_images": DEEP[:4] * 64})
    train, test = (load(f"npz:{path}", split, image_size=16) for split in ("train", "test"))
    assert (train.white, test.white) == (4095, 4095)
    wanted = (SQUARES[:4].transpose(0, 3, 1, 2) * (64 * 255 / 4095)).clip(0, 255)
    assert abs(test.images.numpy() - wanted).max() <= 0.51
    assert load(f"npz:{path}", "train", image_size=16, white=16_383).images.max() == round(4080 * 255 / 16_383)


@pytest.mark.parametrize("images", [SQUARES, SQUARES.astype(np.int64), SQUARES / 255])
def test_arrays_of_8_bits_and_fractions_have_no_white(tmp_path: Path, images: Any) -> None:
    path = write(tmp_path, **SPLIT | {"images": images})
    assert load(f"npz:{path}", "train", image_size=16).white is None


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (GREY[:4] / 255, "'x_test' is float64, but 'x_train', which decides on .*, is uint8: save both alike"),
        (GREY[:4] > 9, "'x_test' is bool, but 'x_train'"),
        (GREY[:4].astype(np.uint16) * 256, "'x_test' is uint16, but 'x_train'"),
    ],
)
def test_test_images_of_another_kind_are_refused(tmp_path: Path, test: Any, message: str) -> None:
    path = write(tmp_path, x_train=GREY, y_train=LABELS, x_test=test, y_test=LABELS[:4])
    with pytest.raises(UserError, match=message):
        read_npz(path, split="test")


@pytest.mark.parametrize(
    ("labels", "more", "message"),
    [
        (np.array(["", "dog"])[LABELS], {}, "'labels' has an empty name"),
        (LABELS, {"classes": ["cat", " "]}, "'classes' has an empty name"),
        (LABELS, {"classes": ["caf\u00e9", "cafe\u0301 "]}, "'classes' has 'caf\u00e9' twice"),
    ],
)
def test_names_of_classes_are_told_apart(tmp_path: Path, labels: Any, more: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_npz(write(tmp_path, images=SQUARES, labels=labels, **more), split="train")


def test_one_name_composed_in_two_ways_is_one_class(tmp_path: Path) -> None:
    path = write(tmp_path, images=GREY, labels=np.array([*["caf\u00e9", "cafe\u0301"] * 5, *["t\u00e9"] * 10]))
    assert load(f"npz:{path}", "train", image_size=6).classes == ("caf\u00e9", "t\u00e9")


def test_the_split_of_a_mat_is_a_word_of_its_name(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "latest.mat", {"images": GREY, "labels": LABELS[:, None]})
    train, test = (load(f"npz:{tmp_path}/latest.mat", split, image_size=6) for split in ("train", "test"))
    assert len(train.labels) + len(test.labels) == 20


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_test_images_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    test = np.where(GREY[:4] < 99, value, GREY[:4])
    path = write(tmp_path, x_train=GREY / 1.0, y_train=LABELS, x_test=test, y_test=LABELS[:4])
    with pytest.raises(UserError, match="'x_test' has values that are not finite: replace them"):
        read_npz(path, split="test")


def test_images_cut_off_as_the_test_split_do_not_stretch_the_training_images(tmp_path: Path) -> None:
    """One image spans ten times the range of all others; the cut, which goes by content, now and then takes it."""
    plain = np.random.default_rng(0).normal(size=(40, 8, 8)).clip(-2, 2)
    spreads = []
    for place in range(20):
        scaled = plain * np.where(np.arange(40) == place, 10, 1)[:, None, None]
        path = write(tmp_path, images=scaled, labels=np.arange(40) % 2)
        spreads.append(read_npz(path, split="train").images.std())
    assert min(spreads) < 20 < 50 < max(spreads)


@pytest.mark.parametrize(
    ("labels", "more", "classes"),
    [
        (LABELS[:, None], {}, ("0", "1")),
        (LABELS[None], {}, ("0", "1")),  # as MATLAB files store a list
        (LABELS.astype(float), {}, ("0", "1")),
        (LABELS == 1, {}, ("0", "1")),
        (LABELS + 1, {}, ("1", "2")),
        (LABELS * 7 + 3, {}, ("3", "10")),
        (np.eye(2)[LABELS], {}, ("0", "1")),
        (np.eye(2, dtype=int)[LABELS], {}, ("0", "1")),
        (np.array(["cat", "dog"])[LABELS], {}, ("cat", "dog")),
        (np.array(["cat ", "dog"])[LABELS], {"classes": ["cat", "dog "]}, ("cat", "dog")),
        (np.array(["cafe\u0301", "t\u00e9"] * 10), {"classes": ["caf\u00e9", "te\u0301"]}, ("caf\u00e9", "t\u00e9")),
        (np.array([b"cat", b"dog"])[LABELS], {}, ("cat", "dog")),
        (LABELS, {"class_names": ["cat", "dog"]}, ("cat", "dog")),
        (LABELS, {"names": [b"cat", b"dog"]}, ("cat", "dog")),
        (LABELS + 1, {"classes": ["cat", "dog"]}, ("cat", "dog")),
        (np.array(["dog", "cat"])[LABELS], {"classes": ["dog", "cat"]}, ("dog", "cat")),
    ],
)
def test_labels_of_every_kind_are_classes(tmp_path: Path, labels: Any, more: Any, classes: tuple[str, ...]) -> None:
    read = read_npz(
        write(tmp_path, images=SQUARES, labels=labels, x_test=SQUARES, y_test=labels, **more), split="train"
    )
    assert read.classes == classes
    assert read.labels.tolist() == LABELS.tolist()


NUMBERED = {split: np.full((2, 8, 8), number, np.uint8) for number, split in enumerate(("train", "validation", "test"))}


@pytest.mark.parametrize(
    "names",
    [
        ("images labels", "", "test_images test_labels"),
        ("X_train y_train", "", "X_test y_test"),
        ("x_train y_train", "x_val y_val", "x_test y_test"),
        ("trainX trainY", "valX valY", "testX testY"),
        ("train_images train_labels", "val_images val_labels", "test_images test_labels"),
        ("data targets", "valid_data valid_targets", "test_data test_targets"),
    ],
)
def test_arrays_are_told_by_the_names_that_people_give_them(tmp_path: Path, names: tuple[str, ...]) -> None:
    arrays = {}
    for pair, images in zip(names, NUMBERED.values(), strict=True):
        if pair:
            arrays |= dict(zip(pair.split(), (images, np.array([0, 1])), strict=True))
    path = write(tmp_path, **arrays)
    for split in ("train", "test", *(["validation"] if names[1] else [])):
        assert (read_npz(path, split=split).images[:, 0] == NUMBERED[split]).all()  # type: ignore[arg-type]
    assert has_validation(path) == bool(names[1])


@pytest.mark.parametrize("names", ["X y", "x y", "data labels", "arr_0 arr_1", "images target"])
def test_a_pair_of_any_name_is_cut(tmp_path: Path, names: str) -> None:
    path = write(tmp_path, **dict(zip(names.split(), (GREY, LABELS), strict=True)))
    train, test = (read_npz(path, split=split).images for split in ("train", "test"))  # type: ignore[arg-type]
    both = sorted(image.tobytes() for image in np.concatenate([train, test]))
    assert both == sorted(image.tobytes() for image in GREY)


def test_validation_arrays_are_the_test_split_where_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {"x_val": NUMBERED["test"], "y_val": np.array([0, 1]), "ids": np.arange(2)}
    path = write(tmp_path, x_train=NUMBERED["train"], y_train=np.array([0, 1]), **more)
    assert (read_npz(path, split="test").images == 2).all()
    lines = capsys.readouterr().err
    assert "has no test arrays: x_val and y_val are the test split" in lines
    assert "ids is not used" in lines
    recipe = RECIPES["digits-quick"].model_copy(update={"data": f"npz:{path}", "validation": 2})
    with pytest.raises(UserError, match="1 training image"):  # it cuts: x_val is taken
        read_split(recipe, "validation")
    whole = write(tmp_path, x_train=GREY, y_train=LABELS, x_test=GREY, y_test=LABELS, x_val=GREY[:6], y_val=LABELS[:6])
    assert len(read_split(recipe, "validation").labels) == 6
    assert whole == path


@pytest.mark.parametrize("choice", ["-rare,-none", "b,a"])
def test_a_class_that_cannot_be_cut_can_be_left_out(tmp_path: Path, choice: str) -> None:
    labels = np.array([*range(10), 2, *range(9)]) % 2
    labels[3] = 2
    path = write(tmp_path, images=GREY / 1.0, labels=labels, classes=["a", "b", "rare", "none"])
    with pytest.raises(UserError, match=r"class 'rare' has 1 image and class 'none' .* leave out :-rare,-none \(after"):
        load(f"npz:{path}", "train", image_size=6)
    train, test = (load(f"npz:{path}:{choice}", split, image_size=6) for split in ("train", "test"))
    assert train.classes == test.classes == (("a", "b") if choice[0] == "-" else ("b", "a"))
    assert len(train.labels) + len(test.labels) == 19
    assert dict(zip(train.classes, np.add(train.counts(), test.counts()), strict=True)) == {
        "a": (labels == 0).sum(),
        "b": (labels == 1).sum(),
    }
    with pytest.raises(UserError, match="leaves out all classes: take at least two"):
        load(f"npz:{path}:-a,-b,-rare,-none", "train", image_size=6)


def test_validation_arrays_have_the_chosen_classes(tmp_path: Path) -> None:
    labels = np.arange(20) % 4
    arrays = {"x_train": GREY, "y_train": labels, "x_test": GREY, "y_test": labels, "x_val": GREY, "y_val": labels % 3}
    expression = f"npz:{write(tmp_path, **arrays)}"
    images = load_validation(f"{expression}:2,0", classes=["2", "0"], form=Form(image_size=6))
    assert images is not None
    assert images.counts() == [5, 10]
    assert load(f"{expression}:2,0", "validation", image_size=6).fingerprint == images.fingerprint
    assert load_validation(f"{expression}:3", classes=["3"], form=Form(image_size=6)) is None


def test_npy_files_that_lie_side_by_side_are_one_set(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", SQUARES)
    np.save(tmp_path / "labels.npy", LABELS)
    np.save(tmp_path / "odd.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "._images.npy").write_bytes(b"macOS leaves such files on other disks")
    for path in (tmp_path, tmp_path / "images.npy"):
        assert sum(len(read_npz(path, split=split).labels) for split in ("train", "test")) == 20  # type: ignore[arg-type]
    with pytest.raises(UserError, match="'odd' is an array of Python objects, a pickle"):
        read_npz(tmp_path / "odd.npy", split="train")


@pytest.mark.parametrize("name", ["lost.npy", "lost.bin"])
def test_other_files_are_not_read_instead_of_a_missing_one(tmp_path: Path, name: str) -> None:
    np.save(tmp_path / "images.npy", SQUARES)
    np.save(tmp_path / "labels.npy", LABELS)
    (tmp_path / "data_batch_1.bin").write_bytes(bytes(20 * 3073))
    with pytest.raises(UserError, match=rf"{name} cannot be read: No such file"):
        read_npz(tmp_path / name, split="train")


def test_pickles_are_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "data.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match="is a pickle, which can run any code when it is opened"):
        read_npz(tmp_path / "data.pkl", split="train")


def write_idx(path: Path, prefix: str = "", *, packed: bool) -> None:
    for split, num in (("train", 20), ("t10k", 6)):
        images = struct.pack(">IIII", 2051, num, 6, 5) + GREY[:num].tobytes()
        labels = struct.pack(">II", 2049, num) + LABELS[:num].astype(np.uint8).tobytes()
        for name, content in ((f"{split}-images-idx3-ubyte", images), (f"{split}-labels-idx1-ubyte", labels)):
            file = path / f"{prefix}{name}"
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(content)) if packed else file.write_bytes(
                content
            )


def test_of_several_idx_sets_in_a_folder_one_has_to_be_given(tmp_path: Path) -> None:
    for prefix in ("emnist-digits-", "emnist-letters-"):
        write_idx(tmp_path, prefix, packed=True)
    with pytest.raises(UserError, match=r"holds 2 sets of idx files: give one of them, npz:\S+ and npz:\S+") as refused:
        read_npz(tmp_path, split="train")
    for given in re.findall(r"npz:(\S+)", str(refused.value)):
        assert len(read_npz(Path(given), split="train").labels) == 20


@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_as_of_mnist(tmp_path: Path, packed: bool) -> None:
    write_idx(tmp_path, packed=packed)
    for path in (tmp_path, next(tmp_path.glob("train-images*"))):
        read = read_npz(path, split="train")
        assert (read.images[:, 0] == GREY).all()
        assert read.labels.tolist() == LABELS.tolist()
    assert len(read_npz(tmp_path, split="test").labels) == 6


def test_an_idx_file_that_unpacks_to_nearly_nothing_is_refused(tmp_path: Path) -> None:
    content = gzip.compress(struct.pack(">IIII", 2051, 10**6, 100, 100))
    for kind in ("images-idx3", "labels-idx1"):
        (tmp_path / f"train-{kind}-ubyte.gz").write_bytes(content)
    with pytest.raises(UserError, match=r"unpacks .* to 10,000,000,000 bytes"):
        read_npz(tmp_path, split="train")


def cifar_record(label: int, shift: int) -> bytes:
    return bytes([label]) + ((np.arange(3072) + shift) % 256).astype(np.uint8).tobytes()


def test_binary_batches_as_of_cifar(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"data_batch_{number}.bin").write_bytes(cifar_record(0, number) + cifar_record(1, number))
    (tmp_path / "test_batch.bin").write_bytes(cifar_record(1, 9))
    (tmp_path / "batches.meta.txt").write_text("cat\ndog\n\n")
    train, test = read_npz(tmp_path, split="train"), read_npz(tmp_path / "test_batch.bin", split="test")
    assert (train.classes, train.labels.tolist()) == (("cat", "dog"), [0, 1, 0, 1])
    assert test.images[0, 1, 0, 2] == (1024 + 2 + 9) % 256
    (tmp_path / "test_batch.bin").write_bytes(b"short")
    with pytest.raises(UserError, match="5 bytes are not a multiple of 3073"):
        read_npz(tmp_path, split="train")


def test_matlab_files_as_of_cifar_and_svhn(tmp_path: Path) -> None:
    rows = np.stack([np.frombuffer(cifar_record(0, shift)[1:], np.uint8) for shift in range(10)])
    (tmp_path / "cifar").mkdir()
    for name in ("data_batch_1", "test_batch"):
        scipy.io.savemat(tmp_path / f"cifar/{name}.mat", {"data": rows, "labels": np.arange(10)[:, None] % 10})
    read = read_npz(tmp_path / "cifar", split="train")
    assert read.images[3, 1, 0, 2] == (1024 + 2 + 3) % 256
    assert read.classes[3] == "cat"
    scipy.io.savemat(tmp_path / "train_32x32.mat", {"X": SQUARES.transpose(1, 2, 3, 0), "y": LABELS[:, None] + 1})
    scipy.io.savemat(tmp_path / "test_32x32.mat", {"X": SQUARES.transpose(1, 2, 3, 0), "y": LABELS[:, None] + 1})
    read = read_npz(tmp_path / "train_32x32.mat", split="train")
    assert (read.images == SQUARES.transpose(0, 3, 1, 2)).all()
    assert read.classes == ("1", "2")

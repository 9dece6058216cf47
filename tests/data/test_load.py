import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from reslab.data.load import check_outside, describe, load
from reslab.data.packing import pack
from reslab.data.pixels import Pixels
from reslab.errors import UserError
from reslab.extension import extend
from reslab.recipe.recipe import Recipe
from reslab.runs import Run
from reslab.training import train


def test_classes_are_numbered_in_the_order_written(official: Path) -> None:
    whole = load("cifar10", "train", data_dir=official)
    chosen = load("cifar10:dog,cat", "train", data_dir=official)
    assert chosen.classes == ("dog", "cat")
    assert chosen.counts() == [10, 10]
    for label, name in enumerate(chosen.classes):
        before = whole.images[whole.labels == whole.classes.index(name)]
        assert torch.equal(chosen.images[chosen.labels == label], before)


def test_a_sum_of_sources_joins_images_and_classes(official: Path) -> None:
    joined = load("cifar10+cifar100:reptiles", "train", data_dir=official)
    assert joined.classes[9:] == ("truck", "crocodile", "dinosaur", "lizard", "snake", "turtle")
    assert joined.counts() == [10] * 10 + [2] * 5
    assert joined.images.shape == (110, 3, 32, 32)
    assert joined.images.dtype == torch.uint8
    assert joined.labels.dtype == torch.int64
    assert (joined.expression, joined.split) == ("cifar10+cifar100:reptiles", "train")
    lizards = load("cifar100", "train", data_dir=official)
    assert torch.equal(joined.images[joined.labels == 12], lizards.images[lizards.labels == 44])


def test_a_limit_holds_for_training_alone(official: Path) -> None:
    assert load("cifar10@3", "train", data_dir=official).counts() == [3] * 10
    assert load("cifar10@3", "test", data_dir=official).counts() == [1] * 10
    assert load("digits:7-9@20", "train").counts() == [20] * 3
    assert load("digits:7-9@20", "test").counts() == load("digits:7-9", "test").counts()


def test_a_limit_chooses_the_same_images_whatever_stands_beside(official: Path) -> None:
    alone = load("cifar100:lizard,wolf@1", "train", data_dir=official)
    among = load("cifar10+cifar100:reptiles@1", "train", data_dir=official)
    assert torch.equal(alone.images[alone.labels == 0], among.images[among.labels == 12])


def test_a_data_folder_named_one_level_too_deep_is_recognised(official: Path) -> None:
    folder = official / "cifar-10-batches-py"
    assert (
        load("cifar10", "test", data_dir=folder).fingerprint == load("cifar10", "test", data_dir=official).fingerprint
    )


def test_data_is_found_by_the_environment(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESLAB_DATA", str(official))
    assert load("cifar10", "test").counts() == [1] * 10


@pytest.mark.parametrize("size", [8, 32, 48])
def test_images_are_resized_as_pillow_does(official: Path, size: int) -> None:
    native = load("cifar10", "test", data_dir=official).images.numpy()
    resized = load("cifar10", "test", data_dir=official, image_size=size).images.numpy()
    assert resized.shape == (10, 3, size, size)
    for before, after in zip(native.reshape(-1, 32, 32), resized.reshape(-1, size, size), strict=True):
        expected = np.asarray(Image.fromarray(before).resize((size, size), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(after.astype(int), expected, atol=1)


def test_digits_are_scikit_learns_scaled_to_255() -> None:
    train, test = (load("digits", split, image_size=8) for split in ("train", "test"))  # type: ignore[arg-type]
    assert train.images.shape[1:] == (1, 8, 8)
    original = load_digits()
    expected = {
        (np.rint(image * 255 / 16).astype(np.uint8).tobytes(), label)
        for image, label in zip(*original_pair(original), strict=True)
    }
    found = [
        (image.numpy().tobytes(), int(label))
        for images in (train, test)
        for image, label in zip(images.images, images.labels, strict=True)
    ]
    assert len(found) == 1797
    assert set(found) == expected
    assert (int(train.images.min()), int(train.images.max())) == (0, 255)
    shares = np.array(test.counts()) / (np.array(train.counts()) + test.counts())
    np.testing.assert_allclose(shares, 0.2, atol=0.003)


def original_pair(bunch: Any) -> tuple[Any, Any]:
    return bunch.images, bunch.target


def test_a_part_of_digits_is_cut_as_the_whole_is() -> None:
    whole, part = load("digits", "test"), load("digits:7-9", "test")
    assert torch.equal(part.images[part.labels == 0], whole.images[whole.labels == 7])


@pytest.mark.parametrize(
    ("expression", "split", "message"),
    [
        (
            "cifar10+digits:0",
            "train",
            r"of 3 channels \(cifar10\) with images of 1 \(digits\), .* set channels to 3, or to 1",
        ),
        ("cifar10@0+digits@0", "test", r"of 3 channels"),
        ("cifar10@0", "train", "'cifar10@0' has no training images at all: raise the limit @0 of at least one source"),
        ("digits:1@0+digits:2@0", "train", "no training images at all"),
        ("digits", "dev", "'dev' is no split: load 'train', 'validation' or 'test'"),
        ("digits", "validation", "digits comes without validation images: load 'train' and hold some"),
        (f"folder:{'x' * 300}", "train", "x cannot be read: File name too long"),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(official: Path, expression: str, split: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(expression, split, data_dir=official)


def paint(folder: Path, counts: dict[str, int], *, mode: str = "RGB") -> Path:
    """Write `counts[class]` pictures, each of a grey of its own, of 40x24 pixels."""
    level = 0
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            level += 1
            Image.new("L", (40, 24), level).convert(mode).save(folder / name / f"{number}.png")
    return folder


def test_a_class_that_a_folder_brings_a_second_time_is_named(official: Path) -> None:
    pictures = paint(official / "pictures", {"cat": 2, "unicorn": 2})
    with pytest.raises(
        UserError, match=r"the class 'cat' is in .* twice: .* rename one, or say .* the same \(extend --merge"
    ):
        load(f"cifar10+folder:{pictures}", "train", data_dir=official)
    assert load(f"cifar10:dog+folder:{pictures}", "train", data_dir=official).counts() == [10, 1, 1]


def test_pictures_of_any_size_join_the_base_at_its_size(official: Path) -> None:
    pictures = paint(official / "pictures", {"unicorn": 5}, mode="L")
    joined = load(f"cifar10+folder:{pictures}", "train", data_dir=official)
    assert (joined.classes[-1], joined.counts()) == ("unicorn", [10] * 10 + [4])
    assert joined.images.shape == (104, 3, 32, 32)
    assert {tuple(set(image.flatten().tolist())) for image in joined.images[100:]} < {(1,), (2,), (3,), (4,), (5,)}


def test_a_single_class_can_be_read(official: Path) -> None:
    lizards = load("cifar100:lizard", "train", data_dir=official)
    assert (lizards.classes, lizards.counts()) == (("lizard",), [2])
    assert describe("cifar100:lizard", data_dir=official).counts == {"train": [2], "test": [1]}


# ---- classes that are one


def test_merged_classes_are_numbered_where_their_name_comes_first(official: Path) -> None:
    first = paint(official / "first", {"ant": 5, "cat": 10})
    second = paint(official / "second", {"zebra": 5, "dog": 15, "ant": 5})
    terms = [f"folder:{first}", "cifar10:dog,cat", f"folder:{second}"]
    for split in ("train", "test"):
        parts = [load(term, split, data_dir=official) for term in terms]
        joined = load("+".join(terms), split, data_dir=official, merge=True)
        assert joined.classes == ("ant", "cat", "dog", "zebra")
        assert torch.equal(joined.images, torch.cat([part.images for part in parts]))
        names = [part.classes[label] for part in parts for label in part.labels]
        assert [joined.classes[label] for label in joined.labels] == names


def test_merging_changes_nothing_where_no_name_is_shared(official: Path) -> None:
    apart, merged = (
        load("cifar10@3+cifar100:reptiles", "train", data_dir=official, merge=merge) for merge in (False, True)
    )
    assert merged.fingerprint == apart.fingerprint


def test_a_merged_class_may_have_images_in_one_source_alone(official: Path) -> None:
    pictures = paint(official / "pictures", {"cat": 10})
    expression = f"cifar10:dog,cat@0+folder:{pictures}"
    assert load(expression, "train", data_dir=official, merge=True).counts() == [0, 8]
    assert load(expression, "test", data_dir=official, merge=True).counts() == [1, 3]
    assert describe(expression, data_dir=official, merge=True).counts == {"train": [0, 8], "test": [1, 3]}


def test_the_same_images_are_never_merged_with_themselves(official: Path) -> None:
    pictures = paint(official / "pictures", {"cat": 10})
    for expression in ("cifar10+cifar10:cat", f"folder:{pictures}@3+folder:{pictures}"):
        with pytest.raises(UserError, match="twice: take it once"):
            load(expression, "train", data_dir=official, merge=True)


# ---- classes without training images


@pytest.mark.parametrize("size", [8, 32])
def test_classes_at_0_are_known_but_have_no_training_images(size: int) -> None:
    known, new = (load(expression, "train", image_size=size) for expression in ("digits:0-6", "digits:7-9@20"))
    joined = load("digits:0-6@0+digits:7-9@20", "train", image_size=size)
    assert joined.classes == (*known.classes, *new.classes)
    assert joined.counts() == [0] * 7 + [20] * 3
    assert torch.equal(joined.images, new.images)
    assert joined.labels.tolist() == [label + 7 for label in new.labels.tolist()]
    assert joined.statistics() == new.statistics()
    assert joined.fingerprint != new.fingerprint
    whole = load("digits:0-6+digits:7-9", "test", image_size=size)
    assert load("digits:0-6@0+digits:7-9@20", "test", image_size=size).fingerprint == whole.fingerprint


def test_classes_at_0_may_come_last_and_from_a_folder(official: Path) -> None:
    pictures = paint(official / "pictures", {"ant": 5, "bee": 5})
    expression = f"cifar10:cat,dog+folder:{pictures}@0"
    assert load(expression, "train", data_dir=official).counts() == [10, 10, 0, 0]
    found = describe(expression, data_dir=official)
    assert found.counts["train"] == [10, 10, 0, 0]
    assert all(found.counts["test"])
    assert found.mean == describe("cifar10:cat,dog", data_dir=official).mean


def test_a_class_that_lacks_images_for_another_reason_is_refused(tmp_path: Path) -> None:
    images, labels = np.zeros((4, 8, 8), dtype=np.uint8), np.array([0, 0, 1, 1])
    classes = np.array(["a", "b"])
    np.savez(
        tmp_path / "gap.npz",
        images=images[:2],
        labels=labels[:2],
        test_images=images,
        test_labels=labels,
        classes=classes,
    )
    np.savez(tmp_path / "untested.npz", images=images, labels=labels, test_images=images[:2], test_labels=labels[:2])
    for expression in (f"npz:{tmp_path}/gap.npz", f"npz:{tmp_path}/gap.npz@1", f"digits@0+npz:{tmp_path}/gap.npz"):
        with pytest.raises(UserError, match=r"the class 'b' of .* has no images in the train split"):
            load(expression, "train")
    assert load(f"digits:7@1+npz:{tmp_path}/gap.npz@0", "train").counts() == [1, 0, 0]
    with pytest.raises(UserError, match=r"the class '1' of .* has no images in the test split"):
        load(f"npz:{tmp_path}/untested.npz@0", "test")


def test_describe_sums_both_splits_up_as_json(official: Path) -> None:
    description = describe("cifar10:cat,dog", data_dir=official)
    train, test = (load("cifar10:cat,dog", split, data_dir=official) for split in ("train", "test"))  # type: ignore[arg-type]
    assert json.loads(json.dumps(asdict(description))) == {
        "expression": "cifar10:cat,dog",
        "classes": ["cat", "dog"],
        "notes": [],
        "image_shape": [3, 32, 32],
        "counts": {"train": [10, 10], "test": [1, 1]},
        "mean": list(train.statistics().mean),
        "std": list(train.statistics().std),
        "fingerprints": {"train": train.fingerprint, "test": test.fingerprint},
    }


@pytest.fixture
def wide(tmp_path: Path) -> str:
    """Pictures of 16x8 in two classes: red on the left, blue on the right."""
    picture = Image.new("RGB", (16, 8), (255, 0, 0))
    picture.paste((0, 0, 255), (8, 0, 16, 8))
    for name in ("a", "b"):
        (tmp_path / "wide" / name).mkdir(parents=True)
        for number in range(3):
            picture.putpixel((0, 0), (number, number, ord(name)))
            picture.save(tmp_path / "wide" / name / f"{number}.png")
    return f"folder:{tmp_path / 'wide'}"


def test_each_way_to_a_square_has_its_own_place_in_the_cache(wide: str) -> None:
    squeezed, padded, cropped = (
        load(wide, "train", image_size=8, resize=how).images for how in ("squeeze", "pad", "crop")
    )
    assert cropped[0, 2, 2].tolist() == [0, 0, 0, 0, 255, 255, 255, 255]
    assert (padded[:, :, [0, 1, 6, 7]] == 0).all()
    assert (padded[:, 0, 3, 0] == 255).all()
    assert squeezed[0, 2, 4].tolist() == padded[0, 2, 4].tolist() != cropped[0, 2, 4].tolist()


def test_grey_and_colour_join_where_the_channels_are_said(wide: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"--set channels=3"):
        load(f"digits:0,1+{wide}", "train", image_size=8)
    for channels in (1, 3):
        images = load(f"digits:0,1+{wide}", "train", image_size=8, channels=channels).images  # type: ignore[arg-type]
        assert images.shape[1] == channels
    grey, colour = (load("digits", "test", image_size=8, channels=channels).images for channels in (1, 3))  # type: ignore[arg-type]
    np.testing.assert_array_equal(colour, grey.expand(-1, 3, -1, -1))
    assert f"reslab: {wide}: images of 3 channels are converted to 1" in capsys.readouterr().err


def test_stored_pixels_are_converted_when_they_are_read(wide: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = load(wide, "train", image_size=8, channels=1)
    monkeypatch.setattr("reslab.data.storage.stored.SMALL", 0)
    on_disk = load(wide, "train", image_size=8, channels=1)
    assert isinstance(on_disk.images, Pixels)
    np.testing.assert_array_equal(on_disk.images[:], in_memory.images[:])
    assert on_disk.fingerprint == in_memory.fingerprint


OUTSIDE = ["../runs/fit", ".runs/fit", "."]


@pytest.mark.parametrize(
    ("folders", "data", "out", "is_refused"),
    [
        ("a b", "folder:.", "runs/fit", True),
        ("a b", "folder:.", "a/runs", True),
        ("a b", "digits+folder:./", "runs/fit", True),
        *[("a b", "folder:.", out, False) for out in OUTSIDE],
        ("a b", "folder:.:a,b", "runs/fit", False),
        ("a b runs", "folder:.:-runs", "runs/fit", False),
        ("a b", "folder:../other", "runs/fit", False),
        ("train/a train/b test/a test/b", "folder:.", "runs/fit", False),
        ("train/a train/b test/a test/b", "folder:.", "test/runs", True),
    ],
)
def test_a_new_folder_among_classes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: str, data: str, out: str, is_refused: bool
) -> None:
    for name in folders.split():
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "pictures" / name / "1.png")
    monkeypatch.chdir(tmp_path / "pictures")
    if not is_refused:
        check_outside(out, data)
        return
    with pytest.raises(
        UserError, match=r"lies inside .*/pictures, whose folders are classes: give --out a folder else"
    ):
        check_outside(out, data)


def test_commands_make_no_folder_among_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_recipe: Recipe, finished: Run
) -> None:
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="whose folders are classes: give --out a folder elsewhere"):
        train(small_recipe.model_copy(update={"data": "folder:."}), out="runs/small")
    with pytest.raises(UserError, match="whose folders are classes: give --out a folder elsewhere"):
        extend(finished.path, data="folder:.", out="runs/more")
    with pytest.raises(UserError, match="whose folders are classes: give --to a folder elsewhere"):
        pack("folder:.", "packed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "small"]

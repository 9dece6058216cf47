import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from reslab.data import describe, load
from reslab.errors import UserError


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
        ("cifar10+digits:0", "train", "joins images of 3 and 1 channels"),
        ("cifar10:cat", "train", "has one class, 'cat': a classifier needs at least two"),
        ("digits", "validation", "'validation' is not a split that is stored"),
    ],
)
def test_what_cannot_be_loaded_is_one_sentence(official: Path, expression: str, split: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(expression, split, data_dir=official)


def test_a_class_that_a_folder_brings_a_second_time_is_named(official: Path) -> None:
    for name in ("cat", "unicorn"):
        (official / "pictures" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (4, 4)).save(official / "pictures" / name / f"{number}.png")
    with pytest.raises(UserError, match=r"the class 'cat' is in .* twice"):
        load(f"cifar10+folder:{official / 'pictures'}", "train", data_dir=official)
    assert load(f"cifar10:dog+folder:{official / 'pictures'}", "train", data_dir=official).counts() == [10, 1, 1]


def test_one_class_from_each_of_two_sources_will_do(official: Path) -> None:
    assert load("cifar10:cat+cifar100:lizard", "test", data_dir=official).classes == ("cat", "lizard")


def test_describe_sums_both_splits_up_as_json(official: Path) -> None:
    description = describe("cifar10:cat,dog", data_dir=official)
    train, test = (load("cifar10:cat,dog", split, data_dir=official) for split in ("train", "test"))  # type: ignore[arg-type]
    assert json.loads(json.dumps(asdict(description))) == {
        "expression": "cifar10:cat,dog",
        "classes": ["cat", "dog"],
        "image_shape": [3, 32, 32],
        "counts": {"train": [10, 10], "test": [1, 1]},
        "mean": list(train.statistics().mean),
        "deviation": list(train.statistics().deviation),
        "fingerprints": {"train": train.fingerprint, "test": test.fingerprint},
    }

import dataclasses
import hashlib

import numpy as np
import pytest
import torch

from reslab.data.images import ImageSet


def make_set(*, num: int = 12, channels: int = 3) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num, channels, 5, 4), generator=generator, dtype=torch.uint8)
    return ImageSet(images, torch.arange(num) % 3, ("a", "b", "c"), "made", "train")


def test_statistics_are_those_of_numpy_in_double_precision() -> None:
    images = make_set(num=50)
    statistics = images.statistics()
    pixels = images.images.numpy().astype(np.float64)
    np.testing.assert_allclose(statistics.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(statistics.std, pixels.std(axis=(0, 2, 3)), rtol=1e-13)


def test_statistics_of_two_pixels_by_hand() -> None:
    images = ImageSet(
        torch.tensor([10, 20], dtype=torch.uint8).reshape(2, 1, 1, 1), torch.arange(2), ("a", "b"), "", "train"
    )
    assert images.statistics().mean == (15.0,)
    assert images.statistics().std == (5.0,)  # of the population: 7.07 would be the sample's


def test_a_channel_that_never_changes_has_deviation_one() -> None:
    images = make_set(channels=2)
    images.images[:, 1] = 255
    assert images.statistics().std[1] == 1.0
    assert images.statistics().mean[1] == 255.0


def test_fingerprint_is_sha256_over_classes_shapes_images_and_labels() -> None:
    images = make_set(num=2, channels=1)
    digest = hashlib.sha256(b'[["a", "b", "c"], [[2, 1, 5, 4], [2]]]')
    digest.update(bytes(images.images.flatten().tolist()))
    digest.update(b"".join(label.to_bytes(8, "little") for label in images.labels.tolist()))
    assert images.fingerprint == digest.hexdigest()


def test_fingerprint_ignores_the_expression_and_the_memory_layout() -> None:
    images = make_set()
    moved = dataclasses.replace(
        images, images=images.images.to(memory_format=torch.channels_last), expression="other", split="test"
    )
    assert moved.fingerprint == images.fingerprint


@pytest.mark.parametrize("field", ["images", "labels", "classes", "shape"])
def test_fingerprint_changes_with_the_content(field: str) -> None:
    images = make_set()
    changed = {
        "images": dataclasses.replace(images, images=images.images ^ 1),
        "labels": dataclasses.replace(images, labels=images.labels.flip(0)),
        "classes": dataclasses.replace(images, classes=("a", "b", "x")),
        "shape": dataclasses.replace(images, images=images.images.transpose(2, 3).reshape(12, 3, 5, 4)),
    }
    assert changed[field].fingerprint != images.fingerprint


def test_subset_keeps_the_order_asked_for_and_all_classes() -> None:
    images = make_set()
    chosen = images.subset([7, 0])
    assert torch.equal(chosen.images, images.images[[7, 0]])
    assert chosen.labels.tolist() == [1, 0]
    assert chosen.classes == images.classes
    assert chosen.counts() == [1, 1, 0]


@pytest.mark.parametrize("indices", [[2, 1], np.array([2, 1]), torch.tensor([2, 1])])
def test_subset_takes_any_kind_of_indices(indices: object) -> None:
    assert make_set().subset(indices).labels.tolist() == [2, 1]  # type: ignore[arg-type]


def test_subset_takes_a_mask_and_counts_from_the_end() -> None:
    images = make_set()
    assert torch.equal(images.subset(images.labels == 1).images, images.images[images.labels == 1])
    assert torch.equal(images.subset([-1, 0]).images, images.images[[-1, 0]])
    for wrong in ([12], [-13], [0.5], torch.ones(11, dtype=torch.bool)):
        with pytest.raises(IndexError, match="from -12 to 11, or by a mask of 12"):
            images.subset(wrong)  # type: ignore[arg-type]


def test_an_image_set_is_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_set().split = "test"  # type: ignore[misc]

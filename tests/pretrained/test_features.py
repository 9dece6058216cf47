"""Features of pictures: what they are, by either route, and that none is computed twice."""

import doctest
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from reslab import pretrained
from reslab.data.batches import standardize
from reslab.data.pixels import StoredPixels
from reslab.data.storage import cache as disk
from reslab.errors import UserError
from reslab.pretrained import Pretrained, kept, routes
from reslab.pretrained.weights import STANDARDIZE

NAME, SIZE, D = "efficientnet_lite0", 36, 1280  # halved to 18, 9 and 5: even and odd sides are padded otherwise


def draw(num: int, *, side: int = 9, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (num, channels, side, side), dtype=np.uint8)


@pytest.fixture(scope="module")
def network() -> Pretrained:
    return Pretrained(NAME, image_size=SIZE)


@pytest.fixture
def computed(network: Pretrained, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the pictures of each batch that is computed."""
    counts: list[int] = []
    compute = network._compute
    monkeypatch.setitem(network.__dict__, "_compute", lambda images: (counts.append(len(images)), compute(images))[1])
    return counts


@pytest.mark.parametrize("route", ["onnxruntime", "folded"])
def test_features_are_those_of_the_network(route: Any) -> None:
    network, images = Pretrained(NAME, image_size=SIZE, route=route), draw(3, side=SIZE)
    with torch.inference_mode():
        expected = network.model.features(standardize(torch.from_numpy(images), by=STANDARDIZE))
    found = network.features(images)
    assert found.dtype == np.float32
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)


def test_each_picture_is_computed_once_whatever_set_it_is_in(network: Pretrained, computed: list[int]) -> None:
    images = draw(20)
    first = network.features(images[:5])
    everything = network.features(np.concatenate([images[::-1], images[:3]]))
    assert sum(computed) == 20
    np.testing.assert_array_equal(everything[:20][::-1][:5], first)
    np.testing.assert_array_equal(everything[20:], first[:3])
    np.testing.assert_array_equal(network.features(torch.from_numpy(images)), everything[:20][::-1])
    assert sum(computed) == 20


def test_a_view_a_size_and_a_route_have_features_of_their_own(network: Pretrained, computed: list[int]) -> None:
    images = draw(2)
    plain, mirrored = network.features(images), network.features(images, mirrored=True)
    assert np.abs(plain - mirrored).max() > 0.01
    np.testing.assert_array_equal(mirrored, network.features(images[..., ::-1]))
    larger = Pretrained(NAME, image_size=40, route="folded").features(images)
    assert np.abs(plain - larger).max() > 0.01
    origins = [entry.origin.removeprefix(f"{NAME}, ") for entry in disk.list_cache()]
    assert sorted(origins) == [
        "36 pixels, onnxruntime",
        "36 pixels, onnxruntime",
        "36 pixels, onnxruntime, mirrored",
        "40 pixels, folded",
    ]


def test_a_picture_is_its_shape_too() -> None:
    wide = draw(1, side=4).reshape(3, 2, 8)
    assert kept.digest_of(wide) != kept.digest_of(wide.reshape(3, 8, 2))


def test_grey_pictures_are_taken_as_rgb(network: Pretrained) -> None:
    grey = draw(2, channels=1)
    np.testing.assert_allclose(network.features(grey), network.features(grey.repeat(3, axis=1)), atol=1e-4)
    with pytest.raises(UserError, match=f"{NAME} is for grey or RGB pictures, not for 4 channels"):
        network.features(draw(2, channels=4))


def test_pictures_outside_of_memory_and_none_at_all(network: Pretrained, tmp_path: Path) -> None:
    images = draw(3)
    (tmp_path / "images.bin").write_bytes(images.tobytes())
    stored = StoredPixels(tmp_path / "images.bin", images.shape)
    np.testing.assert_array_equal(network.features(stored), network.features(images))
    assert network.features(images[:0]).shape == (0, D)


def test_a_damaged_entry_is_computed_anew(network: Pretrained, computed: list[int], cache: Path) -> None:
    images = draw(4)
    before = network.features(images)
    (file,) = cache.glob("*/features.npy")
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    disk._digest.cache_clear()  # as another process would
    np.testing.assert_array_equal(network.features(images), before)
    assert sum(computed) == 8


def test_who_stops_keeps_what_is_done(
    network: Pretrained, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "ENTRY", 2)
    images, compute = draw(5), network._compute

    def stop(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        if sum(computed) == 4:
            raise KeyboardInterrupt
        return compute(pictures)

    with monkeypatch.context() as patch:
        patch.setitem(network.__dict__, "_compute", stop)
        with pytest.raises(KeyboardInterrupt):
            network.features(images)
    network.features(images)
    assert computed == [2, 2, 1]


def test_the_features_used_longest_ago_make_room(network: Pretrained, monkeypatch: pytest.MonkeyPatch) -> None:
    network.features(draw(8, seed=1))
    (entry,) = disk.list_cache()
    os.utime(entry.path / "entry.json", (entry.used - 10, entry.used - 10))
    monkeypatch.setenv("RESLAB_CACHE_GB", str(1.5 * entry.num_bytes / 1e9))
    network.features(draw(8, seed=2))
    assert [each.path == entry.path for each in disk.list_cache()] == [False]
    monkeypatch.setenv("RESLAB_CACHE_GB", "1e-6")
    with pytest.raises(UserError, match=r"the features need 0\.0 GB of the cache in .*RESLAB_CACHE_GB higher$"):
        network.features(draw(8, seed=3))
    assert disk.clear_cache() > 0
    assert disk.list_cache() == []


@pytest.mark.parametrize(("absent", "chosen"), [(None, "onnxruntime"), ("onnx", "folded"), ("onnxruntime", "folded")])
def test_the_fastest_route_that_is_installed_is_chosen(
    absent: str | None, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "find_spec", lambda name: None if name == absent else object())
    assert routes.choose_route() == chosen


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 3, 8, 8)), np.zeros((1, 3, 8, 8), np.uint16), torch.zeros(1, 3, 8, 8), np.zeros((3, 8, 8), np.uint8)],
)
def test_what_are_no_stored_pictures_is_refused(network: Pretrained, images: Any) -> None:
    with pytest.raises(UserError, match=r"pictures \(N, C, H, W\) uint8"):
        network.features(images)


def test_a_route_that_there_is_not_is_refused() -> None:
    with pytest.raises(UserError, match="there is no route 'onnx': choose from onnxruntime, folded"):
        Pretrained("efficientnet_lite0", image_size=32, route="onnx")  # type: ignore[arg-type]


def test_a_size_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="pictures of 0 pixels a side show nothing: choose 32 or more"):
        Pretrained(NAME, image_size=0)
    assert Pretrained(NAME).image_size == 224


def test_the_example_runs() -> None:
    done = doctest.testmod(pretrained)
    assert done.attempted >= 3
    assert done.failed == 0

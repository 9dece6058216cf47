"""`docs/fast94-in-one-file.py` is the recipe `fast94`: on a few images both give the same weights."""

import hashlib
import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from reslab.data.sources.catalog import OFFICIAL
from reslab.machine import kernels
from reslab.network.network import Network
from reslab.recipe.recipe import Resize, derive
from reslab.recipe.shipped import find_recipe
from reslab.training import train

FILE = Path(__file__).parent.parent / "docs" / "fast94-in-one-file.py"
EPOCHS, BATCH = 4, 300  # the stem is frozen in the last epoch; the last batch and the last chunk are smaller


@pytest.fixture(scope="module")
def one_file() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fast94_in_one_file", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_read_in_one_sitting_and_needs_no_package() -> None:
    lines = FILE.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    assert not [line for line in lines if line.startswith(("import reslab", "from reslab"))]


def test_it_trains_what_the_recipe_trains(
    one_file: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights are compared bit by bit: one thread, float32, not compiled, and without our own convolutions."""
    monkeypatch.setattr(kernels, "_load", lambda: None)
    recipe = find_recipe("fast94")
    sides = tuple(each.image_size for each in recipe.progressive_resizing)
    assert [each.epoch for each in recipe.progressive_resizing] == list(range(recipe.epochs))
    assert (sides, recipe.batch_size) == (one_file.SIDES, one_file.BATCH)
    assert OFFICIAL["cifar10"].archive.sha256 == one_file.ARCHIVE
    drawn = np.random.default_rng(0)
    pixels, labels = drawn.integers(256, size=(512, 32, 32, 3), dtype=np.uint8), np.arange(512) % 10
    np.savez(tmp_path / "set.npz", images=pixels, labels=labels, test_images=pixels[:10], test_labels=labels[:10])
    sides = (16, 20, 16, 32)
    short = derive(
        recipe,
        name="short",
        data=f"npz:{tmp_path}/set.npz",
        epochs=EPOCHS,
        batch_size=BATCH,
        temperature=None,  # the file does not calibrate
        progressive_resizing=tuple(Resize(epoch=epoch, image_size=side) for epoch, side in enumerate(sides)),
    )
    run = train(short, out=tmp_path / "run", seed=3, device="cpu", compile="off", precision="float32")
    packaged = Network.load(run.path, device="cpu")
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    network = one_file.train(images, torch.from_numpy(labels), seed=3, sides=sides, batch=BATCH)
    ours, theirs = packaged.module.state_dict(), network.state_dict()
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    for views in (1, 6):
        torch.testing.assert_close(
            one_file.predict(network, images[:20], views=views == 6),
            packaged.logits(images[:20], views=views),
            rtol=1e-4,
            atol=1e-4,
        )


def test_it_reads_the_official_archive_and_no_other(
    one_file: ModuleType, build: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = build.contents()["cifar10"]
    (tmp_path / "it.tar.gz").write_bytes(
        build.pack({f"cifar-10-batches-py/{name}": contents[name] for name in contents})
    )
    with pytest.raises(SystemExit, match="is not the official"):
        one_file.read_cifar10(tmp_path / "it.tar.gz")
    monkeypatch.setattr(one_file, "ARCHIVE", hashlib.sha256((tmp_path / "it.tar.gz").read_bytes()).hexdigest())
    images, labels = one_file.read_cifar10(tmp_path / "it.tar.gz")
    assert (tuple(images.shape), images.dtype) == ((110, 3, 32, 32), torch.uint8)
    assert labels.tolist() == list(range(10)) * 11
    assert images[20].numpy().tobytes() in contents["data_batch_2"]

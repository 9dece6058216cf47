"""Each defect that fuzzing has found, by its smallest input."""

import io
import json
import resource
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reslab import models
from reslab.data import expression as select
from reslab.data import pictures
from reslab.data.sources.archive import Archive, Member, unpack
from reslab.data.sources.cifar import unpickle
from reslab.data.sources.fetch import fetch
from reslab.data.sources.npz import open_npz
from reslab.errors import Failure, UserError
from reslab.network.network import Network
from reslab.recipe.networks import MODELS, FastConv, PreActResNet
from reslab.recipe.recipe import Standardize
from reslab.records import Weights
from reslab.runs import Checkpoint, Run
from reslab.runs.files import to_safetensors
from reslab.training.state import State, capture, restore


@pytest.mark.parametrize("written", ["digits@" + "9" * 5000, "digits:3@٣", "digits:٣-٥"])
def test_numbers_in_an_expression(written: str) -> None:
    with pytest.raises(UserError):
        select.parse(written)


# ---- pictures


def test_a_picture_that_starts_a_program_is_none(tmp_path: Path, opened: list[str]) -> None:
    """Pillow hands EPS to Ghostscript, whatever the file is called."""
    Image.new("RGB", (8, 8)).save(tmp_path / "it.png", "EPS")
    pictures.readable_endings()  # loads the decoders
    opened.clear()
    with pytest.raises(UserError, match="cannot be read as a picture"):
        pictures.decode(tmp_path / "it.png", image_size=8)
    assert set(opened) == {str(tmp_path / "it.png")}


def test_a_picture_of_too_many_pixels_is_refused_and_a_wide_one_is_not(tmp_path: Path) -> None:
    Image.new("1", (8001, 8001)).save(tmp_path / "large.png")
    with pytest.raises(UserError, match=r"too large \(8001x8001: at most 64,000,000 pixels are supported\)"):
        pictures.decode(tmp_path / "large.png", image_size=8)
    Image.new("RGB", (60_000, 2), "white").save(tmp_path / "wide.png")
    assert pictures.decode(tmp_path / "wide.png", image_size=8).min() == 255


def test_a_network_for_huge_images_is_refused() -> None:
    with pytest.raises(UserError, match="images of 100000 pixels a side: at most 1024 are supported"):
        pictures.read_pictures([Path("any.png")], image_size=100_000, channels=3)


# ---- arrays


def write_bomb(path: Path, name: str) -> None:
    """Claim 4 GB in the archive's own list; what is there are some bytes of zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.npy", bytes(1000))
        archive.filelist[0].file_size = 4 * 10**9


def test_an_archive_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    write_bomb(tmp_path / "it.npz", "images")
    with pytest.raises(UserError, match=r"images\.npy unpacks \d+ to 4,000,000,000 bytes"):
        list(open_npz(tmp_path / "it.npz", split="train").blocks)
    write_bomb(tmp_path / "predictions-test.npz", "logits")
    with pytest.raises(UserError, match=r"logits\.npy unpacks \d+ to 4,000,000,000 bytes"):
        Run(tmp_path).read_predictions("test")


def test_an_archive_that_makes_tarfile_stumble(tmp_path: Path, build: Any) -> None:
    whole = io.BytesIO(build.pack({"set/a": b"a" * 2000}))
    content = whole.getvalue()[:-20]
    (tmp_path / "it.tar.gz").write_bytes(content)
    member = Member("a", 2000, "0" * 64)
    archive = build.expect(Archive("it.tar.gz", (), 0, "", "set", (member,)), content)
    with pytest.raises(UserError):
        unpack(archive, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tarfile.TarFile.next", lambda tar: ord(""))
        with pytest.raises(UserError, match=r"it\.tar\.gz cannot be unpacked: ord\(\) expected a character"):
            unpack(archive, tmp_path)


def test_a_pickle_that_names_a_far_place_in_the_unpicklers_memory(tmp_path: Path) -> None:
    """`N`, put at place 2**27, which is 2 GB of pointers."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert unpickle(b"\x80\x02Nr\x00\x00\x00\x08.", where=tmp_path) is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


# ---- networks


@pytest.mark.parametrize("model", [PreActResNet(depth=6 * 10**8 + 2), FastConv(widths=(8, 8, 8 * 10**8))])
def test_weights_that_say_they_were_a_giant(tmp_path: Path, model: Any) -> None:
    weights = Weights(
        model=model, classes=("a", "b"), channels=1, image_size=9, standardize=Standardize(mean=(0,), std=(1,))
    )
    content = to_safetensors({"stem.weight": np.zeros(3, np.float32)}, {"reslab": weights.model_dump_json()})
    (tmp_path / "it").write_bytes(content)
    with pytest.raises(UserError, match="do not fit the network"):
        Network.load(tmp_path / "it", device="cpu")


def test_weights_of_more_channels_than_can_be_counted(tmp_path: Path) -> None:
    weights = Weights(
        model=PreActResNet(depth=8),
        classes=("a", "b"),
        channels=2**63,
        image_size=8,
        standardize=Standardize(mean=(0,), std=(1,)),
    )
    tensors = {str(number): np.zeros(1, np.float32) for number in range(99)}
    (tmp_path / "it").write_bytes(to_safetensors(tensors, {"reslab": weights.model_dump_json()}))
    with pytest.raises(UserError, match="do not fit the network"):
        Network.load(tmp_path / "it", device="cpu")


@pytest.mark.parametrize("name", MODELS)
def test_every_network_can_be_looked_at_before_it_takes_memory(name: str) -> None:
    state = torch.get_rng_state()
    with torch.device("meta"):
        shapes = models.build(MODELS[name], num_classes=3).state_dict()
    assert all(value.is_meta for value in shapes.values())
    assert torch.equal(torch.get_rng_state(), state)


# ---- answers of a mirror


@pytest.mark.parametrize("error", [UnicodeDecodeError("utf-8", b"x", 0, 1, "no text"), RuntimeError("read twice")])
def test_what_requests_lets_through_is_a_reason_to_try_the_next_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("requests.get", fail)
    with pytest.raises(Failure, match=r"\(a: the connection dropped; b: the connection dropped\)"):
        fetch(Archive("it", ("http://a/", "http://b/"), 9, "0" * 64, "set", ()), tmp_path)


# ---- checkpoints


@pytest.fixture
def state() -> State:
    model = models.build(FastConv(widths=(8, 8, 8)), num_classes=2, channels=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.zeros(2, 1, 9, 9)).sum().backward()
    optimizer.step()
    return State(model, optimizer, losses=torch.zeros(2), hits=torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize(
    ("tensors", "facts"),
    [
        ({}, {"updates": "many"}),
        ({}, {"epochs": None}),
        ({}, {"seconds": -1}),
        ({"generator": np.zeros(7, np.uint8)}, {}),
        ({"generator": np.zeros(5056, np.float32)}, {}),
        ({"epoch.losses": np.zeros(3, np.float32)}, {}),
        ({"optimizer.0.momentum_buffer": np.zeros(999, np.float32)}, {}),
    ],
)
def test_a_checkpoint_with_a_sound_checksum_and_nonsense(state: State, tensors: Any, facts: Any) -> None:
    found = capture(state)
    restore(state, found)
    with pytest.raises(UserError, match="the checkpoint does not fit the run's recipe"):
        restore(state, Checkpoint(found.tensors | tensors, json.loads(json.dumps(found.state | facts))))

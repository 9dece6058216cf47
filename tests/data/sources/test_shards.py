import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reslab.data.batches import Batches, seeded
from reslab.data.load import load
from reslab.data.packing import pack
from reslab.data.parts import part_of
from reslab.data.pixels import Pixels
from reslab.data.recipe_data import read_split
from reslab.data.sources.shards import Reader, Sharded, read_samples
from reslab.data.split import hold_out
from reslab.data.stream import stream_order
from reslab.errors import Failure, UserError
from reslab.evaluation import evaluate
from reslab.recipe.recipe import Crop, Recipe, Standardize, derive
from reslab.training import Safety, resume, train
from reslab.training.loop import Trainer

EXPRESSION = "digits:1,4,7@40"


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    pack(EXPRESSION, str(tmp_path / "packed"), image_size=8, images_per_shard=16)
    return tmp_path / "packed"


def streamed(recipe: Recipe, packed: Path, **changes: Any) -> Recipe:
    return derive(recipe, name="streamed", data=f"shards:{packed}", **({"stream": 48} | changes))


def replace_shard(packed: Path, content: bytes, *, name: str = "train-000001.tar") -> None:
    """Put another shard in the place of one, and let the index vouch for it, as an attacker would."""
    index = json.loads((packed / "reslab.json").read_text())
    (shard,) = (shard for shard in index["splits"]["train"]["shards"] if shard["name"] == name)
    shard |= {"num_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (packed / "reslab.json").write_text(json.dumps(index))
    (packed / name).write_bytes(content)


def tar(*members: tuple[str | tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def untar(path: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        return [(member.name, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]


# ---- what was packed is what is read


@pytest.mark.parametrize("split", ["train", "test"])
def test_packed_images_are_the_same_set(packed: Path, split: Any) -> None:
    packed_set, direct = (load(each, split, image_size=8) for each in (f"shards:{packed}", EXPRESSION))
    assert packed_set.fingerprint == direct.fingerprint


def test_validation_pictures_are_counted_since_they_are_not_packed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, name in enumerate(("train/a", "train/b", "val/a", "val/b", "test/a", "test/b")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (place, 0, 0)).save(tmp_path / "pictures" / name / "0.png")
    expression = f"folder:{tmp_path / 'pictures'}"
    pack(expression, str(tmp_path / "packed"), image_size=8)
    assert f"{expression}: 2 validation pictures not packed, since " in capsys.readouterr().err


def test_the_white_of_packed_pictures_is_kept(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(8):
        path = tmp_path / "pictures" / ("train", "test")[number % 2] / "ab"[number // 2 % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 4096, (8, 8), np.uint16)).save(path)
    expression = f"folder:{tmp_path / 'pictures'}"
    pack(expression, str(tmp_path / "packed"), image_size=8)
    packed = load(f"shards:{tmp_path / 'packed'}", "train", image_size=8)
    streamed = load(f"shards:{tmp_path / 'packed'}", "train", image_size=8, stream=4)
    assert (packed.white, streamed.white) == (4095, 4095)
    assert (packed.images[:] == load(expression, "train", image_size=8).images[:]).all()


def test_colour_is_kept(official: Path, tmp_path: Path) -> None:
    pack("cifar10", str(tmp_path / "packed"), data_dir=official, images_per_shard=30)
    both = [load(each, "train", data_dir=official) for each in ("cifar10", f"shards:{tmp_path}/packed")]
    assert both[0].fingerprint == both[1].fingerprint


def test_shards_lie_at_any_address_of_fsspec(tmp_path: Path) -> None:
    pack(EXPRESSION, "memory://some/packed", image_size=8, images_per_shard=50)
    direct = load(EXPRESSION, "train", image_size=8)
    assert load("shards:memory://some/packed", "train", image_size=8).fingerprint == direct.fingerprint
    assert len(load("shards:memory://some/packed@5+digits:2@5", "train", image_size=8).labels) == 20


def test_a_shard_has_the_webdataset_layout(packed: Path) -> None:
    """An image's files follow each other and share their name up to the first dot, which is how others group them."""
    members = untar(packed / "train-000000.tar")
    names = [name.split(".") for name, _ in members]
    assert [kind for _, kind in names] == ["cls", "png"] * 16
    assert [key for key, _ in names[::2]] == [key for key, _ in names[1::2]]
    assert len({key for key, _ in names}) == 16
    assert all(content in (b"0", b"1", b"2") for _, content in members[::2])
    assert all(Image.open(io.BytesIO(content)).size == (8, 8) for _, content in members[1::2])


def test_a_run_on_shards_is_the_run_in_memory(packed: Path, tmp_path: Path, small_recipe: Recipe) -> None:
    runs = [
        train(derive(small_recipe, name="one", data=data), out=tmp_path / name, device="cpu", compile="off")
        for name, data in (("memory", EXPRESSION), ("shards", f"shards:{packed}"))
    ]
    first, second = (run.read_checkpoint().tensors for run in runs)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first if name != "epoch.seconds")
    figures = [evaluate(run, splits=["test"], device="cpu").splits["test"] for run in runs]
    assert figures[0].accuracy == figures[1].accuracy


@pytest.mark.parametrize("way", ["kept", "streamed", "without a shard"])
def test_shards_hold_out_the_pictures_that_their_source_holds_out(way: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(60):
        file = tmp_path / "pictures" / "ab"[number % 2] / f"series{number // 6}-{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file)
    data = rf"folder:{tmp_path}/pictures?group=series(\d+)"
    pack(data, str(tmp_path / "packed"), image_size=8, images_per_shard=9)
    own = load(data, "train", image_size=8)
    if way == "without a shard":
        (tmp_path / "packed/train-000002.tar").unlink()
    found = load(
        f"shards:{tmp_path}/packed",
        "train",
        image_size=8,
        stream=20 if way == "streamed" else None,
        skip_damaged=way == "without a shard",
    )
    pixels = dict(zip(own.digests.tolist(), own.images, strict=True))
    for image, digest in zip(found.images[:], found.digests.tolist(), strict=True):
        assert torch.equal(image, pixels[digest])
    training, held = hold_out(found, 12, seed=1)
    assert not set(held.keys.tolist()) & set(training.keys.tolist())
    if way != "without a shard":
        assert set(held.digests.tolist()) == set(hold_out(own, 12, seed=0)[1].digests.tolist())


# ---- streamed


def test_an_epoch_is_shuffled_by_shard_and_buffer(packed: Path) -> None:
    images = load(f"shards:{packed}", "train", image_size=8, stream=32).images
    assert isinstance(images, Sharded)
    orders = [stream_order(images, buffer=32, generator=seeded(0, epoch), batches=[120]) for epoch in range(2)]
    assert not torch.equal(*orders)
    for order in orders:
        assert sorted(order.tolist()) == list(range(120))
        owners = images.shards_of(order.numpy())
        groups = [owners[start : start + 32] for start in range(0, 112, 32) if 7 not in owners[: start + 32]]
        assert all(len(set(group.tolist())) == 2 for group in groups)
        assert groups
        assert any(len(np.flatnonzero(np.diff(group))) > 1 for group in groups)  # mixed, not one after the other
    assert images._held == {}  # nothing was read for it


@pytest.mark.parametrize("num_ranks", [2, 3, 11])
@pytest.mark.parametrize("batch_size", [1, 7, 17, 119, 500])
def test_each_process_has_shards_of_its_own_and_together_they_have_each_image_once(
    packed: Path, num_ranks: int, batch_size: int
) -> None:
    """Seven shards of 16 images and one of 8; two processes read a shard in which their images meet."""
    images = load(f"shards:{packed}", "train", image_size=8, stream=32).images
    assert isinstance(images, Sharded)
    sizes = [batch_size] * (120 // batch_size) + ([120 % batch_size] if 120 % batch_size else [])
    order = stream_order(images, buffer=32, generator=seeded(0), batches=sizes, num_ranks=num_ranks)
    assert sorted(order.tolist()) == list(range(120))
    shards: list[set[int]] = [set() for _ in range(num_ranks)]
    for batch in order.split(sizes):
        parts = [part_of(len(batch), rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
        for part, own in zip(parts, shards, strict=True):
            own |= set(images.shards_of(batch[part.begin : part.begin + part.num_new].numpy()).tolist())
    assert sum(map(len, shards)) <= 8 + num_ranks - 1


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What is read of shards while a test runs: their numbers."""
    numbers: list[int] = []
    original = Reader.read
    monkeypatch.setattr(Reader, "read", lambda self, number: (numbers.append(number), original(self, number))[1])
    return numbers


def of_rank(recipe: Recipe, rank: int, num_ranks: int) -> Batches:
    """What one process has, with a buffer of its own."""
    by, device = Standardize(mean=(0,), std=(1,)), torch.device("cpu")
    images = read_split(recipe, "train")
    return Batches(images, recipe=recipe, by=by, seed=0, device=device, rank=rank, num_ranks=num_ranks)


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_each_process_reads_its_shards_once_an_epoch_also_where_it_goes_on(
    packed: Path, small_recipe: Recipe, read: list[int], num_ranks: int
) -> None:
    recipe = streamed(small_recipe, packed, validation=0, batch_size=20, augment=(), stream=16)
    by_rank: list[list[int]] = []
    images: list[bytes] = []
    for rank in range(num_ranks):
        read.clear()
        batches = list(of_rank(recipe, rank, num_ranks).epoch(1))
        by_rank.append(list(read))
        images += [image.byte().numpy().tobytes() for batch, _ in batches for image in batch]
        read.clear()
        later = list(of_rank(recipe, rank, num_ranks).epoch(1, start=4))
        assert all(torch.equal(ours[0], theirs[0]) for ours, theirs in zip(later, batches[4:], strict=True))
        assert len(read) == len(set(read)) < len(by_rank[-1])  # those before are not opened
    assert sorted(images) == sorted(image.numpy().tobytes() for image in load(EXPRESSION, "train", image_size=8).images)
    assert all(len(numbers) == len(set(numbers)) for numbers in by_rank)
    assert set().union(*by_rank) == set(range(8))
    assert sum(map(len, by_rank)) <= 8 + num_ranks - 1


def test_no_shard_is_read_twice_where_some_of_its_images_are_held_out(
    packed: Path, small_recipe: Recipe, read: list[int]
) -> None:
    """What a shard takes of the buffer is all of its images, not only those that are trained on."""
    batches = of_rank(streamed(small_recipe, packed, validation=40, stream=48), 0, 1)
    read.clear()
    list(batches.epoch(0))
    assert sorted(read) == list(range(8))


def test_processes_augment_each_its_own_way(packed: Path, small_recipe: Recipe) -> None:
    recipe = streamed(small_recipe, packed, validation=0, augment=(Crop(pixels=2, fill="zeros"),))
    seeds: list[int] = []

    def watch(images: torch.Tensor, *, generator: torch.Generator, **options: Any) -> torch.Tensor:
        seeds.append(generator.initial_seed())
        return images

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reslab.data.batches.augment", watch)
        num_batches = [len(list(of_rank(recipe, rank, 2).epoch(0))) for rank in range(2)]
    assert len(set(seeds)) == sum(num_batches)


def test_an_epoch_goes_on_at_the_border_of_a_shard(
    packed: Path, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = streamed(small_recipe, packed, validation=0, stream=16, batch_size=16)
    read: list[int] = []
    whole, later = (
        Batches(images, recipe=recipe, by=images.statistics(), seed=0, device=torch.device("cpu"))
        for images in (read_split(recipe, "train"), read_split(recipe, "train"))
    )
    expected = list(whole.epoch(1))
    images: Any = later.images
    images._held.clear()
    original = images.reader.read
    monkeypatch.setattr(images.reader, "read", lambda number: (read.append(number), original(number))[1])
    for (ours, _), (theirs, _) in zip(later.epoch(1, start=5), expected[5:], strict=True):
        assert torch.equal(ours, theirs)
    assert len(read) <= 4  # of eight: those before are not opened
    assert len(read) == len(set(read))  # and each one once


def test_no_more_than_the_buffer_is_in_memory(packed: Path, small_recipe: Recipe) -> None:
    recipe = streamed(small_recipe, packed, stream=32)
    images = read_split(recipe, "train")
    batches = Batches(images, recipe=recipe, by=images.statistics(), seed=0, device=torch.device("cpu"))
    base: Any = batches.images.base  # type: ignore[union-attr]
    for _ in batches.epoch(0):
        assert sum(map(len, base._held.values())) <= 32


def test_a_streamed_set_is_what_it_would_be_in_memory(packed: Path) -> None:
    images = load(f"shards:{packed}", "train", image_size=8, stream=16)
    assert isinstance(images.images, Pixels)
    direct = load(EXPRESSION, "train", image_size=8)
    assert images.statistics() == direct.statistics()
    assert images.counts() == direct.counts()
    training, validation = hold_out(images, 9, seed=0)
    assert training.fingerprint != images.fingerprint != validation.fingerprint
    assert training.images.shape == (111, 1, 8, 8)
    whole = {image.numpy().tobytes() for image in direct.images}
    assert {image.numpy().tobytes() for image in (*training.images[:], *validation.images[:])} == whole


def test_a_streamed_run_that_was_stopped_goes_on_to_the_same_bytes(
    packed: Path, tmp_path: Path, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = streamed(small_recipe, packed, batch_size=16)
    whole = train(recipe, out=tmp_path / "whole", device="cpu", compile="off")

    def stop(trainer: Trainer, heed: Callable[[Trainer], None] = Trainer._heed_clock_and_stop) -> None:
        trainer.stop.requested = trainer.state.updates == 10
        heed(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_heed_clock_and_stop", stop)
        with pytest.raises(Failure, match="stopped after 10 updates"):
            train(recipe, out=tmp_path / "stopped", device="cpu", compile="off", safety=Safety())
    stopped = resume(tmp_path / "stopped", device="cpu")
    assert stopped.weights_path.read_bytes() == whole.weights_path.read_bytes()
    accuracy = evaluate(stopped, splits=["test"], device="cpu").splits["test"].accuracy
    assert accuracy.value > 0.5  # of three classes, after three epochs


def test_what_cannot_be_streamed_is_said(packed: Path, small_recipe: Recipe) -> None:
    for expression in ("digits", f"shards:{packed}+digits:2", f"shards:{packed}@3"):
        with pytest.raises(UserError, match=r"cannot be streamed, only a single shards:URL can: pack it"):
            load(expression, "train", image_size=8, stream=100)
    with pytest.raises(ValueError, match="stream reads shards in their order"):
        derive(small_recipe, name="x", stream=5, sampling={"images_per_epoch": 10, "balance": 1.0})


# ---- what is missing or damaged


def test_a_missing_or_short_shard_is_named_and_left_out_only_if_asked(
    packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = packed / "train-000003.tar"
    short.write_bytes(short.read_bytes()[: short.stat().st_size // 2])
    for stream in (None, 16):
        with pytest.raises(UserError, match=r"train-000003\.tar has [\d,]+ bytes instead of [\d,]+: copy or pack it"):
            load(f"shards:{packed}", "train", image_size=8, stream=stream)
    (packed / "train-000001.tar").unlink()
    for stream in (None, 16):
        with pytest.raises(UserError, match=r"train-000001\.tar is missing \(and 1 more of 8 are incomplete\): "):
            load(f"shards:{packed}", "train", image_size=8, stream=stream)
        images = load(f"shards:{packed}", "train", image_size=8, stream=stream, skip_damaged=True)
        assert len(images.labels) == 120 - 32
        assert "is read without train-000001.tar, train-000003.tar (32 images)" in capsys.readouterr().err
    assert load(f"shards:{packed}", "test", image_size=8).counts() == load(EXPRESSION, "test").counts()


def test_a_changed_shard_is_named(packed: Path) -> None:
    path = packed / "train-000002.tar"
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"train-000002\.tar is damaged \(SHA-256 .* instead of"):
        load(f"shards:{packed}", "train", image_size=8)
    with pytest.raises(UserError, match=r"train-000002\.tar is damaged"):
        load(f"shards:{packed}", "train", image_size=8, stream=16).images[:]
    assert len(load(f"shards:{packed}", "train", image_size=8, skip_damaged=True).labels) == 104


def test_a_wrong_address_is_one_sentence(tmp_path: Path, packed: Path) -> None:
    (tmp_path / "empty").mkdir()
    for url, message in (
        (tmp_path / "empty", "holds no reslab.json: shards:URL reads what reslab data pack"),
        (tmp_path / "nowhere", "holds no reslab.json"),
        ("nonsense://bucket/x", "reslab does not open nonsense: addresses"),
    ):
        with pytest.raises(UserError, match=message):
            load(f"shards:{url}", "train")
    with pytest.raises(UserError, match="holds shards already"):
        pack("digits", str(packed))
    (packed / "train-labels.npy").unlink()
    with pytest.raises(UserError, match=r"train-labels\.npy, the labels of the train split, is missing"):
        load(f"shards:{packed}", "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "is not an index of shards .schema_version"),
        ({"classes": ["a", "a", "b"]}, "names a class twice"),
        ({"classes": ["a"]}, r"should hold 120 labels from 0 to 0"),
        ({"image_shape": [3, 0, 8]}, "is not an index"),
        ({"splits": {}}, "holds no shards of the train split"),
    ],
)
def test_a_wrong_index_is_one_sentence(packed: Path, change: dict[str, Any], message: str) -> None:
    index = json.loads((packed / "reslab.json").read_text()) | change
    (packed / "reslab.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=message):
        load(f"shards:{packed}", "train", image_size=8)


@pytest.mark.parametrize("name", ["../outside.tar", "/etc/passwd", "a/b.tar", "", ".."])
def test_an_index_names_no_file_elsewhere(packed: Path, name: str) -> None:
    index = json.loads((packed / "reslab.json").read_text())
    index["splits"]["train"]["shards"][0]["name"] = name
    (packed / "reslab.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"is not an index of shards \(splits\.train\.shards\.0\.name"):
        load(f"shards:{packed}", "train", image_size=8)


# ---- hostile shards, with an index that vouches for them


def link(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("000000001.png")
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    "member",
    ["../000000001.png", "/000000001.png", "000000001.pyd", "000000001.pickle", "000000001.pth", "x.png", link(b"1"),
     link(b"2"), link(b"3"), link(b"S")],
    ids=lambda member: member if isinstance(member, str) else f"link of type {member.type.decode()}",
)  # fmt: skip
def test_what_is_no_picture_or_label_is_refused(packed: Path, member: str | tarfile.TarInfo) -> None:
    replace_shard(packed, tar((member, b"")))
    with pytest.raises(UserError, match=r"train-000001\.tar (holds .* not a shard file|is not a valid tar)"):
        load(f"shards:{packed}", "train", image_size=8)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_shard_is_not_unpacked(mode: Any) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        info = tarfile.TarInfo("000000001.png")
        info.size = 10_000_000
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(UserError, match="it is not a valid tar archive"):
        read_samples(buffer.getvalue(), where="it")


def test_missing_and_wrong_labels_are_named(packed: Path) -> None:
    members = untar(packed / "train-000001.tar")
    key = members[0][0].split(".")[0]
    without = [(name, content) for name, content in members if name != f"{key}.cls"]
    wrong = [(name, b"7" if name == f"{key}.cls" else content) for name, content in members]
    broken = [(name, b"GIF89a" if name == f"{key}.png" else content) for name, content in members]
    for content, message in (
        (without, f"has no label {key}.cls"),
        (wrong, rf"{key}\.cls is not the label \d that the index has"),
        (broken, rf"{key}\.png cannot be read as a picture"),
        (members[:-2], "holds 15 images instead of 16"),
        ([*members, members[0]], rf"holds {key}\.cls twice"),
        ([(name.replace(key, "000000500"), content) for name, content in members], "twice or beyond"),
    ):
        replace_shard(packed, tar(*content))
        with pytest.raises(UserError, match=rf"train-000001\.tar.*({message})"):
            load(f"shards:{packed}", "train", image_size=8)

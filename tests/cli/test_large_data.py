"""The commands for data that memory does not hold: packed, trained from, kept and cleared away."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]
Refuse = Callable[..., str]


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESLAB_CACHE", str(tmp_path / "cache"))


def pack(reslab: Command) -> Any:
    return reslab("data", "pack", "digits:1,4", "--to", "packed", "--image-size", "8", "--images-per-shard", "100")


def test_pack_show_and_clear(reslab: Command) -> None:
    packed = pack(reslab)
    assert packed.code == 0, packed.err
    assert "train  291 images in 3 shards" in packed.out
    assert "in 1 shard, " in packed.out
    assert "Next: reslab train RECIPE --set data=shards:packed" in packed.out
    shown = [
        json.loads(reslab("data", "show", data, "--image-size", "8", "--json").out)["fingerprints"]
        for data in ("digits:1,4", "shards:packed")
    ]
    assert shown[0] == shown[1]
    listed = json.loads(reslab("data", "cache", "--json").out)
    assert [(each["origin"], each["split"]) for each in listed] == [
        ("shards:packed", "test"),
        ("shards:packed", "train"),
    ]
    table = reslab("data", "cache").out
    assert "291x1x8x8" in table
    assert "0.00 of 100 GB" in table
    assert json.loads(reslab("data", "cache", "--clear", "--json").out)["freed"] > 291 * 64
    assert json.loads(reslab("data", "cache", "--json").out) == []


def test_a_streamed_run_leaves_damaged_shards_out_if_asked(reslab: Command, refuse: Refuse) -> None:
    pack(reslab)
    shard = Path("packed/train-000001.tar")
    shard.write_bytes(shard.read_bytes()[:70_000])
    settings = ["--set", "data=shards:packed", "--set", "validation=0", "--set", "stream=200", "--set", "epochs=1"]
    arguments = ["train", "digits-quick", *settings, "--set", "updates=2", "--set", "batch_size=16"]
    sentence = refuse(*arguments, "--out", "run")
    assert "packed/train-000001.tar has 70,000 bytes instead of" in sentence
    assert "--set skip_damaged=true" in sentence
    done = reslab(*arguments, "--set", "skip_damaged=true", "--out", "run")
    assert done.code == 0, done.err
    assert "packed is read without train-000001.tar (100 images)" in done.err
    (used,) = json.loads(Path("run/environment.json").read_text())["data"]
    assert used["num_images"] == 191


def test_what_cannot_be_packed(reslab: Command, refuse: Refuse) -> None:
    pack(reslab)
    assert "packed holds shards already" in refuse("data", "pack", "digits:1,4", "--to", "packed")
    assert "did you mean 'digits'" in refuse("data", "pack", "digit", "--to", "other")
    assert "cannot be streamed" in refuse("train", "digits-quick", "--set", "stream=10", "--out", "run")
    assert "stream" in refuse("train", "digits-quick", "--set", "stream=0", "--out", "run")

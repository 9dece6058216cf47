"""A pickle that would run code, fed to every command that takes a file: none runs it, none ends with a traceback."""

import io
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reslab.data.sources.catalog import OFFICIAL
from reslab.runs import Run


class Payload:
    """Makes a folder where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def raw(payload: Payload) -> bytes:
    return pickle.dumps(payload, protocol=2)


def as_npz(payload: Payload) -> bytes:
    array, buffer = np.array([payload]), io.BytesIO()
    np.savez(buffer, images=array, labels=array, logits=array, indices=array)
    return buffer.getvalue()


def as_torch(payload: Payload) -> bytes:
    buffer = io.BytesIO()
    torch.save({"stem.weight": payload}, buffer)
    return buffer.getvalue()


PACKS = {"raw": raw, "npz": as_npz, "torch": as_torch}


@pytest.fixture(params=PACKS)
def evil(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[bytes]:
    """A hostile file; the test fails where its code has run."""
    marker = tmp_path / "harmed"
    yield PACKS[request.param](Payload(marker))
    assert not marker.exists()


@pytest.mark.parametrize("read", [pickle.loads, lambda content: torch.load(io.BytesIO(content), weights_only=False)])
def test_the_payload_would_run(tmp_path: Path, read: Callable[[bytes], object]) -> None:
    pack = raw if read is pickle.loads else as_torch
    read(pack(Payload(tmp_path / "harmed")))
    assert (tmp_path / "harmed").exists()


# Each file of a run folder, and the commands that read it.
PARTS = {
    "model.safetensors": (
        "evaluate small",
        "report small",
        "predict small a.png",
        "extend small --with digits:0 --out new",
        "export small --to new.onnx",
        "push small some/one",
    ),
    "recipe.json": ("evaluate small", "report small", "compare small twin", "train --resume small"),
    "environment.json": ("evaluate small", "report small", "compare small twin"),
    "log.jsonl": ("report small", "compare small twin", "track small --to tensorboard:logs"),
    "evaluation.json": ("report small", "compare small twin"),
    "predictions-test.npz": ("report small", "compare small twin"),
    "examples-test.npz": ("report small",),
    "gallery-test.npz": ("report small",),
    "gallery-train.npz": ("report small",),
    "features-test.npz": ("report small",),
    "heatmaps-test.npz": ("report small",),
    "doubts-test.npz": ("report small",),
    "copies-test.npz": ("report small",),
}


@pytest.mark.parametrize(("part", "command"), [(part, each) for part, commands in PARTS.items() for each in commands])
def test_a_part_of_a_run(refuse: Callable[..., str], finished: Run, evil: bytes, part: str, command: str) -> None:
    shutil.copytree("small", "twin")
    (finished.path / part).write_bytes(evil + b"\n")
    said = refuse(*command.split(), untouched="tensorboard" not in command)
    assert part in said


def test_the_checkpoints(refuse: Callable[..., str], finished: Run, evil: bytes) -> None:
    finished.weights_path.unlink()
    for path in (finished.path / "checkpoint").iterdir():
        path.write_bytes(evil)
    assert "cannot be read as a safetensors file" in refuse("train", "--resume", "small")


FILES = {
    "weights alone": ("evil.safetensors", "predict evil.safetensors a.png"),
    "weights of another name": ("evil.pt", "predict evil.pt a.png"),
    "an exported network": ("evil.onnx", "predict evil.onnx a.png"),
    "an exported network to measure": ("evil.onnx", "evaluate small --onnx evil.onnx"),
    "a picture": ("evil.png", "predict small evil.png"),
    "a recipe": ("evil.json", "train evil.json --out new"),
    "a recipe to print": ("evil.json", "recipes evil.json"),
    "a study": ("evil.json", "study run evil.json --out new"),
    "an archive of images": ("evil.npz", "train digits-quick --set data=npz:evil.npz --set validation=0 --out new"),
    "an archive to look at": ("evil.npz", "data show npz:evil.npz"),
    "an archive to learn": ("evil.npz", "extend small --with npz:evil.npz --out new"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file(refuse: Callable[..., str], finished: Run, evil: bytes, case: str) -> None:
    name, command = FILES[case]
    Path(name).write_bytes(evil)
    assert name in refuse(*command.split())


def test_a_folder_of_pictures(refuse: Callable[..., str], finished: Run, evil: bytes) -> None:
    for name in ("ant", "bee"):
        (Path("pictures") / name).mkdir(parents=True)
        for number in range(3):
            (Path("pictures") / name / f"{number}.png").write_bytes(evil + f"{name}{number}".encode())
    assert "cannot be read as a picture" in refuse("data", "show", "folder:pictures")


@pytest.mark.parametrize("pinned", [False, True])
def test_an_official_batch(
    refuse: Callable[..., str], official: Path, build: Any, monkeypatch: pytest.MonkeyPatch, evil: bytes, pinned: bool
) -> None:
    """Refused by its checksum, and where that were the one expected, by an unpickler that knows NumPy arrays only."""
    cifar = OFFICIAL["cifar10"]
    contents = build.contents()["cifar10"] | {"data_batch_1": evil}
    if pinned:
        archive = build.archive(cifar.archive.name, cifar.archive.folder, contents)
        monkeypatch.setitem(OFFICIAL, "cifar10", replace(cifar, archive=archive))
    (official / cifar.archive.folder / "data_batch_1").write_bytes(evil)
    said = refuse("train", "lab-resnet32-short", "--data-dir", official, "--out", "new")
    assert ("data_batch_1 is not an official batch" if pinned else "data_batch_1 is damaged") in said


def test_an_official_archive(refuse: Callable[..., str], official: Path, evil: bytes) -> None:
    cifar = OFFICIAL["cifar10"]
    shutil.rmtree(official / cifar.archive.folder)
    (official / cifar.archive.name).write_bytes(evil)
    said = refuse("train", "lab-resnet32-short", "--data-dir", official, "--out", "new", untouched=False)
    assert "cifar-10-python.tar.gz is damaged" in said


@pytest.mark.parametrize("part", ["model.safetensors", "recipe.json", "environment.json", "log.jsonl"])
def test_a_run_from_the_hub(
    reslab: Callable[..., Any], finished: Run, hub: dict[str, dict[str, bytes]], evil: bytes, part: str
) -> None:
    hub["some/one"] = {
        name: (finished.path / name).read_bytes()
        for name in ("model.safetensors", "recipe.json", "environment.json", "log.jsonl")
    } | {part: evil + b"\n"}
    outcome = reslab("pull", "some/one", "--out", "new")
    assert outcome.code == 2
    assert f"does not hold a valid run: {part}" in outcome.err.splitlines()[-1]  # after the bars of the download
    assert not Path("new").exists()

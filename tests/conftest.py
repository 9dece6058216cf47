"""What the whole suite shares: one thread, a small finished run, tiny official-looking CIFAR files, a hub of models."""

import base64
import hashlib
import io
import json
import os
import shutil
import signal
import struct
import sys
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Matplotlib reads it when it is imported: no settings of a person's, and one list of fonts for every session.
os.environ["MPLCONFIGDIR"] = str(Path(tempfile.gettempdir()) / "reslab-tests-matplotlib")

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from reslab.data.sources.archive import Archive, Member
from reslab.data.sources.catalog import OFFICIAL
from reslab.evaluation import evaluate
from reslab.recipe.networks import PreActResNet
from reslab.recipe.recipe import Linear, Recipe, Sgd, Shift
from reslab.report import write_report
from reslab.runs import Run
from reslab.training import train


@pytest.fixture(scope="session", autouse=True)
def _heeded_interrupts() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would all that the tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Sums in the same order on every machine, and no waiting for a busy core."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the images that tests read away from those of a person."""
    os.environ["RESLAB_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ.pop("COLUMNS", None)  # tests that run beside each other are given one, which sets the width of tables


# ---- a small run


@pytest.fixture(scope="session")
def small_recipe() -> Recipe:
    """Three classes of digits: 111 training, 9 validation and 108 test images; trains in a second."""
    return Recipe(
        name="small",
        source="the tests",
        data="digits:1,4,7@40",
        image_size=8,
        validation=9,
        augment=(Shift(fraction=0.1),),
        model=PreActResNet(depth=8, width=8),
        optimizer=Sgd(peak_lr=0.1, weight_decay=1e-3),
        schedule=Linear(warmup=0.2),
        epochs=3,
        batch_size=20,
    )


@pytest.fixture(scope="session")
def _finished(small_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = train(small_recipe, out=tmp_path_factory.mktemp("finished") / "small")
    evaluate(run, views=2)
    write_report(run)
    return run.path


@pytest.fixture
def finished(_finished: Path, tmp_path: Path) -> Run:
    """A copy of one run that is trained, evaluated with two views, and reported; a test may do to it what it likes."""
    shutil.copytree(_finished, tmp_path / "small")
    return Run.open(tmp_path / "small")


# ---- which files are opened

_opened: list[str] | None = None


def _note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None:
        _opened.append(str(arguments[0]))


sys.addaudithook(_note_opened)  # cannot be taken away again, so it stays and listens only during a test


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Collect the path of every file that the process opens."""
    global _opened
    _opened = []
    yield _opened
    _opened = None


# ---- tiny official-looking CIFAR files


def pickle_as_python2(value: Any) -> bytes:
    """Write what Python 2's pickle wrote at protocol 2: byte strings, and NumPy's names of that time."""
    return b"\x80\x02" + _encode(value) + b"."


def _encode(value: Any) -> bytes:
    match value:
        case bytes():
            return b"T" + struct.pack("<i", len(value)) + value
        case int():
            return b"J" + struct.pack("<i", value)
        case list():
            return b"](" + b"".join(map(_encode, value)) + b"e"
        case dict():
            return b"}(" + b"".join(_encode(key) + _encode(each) for key, each in value.items()) + b"u"
        case np.ndarray():
            return _encode_array(value)
    raise TypeError(value)


def _encode_array(array: NDArray[Any]) -> bytes:
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + _encode(b"b") + b"\x87R"
    kind = b"cnumpy\ndtype\n" + _encode(array.dtype.str[1:].encode()) + b"K\x00K\x01\x87R"
    kind += b"(K\x03" + _encode(array.dtype.str[:1].encode()) + b"NNN" + _encode(-1) * 2 + b"K\x00tb"
    shape = b"(" + b"".join(map(_encode, array.shape)) + b"t"
    return empty + b"(K\x01" + shape + kind + b"\x89" + _encode(array.tobytes()) + b"tb"


def make_archive(name: str, folder: str, contents: Mapping[str, bytes], *, urls: tuple[str, ...] = ()) -> Archive:
    """Describe an archive of `contents`; its own size and checksum are those of `pack`."""
    members = tuple(Member(file, len(data), hashlib.sha256(data).hexdigest()) for file, data in contents.items())
    packed = pack({f"{folder}/{file}": data for file, data in contents.items()})
    return Archive(name, urls, len(packed), hashlib.sha256(packed).hexdigest(), folder, members)


def pack(contents: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    """Make a .tar.gz, always the same bytes for the same contents; a TarInfo stands for itself, without data."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, data in contents.items():
            if isinstance(data, tarfile.TarInfo):
                tar.addfile(data)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    packed = bytearray(buffer.getvalue())
    packed[4:8] = bytes(4)  # the time of packing
    return bytes(packed)


def expect(archive: Archive, packed: bytes) -> Archive:
    """Pin other bytes as the official archive."""
    return replace(archive, num_bytes=len(packed), sha256=hashlib.sha256(packed).hexdigest())


def batch(labels: Mapping[bytes, list[int]], *, seed: int) -> bytes:
    """Make an official batch of random images."""
    num = len(next(iter(labels.values())))
    images = np.random.default_rng(seed).integers(0, 256, (num, 3072), dtype=np.uint8)
    return pickle_as_python2({b"batch_label": b"a tiny batch", **labels, b"data": images})


def official_contents() -> dict[str, dict[str, bytes]]:
    """Make all batches: CIFAR-10 with 10 training and 1 test image a class, CIFAR-100 with 2 and 1."""
    ten = {f"data_batch_{number}": batch({b"labels": list(range(10)) * 2}, seed=number) for number in range(1, 6)}
    ten["test_batch"] = batch({b"labels": list(range(10))}, seed=6)
    hundred = {}
    for name, fine in (("train", list(range(100)) * 2), ("test", list(range(100)))):
        # Not the official superclasses; any numbers below 20 will do.
        hundred[name] = batch({b"fine_labels": fine, b"coarse_labels": [label // 5 for label in fine]}, seed=len(fine))
    return {"cifar10": ten, "cifar100": hundred}


@pytest.fixture(scope="session")
def build() -> SimpleNamespace:
    """Hand the functions above to the tests, which cannot import them from here."""
    return SimpleNamespace(
        archive=make_archive,
        batch=batch,
        contents=official_contents,
        expect=expect,
        pack=pack,
        pickle=pickle_as_python2,
    )


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace the pinned sets by tiny ones whose mirror is absent; returns a folder with their unpacked batches."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, contents in official_contents().items():
        true = OFFICIAL[name].archive
        tiny = make_archive(true.name, true.folder, contents, urls=(f"http://127.0.0.1:9/{true.name}",))
        for variant in (name, f"{name}-coarse"):
            if variant in OFFICIAL:
                monkeypatch.setitem(OFFICIAL, variant, replace(OFFICIAL[variant], archive=tiny))
        (tmp_path / true.folder).mkdir()
        for file, data in contents.items():
            (tmp_path / true.folder / file).write_bytes(data)
    return tmp_path


# ---- a hub of models on this machine


class FakeHub(BaseHTTPRequestHandler):
    """What huggingface_hub asks for when it uploads and downloads small files; `repositories` maps name to files."""

    repositories: dict[str, dict[str, bytes]]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = self.path.split("/")
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.repositories.setdefault(name, {})
            return self._answer({"url": f"http://{self.headers['Host']}/{name}"})
        if self.path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        name = "/".join(parts[3:5])
        if parts[5] == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._answer({"files": files})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return self._answer(
            {"commitUrl": f"http://{self.headers['Host']}/{name}/commit/{'0' * 40}", "commitOid": "0" * 40}
        )

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/")
        parts = path.split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        files = self.repositories.get(name)
        if files is None:
            return self._answer({"error": "Repository not found"}, status=404, error="RepoNotFound")
        if parts[0] == "api" and parts[4:5] == ["tree"]:
            oids = {file: hashlib.sha1(content).hexdigest() for file, content in files.items()}
            listed = [
                {"type": "file", "path": file, "size": len(content), "oid": oids[file]}
                for file, content in files.items()
            ]
            return self._answer(listed)
        if parts[0] == "api":
            siblings = [{"rfilename": file, "size": len(content)} for file, content in files.items()]
            return self._answer({"id": name, "sha": "0" * 40, "siblings": siblings})
        return self._send(files[parts[4]])

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, content: Any, *, status: int = 200, error: str = "") -> None:
        self._send(json.dumps(content).encode(), status=status, error=error)

    def _send(self, content: bytes, *, status: int = 200, error: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        """Stay silent."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, dict[str, bytes]]]:
    """Serve a hub that huggingface_hub takes for the only one; gives the files of each repository."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    repositories: dict[str, dict[str, bytes]] = {}
    handler = type("Handler", (FakeHub,), {"repositories": repositories})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address, constants = f"http://127.0.0.1:{server.server_port}", "huggingface_hub.constants"
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(f"{constants}.ENDPOINT", address)
        monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(f"{constants}.HF_TOKEN_PATH", str(tmp_path / "no-token"))
        yield repositories
        server.shutdown()

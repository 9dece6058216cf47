"""What `fuzz.py` feeds: for everything that is read from outside, a few sound files and what reads them."""

import gzip
import hashlib
import io
import json
import pickle
import shutil
import socketserver
import tarfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from reslab import models
from reslab.data import expression as select
from reslab.data.pictures import decode
from reslab.data.sources.archive import Archive, Member, unpack
from reslab.data.sources.catalog import CIFAR10_CLASSES, Cifar
from reslab.data.sources.cifar import read_cifar
from reslab.data.sources.fetch import fetch
from reslab.data.sources.npz import open_npz
from reslab.models.layers import ImageClassifier
from reslab.network.network import Network
from reslab.recipe.networks import FastConv
from reslab.recipe.recipe import Standardize, read_recipe
from reslab.recipe.settings import with_settings
from reslab.recipe.shipped import RECIPES
from reslab.records import Epoch, Estimate, PriorChoice, PriorPoint, Weights
from reslab.runs import Run
from reslab.runs.checkpoints import sign
from reslab.runs.files import read_safetensors, to_safetensors
from reslab.training.environment import describe_environment
from reslab.training.state import State, capture, restore

SERVED = bytes(range(256)) * 4
WEIGHTS = Weights(
    model=FastConv(widths=(8, 8, 8)),
    classes=("ant", "bee"),
    channels=1,
    image_size=9,
    standardize=Standardize(mean=(1.5,), std=(2.5,)),
)


class Target(NamedTuple):
    """Sound files, and what reads one of them, given its bytes and a folder of its own."""

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], object]


def file(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def as_text(content: bytes) -> str:
    """Make text of bytes, since metadata hold nothing else."""
    return content.decode(errors="replace")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# ---- official batches and archives, as if these bytes were the ones expected


def batches() -> list[bytes]:
    """Pickle batches by the names that NumPy had at the time; the second one asks for more than that."""
    images = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)
    sound = pickle.dumps({b"data": images, b"labels": [3, 9]}, protocol=3)
    sound = sound.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    return [sound, sound.replace(b"cnumpy\nndarray\n", b"cos\nsystem\n"), pickle.dumps({b"labels": [3]}, protocol=0)]


def read_batch(content: bytes, folder: Path) -> object:
    archive = Archive("set.tar.gz", (), 0, "", "set", (Member("batch", len(content), digest(content)),))
    file(folder, "set/batch", content)
    cifar = Cifar(archive, ("batch",), ("batch",), b"labels", CIFAR10_CLASSES)
    return read_cifar(cifar, split="train", data_dir=folder)


MEMBERS = {"batch": b"a batch" * 99, "meta": b"{}"}


def tars() -> list[bytes]:
    hostile = []
    for name, kind, link in (
        ("../../evil", tarfile.REGTYPE, ""),
        ("set/batch", tarfile.SYMTYPE, "/etc/passwd"),
        ("set/batch", tarfile.LNKTYPE, "../../evil"),
        ("set/batch", tarfile.CHRTYPE, ""),
        ("set", tarfile.SYMTYPE, "/tmp"),
    ):
        hostile.append(tarfile.TarInfo(name))
        hostile[-1].type, hostile[-1].linkname = kind, link
    layouts: list[list[tarfile.TarInfo]] = [[], hostile, hostile[1:2]]
    found = []
    for style in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        for before in layouts:
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w", format=style) as tar:
                for info in before:
                    tar.addfile(info)
                for name, data in MEMBERS.items():
                    info = tarfile.TarInfo(f"set/{name}")
                    info.size, info.pax_headers = len(data), {"comment": "é" * 40}
                    tar.addfile(info, io.BytesIO(data))
            found.append(buffer.getvalue().rstrip(b"\0") + bytes(1024))
    return found


def archives() -> list[bytes]:
    return [gzip.compress(tar, 1) for tar in tars()] + [gzip.compress(bytes(50_000_000), 9)]


def read_archive(content: bytes, folder: Path) -> None:
    members = tuple(Member(name, len(data), digest(data)) for name, data in MEMBERS.items())
    shutil.rmtree(folder / "set", ignore_errors=True)
    file(folder, "set.tar.gz", content)
    unpack(Archive("set.tar.gz", (), len(content), digest(content), "set", members), folder)


# ---- pictures and arrays


def pictures() -> list[bytes]:
    random = np.random.default_rng(0)
    colour = Image.fromarray(random.integers(0, 256, (12, 10, 3), dtype=np.uint8))
    deep = Image.fromarray(random.integers(0, 65536, (12, 10), dtype=np.uint16))
    turned = Image.Exif()
    turned[0x0112] = 6
    see_through = Image.merge("RGBA", (*colour.split(), colour.split()[0]))
    ways: list[tuple[Image.Image, str, dict[str, Any]]] = [
        *(
            (colour, kind, {})
            for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "JPEG2000")
        ),
        (see_through, "PNG", {}),
        (see_through, "WEBP", {"lossless": True}),
        (deep, "PNG", {}),
        (deep, "TIFF", {}),
        (colour.convert("CMYK"), "JPEG", {}),
        (colour.convert("CMYK"), "TIFF", {"compression": "tiff_lzw"}),
        (colour.convert("P"), "PNG", {"transparency": 3}),
        (colour, "JPEG", {"exif": turned}),
        (colour, "GIF", {"save_all": True, "append_images": [colour.rotate(90)]}),
        (colour, "PNG", {"save_all": True, "append_images": [colour.rotate(90)]}),
        (colour.convert("1"), "TIFF", {"compression": "group4"}),
        (Image.new("L", (60_000, 1)), "PNG", {}),
        (colour, "EPS", {}),
        (colour, "PDF", {}),
    ]
    found = []
    for image, kind, options in ways:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        found.append(buffer.getvalue())
    return found


def read_picture(content: bytes, folder: Path) -> object:
    return decode(file(folder, "picture", content), image_size=8)


def arrays() -> list[bytes]:
    images, labels = np.arange(6 * 16, dtype=np.uint8).reshape(6, 4, 4), np.arange(6) % 2
    found = []
    for contents in (
        {"images": images, "labels": labels},
        {"images": images[..., None], "labels": labels[:, None].astype(np.uint64), "classes": np.array(["ant", "bee"])},
        {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels},
        {"logits": np.ones((6, 2), np.float32), "labels": labels},
    ):
        for save in (np.savez, np.savez_compressed):
            buffer = io.BytesIO()
            save(buffer, **contents)  # type: ignore[arg-type]
            found.append(buffer.getvalue())
    return found


def read_arrays(content: bytes, folder: Path) -> object:
    path = file(folder, "it.npz", content)
    return [list(open_npz(path, split="train").blocks), list(open_npz(path, split="test").blocks)]


def read_predictions(content: bytes, folder: Path) -> object:
    file(folder, "predictions-test.npz", content)
    return Run(folder).read_predictions("test")


# ---- networks


@cache
def network() -> ImageClassifier:
    torch.manual_seed(0)
    return models.build(WEIGHTS.model, num_classes=2, channels=1)


def tensors() -> dict[str, Any]:
    return {name: value.numpy() for name, value in network().state_dict().items()}


def weights() -> list[bytes]:
    return [to_safetensors(tensors(), {"reslab": WEIGHTS.model_dump_json()})]


def read_network(content: bytes, folder: Path) -> object:
    return Network.load(file(folder, "model.safetensors", content), device="cpu")


def descriptions() -> list[bytes]:
    kinds = [RECIPES[name].model for name in ("lab-resnet32", "resnet-20", "plain-20")]
    return [WEIGHTS.model_copy(update={"model": model}).model_dump_json().encode() for model in (WEIGHTS.model, *kinds)]


def read_description(content: bytes, folder: Path) -> object:
    """Read sound weights that say something else of themselves."""
    return read_network(to_safetensors(tensors(), {"reslab": as_text(content)}), folder)


def make_state() -> State:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return State(model, optimizer, losses=torch.zeros(2), hits=torch.zeros(2, dtype=torch.int64))


def checkpoints() -> list[bytes]:
    found = capture(make_state())
    return [to_safetensors(found.tensors, sign(found.tensors, json.dumps(found.state)))]


def read_checkpoint(content: bytes, folder: Path) -> None:
    """Read a checkpoint whose checksum holds, whatever it holds: an enemy can compute one too."""
    path = file(folder, "checkpoint/newest.safetensors", content)
    found, metadata = read_safetensors(path)
    file(folder, "checkpoint/newest.safetensors", to_safetensors(found, sign(found, metadata.get("state", "{}"))))
    restore(make_state(), Run(folder).read_checkpoint())


def states() -> list[bytes]:
    return [json.dumps(capture(make_state()).state).encode()]


def read_state(content: bytes, folder: Path) -> None:
    found = capture(make_state()).tensors
    file(folder, "checkpoint/newest.safetensors", to_safetensors(found, sign(found, as_text(content))))
    restore(make_state(), Run(folder).read_checkpoint())


# ---- text


def recipes() -> list[bytes]:
    return [recipe.model_dump_json().encode() for recipe in RECIPES.values()]


def settings() -> list[bytes]:
    return [
        b"epochs=10",
        b"optimizer.peak_lr=0.2",
        b'schedule={"kind": "linear", "warmup": 0.2}',
        b"augment.0.kind=crop",
        b"model.kind=resnet",
        b"updates=null",
        b"model.depth=14",
    ]


def environments() -> list[bytes]:
    return [describe_environment(device=torch.device("cpu"), seed=0, data=()).model_dump_json().encode()]


def logs() -> list[bytes]:
    epoch = Epoch(
        epoch=1, updates=1, seconds=1, images_per_second=1, learning_rate=0.1, train_loss=1, train_accuracy=0.5
    )
    return [epoch.model_dump_json().encode()]


def priors() -> list[bytes]:
    half = Estimate(value=0.5, low=0.25, high=0.75)
    point = PriorPoint(tau=0.5, accuracy=half, macro_precision=half, macro_recall=half, macro_f1=half)
    return [PriorChoice(tau=0.5, curve=(point,)).model_dump_json().encode()]


def read_log(content: bytes, folder: Path) -> object:
    file(folder, "log.jsonl", content + b"\n")
    return Run(folder).log


def read_setting(content: bytes, folder: Path) -> object:
    return with_settings(RECIPES["lab-resnet32"], [content.decode(errors="surrogateescape")])


def expressions() -> list[bytes]:
    return [
        b"cifar10+cifar100:reptiles",
        b"digits:0-6@20+digits:7,8@0",
        b"cifar100-coarse",
        b"folder:a+b@5",
        b"npz:x.npz+digits",
    ]


def read_expression(content: bytes, folder: Path) -> object:
    text = content.decode(errors="surrogateescape")
    return select.join_expressions(text, "cifar10:cat@1", old_limit=3)


# ---- answers of a mirror


class Mirror(socketserver.BaseRequestHandler):
    """Sends the same bytes to everyone."""

    answer = b""

    def handle(self) -> None:
        self.request.settimeout(5)
        try:
            while not self.request.recv(65_536).endswith(b"\r\n\r\n"):
                pass
            self.request.sendall(type(self).answer)
        except OSError:
            pass  # the other side has had enough


@cache
def mirror() -> int:
    """Start one on this machine, and give its port."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mirror)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port: int = server.server_address[1]
    return port


def answers() -> list[bytes]:
    size = f"Content-Length: {len(SERVED)}\r\n".encode()
    return [
        b"HTTP/1.1 200 OK\r\n" + size + b"Connection: close\r\n\r\n" + SERVED,
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1023/1024\r\n" + size + b"\r\n" + SERVED,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + size + b"\r\n400\r\n" + SERVED + b"\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n" + size + b"\r\n" + gzip.compress(SERVED),
        b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 4\r\n\r\nwait",
    ]


def read_answer(content: bytes, folder: Path) -> None:
    Mirror.answer = content
    archive = Archive("set.bin", (f"http://127.0.0.1:{mirror()}/",), len(SERVED), digest(SERVED), "set", ())
    fetch(archive, folder, timeout=(1.0, 1.0))


TARGETS: dict[str, Target] = {
    "official batches": Target(batches, read_batch),
    "archives": Target(archives, read_archive),
    "archives, inside": Target(tars, lambda content, folder: read_archive(gzip.compress(content, 1), folder)),
    "pictures": Target(pictures, read_picture),
    "npz of images": Target(arrays, read_arrays),
    "npz of predictions": Target(lambda: arrays()[::-1], read_predictions),
    "weights": Target(weights, read_network),
    "weights, described": Target(descriptions, read_description),
    "checkpoints": Target(checkpoints, read_checkpoint),
    "checkpoints, facts": Target(states, read_state),
    "recipes": Target(recipes, lambda content, folder: read_recipe(file(folder, "recipe.json", content))),
    "settings": Target(settings, read_setting),
    "environments": Target(
        environments, lambda content, folder: (file(folder, "environment.json", content), Run(folder).environment)
    ),
    "priors": Target(priors, lambda content, folder: (file(folder, "prior.json", content), Run(folder).prior)),
    "logs": Target(logs, read_log),
    "data expressions": Target(expressions, read_expression),
    "answers of a mirror": Target(answers, read_answer),
}

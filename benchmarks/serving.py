"""`reslab serve` under load: pictures of concurrent clients computed together, against each one alone.

Servers of the same network are asked in turn by the same clients, in another process on the same machine, round by
round: one that computes pictures together, the same one with batches of one, and the one that most people write. Then
many clients at once, and clients that are slow beside others. The load average says how busy the machine was before.

    python benchmarks/serving.py --rounds 9          writes benchmarks/serving.json
"""

import argparse
import asyncio
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import requests
import torch
from alternate import compare
from PIL import Image
from record import write_record
from single_image_server import serve_single_images

from reslab import models
from reslab.machine.launch import choose_settings
from reslab.network.network import Network
from reslab.recipe.networks import MODELS
from reslab.recipe.recipe import Standardize
from reslab.records import Weights

BY_HAND = "by hand"  # see single_image_server.py
SERVERS = {"batched": 64, "one by one": 1, BY_HAND: 1}  # the largest batch of each
CLIENTS, BURST, SLOW = 32, 1000, 200


# ---- the servers


def write_weights(folder: Path, *, name: str) -> Path:
    """Write a network with fresh weights: how it answers is not measured, only when."""
    torch.manual_seed(0)
    options = MODELS[name]
    model = models.build(options, num_classes=10)
    scale = Standardize(mean=(125.0, 123.0, 114.0), std=(63.0, 62.0, 67.0))
    classes = tuple(f"class {number}" for number in range(10))
    weights = Weights.model_validate(
        {"model": options, "classes": classes, "channels": 3, "image_size": 32, "standardize": scale}
    )
    Network(model, weights).save(folder / "model.safetensors")
    return folder / "model.safetensors"


def serve(weights: Path, *, largest_batch: int) -> None:
    """Be a server; the first line of the output is its address."""
    from reslab.serving.app import Access, serving_app
    from reslab.serving.served import Served
    from reslab.serving.server import run
    from reslab.serving.service import Service

    network = Served(weights, name="network")
    app = serving_app(lambda metrics: Service([network], metrics=metrics, largest_batch=largest_batch), access=Access())
    run(app, address=("127.0.0.1", 0), say=lambda url: print(url, flush=True))


def start(stack: ExitStack, weights: Path, server: str) -> int:
    """Start a server that ends with `stack`; its port."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--serve", server, "--weights", str(weights)],
        env={**os.environ, **choose_settings()},
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    assert process.stdout is not None
    return int(process.stdout.readline().strip().rpartition(":")[2])


# ---- the clients


def make_request() -> bytes:
    """Write a request with one picture of 64x64 pixels, as PNG in a form."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((64, 64)).save(buffer, "PNG")
    start, end = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n', b"\r\n--b--\r\n"
    body = start + buffer.getvalue() + end
    head = "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, float]:
    """Send a request; the status of the answer, and the seconds until it was there."""
    began = time.perf_counter()
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    size = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    await reader.readexactly(int(size.partition(b":")[2]))
    return int(head.split(b" ", 2)[1]), time.perf_counter() - began


async def load(port: int, request: bytes, *, num: int) -> list[float]:
    """Ask `num` times by CLIENTS connections, each of which asks again when it is answered; seconds of each."""
    left, taken = iter(range(num)), []

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in left:
            status, seconds = await exchange(reader, writer, request)
            assert status == 200, status
            taken.append(seconds)
        writer.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return taken


async def burst(port: int, request: bytes) -> dict[str, Any]:
    """Let BURST clients connect and ask at the same moment."""

    async def client() -> tuple[int, float]:
        began = time.perf_counter()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            status, _ = await exchange(reader, writer, request)
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            status = 0
        return status, time.perf_counter() - began

    found = await asyncio.gather(*(client() for _ in range(BURST)))
    return {
        "clients": BURST,
        "answers": {str(status): count for status, count in Counter(status for status, _ in found).items()},
        **milliseconds([seconds for _, seconds in found]),
    }


async def beside_slow(port: int, request: bytes, *, num: int) -> list[float]:
    """Ask as `load` does while SLOW connections send a byte of their request now and then."""
    slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(SLOW)]

    async def dribble() -> None:
        for place in range(len(request)):
            for _, writer in slow:
                writer.write(request[place : place + 1])
            await asyncio.sleep(0.5)

    task = asyncio.create_task(dribble())
    taken = await load(port, request, num=num)
    task.cancel()
    for _, writer in slow:
        writer.close()
    return taken


# ---- figures


def mean_batch(port: int) -> float:
    """Read from a server's metrics how many pictures it has computed at once, in the mean."""
    text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30, proxies={"http": ""}).text
    found = dict(line.split() for line in text.splitlines() if line.startswith("reslab_batch_pictures_"))
    return round(float(found["reslab_batch_pictures_sum"]) / float(found["reslab_batch_pictures_count"]), 1)


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """Say when half of the answers were there, and when nearly all."""
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50_ms": round(1000 * cuts[49], 1), "p99_ms": round(1000 * cuts[98], 1)}


def measure(
    ways: Mapping[str, Callable[[], Awaitable[list[float]]]], *, rounds: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take every way in turn; figures of each, and how many times longer each of the others took than the first."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    answers: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            taken = asyncio.run(_wait(way()))
            if number > 0:  # the first one warms up
                times[name].append((time.perf_counter() - began) / len(taken))
                answers[name] += taken
    first, *others = times
    figures = {
        name: {"pictures_per_second": round(1 / statistics.median(times[name]), 1), **milliseconds(answers[name])}
        for name in ways
    }
    return figures, {name: compare(times[name], times[first]) for name in others}


async def _wait(awaitable: Awaitable[list[float]]) -> list[float]:
    return await awaitable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=640, help="of a round")
    parser.add_argument("--model", default="preact_resnet32", choices=MODELS)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve == BY_HAND:
        serve_single_images(arguments.weights)
        return
    if arguments.serve is not None:
        serve(arguments.weights, largest_batch=SERVERS[arguments.serve])
        return
    request, num = make_request(), arguments.requests
    busy = os.getloadavg()[0]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        weights = write_weights(folder, name=arguments.model)
        ports = {server: start(stack, weights, server) for server in SERVERS}
        ways = {server: lambda port=port: load(port, request, num=num) for server, port in ports.items()}
        servers, ratio = measure(ways, rounds=arguments.rounds)
        port = ports["batched"]
        together = mean_batch(port)
        after_burst = asyncio.run(burst(port, request))
        beside, slower = measure(
            {
                "alone": lambda: load(port, request, num=num),
                f"beside {SLOW} slow clients": lambda: beside_slow(port, request, num=num),
            },
            rounds=max(2, arguments.rounds // 3),
        )
    result = {
        "model": arguments.model,
        "load_average_before": round(busy, 1),
        "clients": CLIENTS,
        "requests_of_a_round": num,
        "rounds": arguments.rounds,
        "servers": servers,
        "times_faster_together_than": ratio,
        "pictures_of_a_batch": together,
        "burst": after_burst,
        "slow_clients": {**beside, "times_slower": slower},
    }
    write_record(arguments.out, result)


if __name__ == "__main__":
    main()

"""A served run and a picture; a server behind a real socket."""

import contextlib
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image
from sklearn.datasets import load_digits

from reslab.runs import Run
from reslab.serving.app import Access, serving_app
from reslab.serving.decoding import Decoders
from reslab.serving.served import Served
from reslab.serving.server import Patient
from reslab.serving.service import Service


def _to_png(digit: int) -> bytes:
    digits = load_digits()
    pixels = digits.images[digits.target == digit][0] * 255 / 16
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype("uint8")).resize((80, 80)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def seven() -> bytes:
    """A picture of a seven, PNG."""
    return _to_png(7)


@pytest.fixture(scope="session")
def one() -> bytes:
    return _to_png(1)


@pytest.fixture
def make_app(finished: Run) -> Callable[..., FastAPI]:
    """Make an app of the small run, named `small`; `twice` serves it as two."""

    def make(*, twice: bool = False, neighbours: int = 0, access: Access | None = None, **options) -> FastAPI:
        served = [Served(finished.path, name=name) for name in ("small", "again")[: 1 + twice]]
        return serving_app(
            lambda metrics: Service(served, metrics=metrics, decoders=Decoders(num=1), **options),
            access=access or Access(),
            neighbours=neighbours,
        )

    return make


@pytest.fixture
def listen() -> Iterator[Callable[[FastAPI], int]]:
    """Serve an app at a free port of this machine, given back."""
    with contextlib.ExitStack() as stack:

        def start(app: FastAPI) -> int:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=2048))
            server = uvicorn.Server(uvicorn.Config(app, http=Patient, ws="none", log_level="critical"))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()

            def stop() -> None:
                server.should_exit = True
                thread.join(10)

            stack.callback(stop)
            while not server.started:
                time.sleep(0.01)
            return listener.getsockname()[1]

        yield start

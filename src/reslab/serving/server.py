"""Serve an app on a socket until it is told to stop."""

import asyncio
import errno
import ipaddress
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from reslab.data.recipe_data import check_remote
from reslab.errors import UserError
from reslab.runs import Run
from reslab.serving.app import HOSTS, Access, serving_app
from reslab.serving.dashboard import dashboard_app
from reslab.serving.served import Served
from reslab.serving.service import Service

HEADER_SECONDS, HEADER_BYTES = 10.0, 64 << 10
MAX_PIPELINED = 16  # requests on a connection that wait for an earlier one
GRACE_SECONDS = 30  # to finish open requests when the server is told to stop
BACKLOG = 2048  # connections that the system queues until they are accepted
SHORTEST_TOKEN = 12


class Patient(HttpToolsProtocol):
    """A connection that closes if the head of a request takes too long, or if bytes outside of the body are too many.

    Those are the head, chunk sizes and the trailer; uvicorn limits none of them, nor the number of pipelined requests.
    """

    _timer: asyncio.TimerHandle | None = None
    _reads_head = False
    _body_bytes = _other_bytes = 0  # of the request that is being read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        self._other_bytes += len(data)
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop()

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            self.transport.close()
            raise RuntimeError("too many requests at once")  # makes the parser leave the rest unread
        super().on_message_begin()
        self._reads_head, self._body_bytes, self._other_bytes = True, 0, 0

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._reads_head = False

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._body_bytes += len(body)
        self._other_bytes -= len(body)

    def _watch(self) -> None:
        """Limit the bytes outside of the body, and the time for the head; bodies have limits of their own."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if self._other_bytes > HEADER_BYTES + self._body_bytes:
            self._stop()
            self.transport.close()
        elif is_answering and not self._reads_head:  # the next head may come while a request is being answered
            self._stop()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def serve_runs(
    paths: Sequence[Path],
    *,
    access: Access,
    address: tuple[str, int],
    neighbours: int,
    data_dir: Path | None,
    allow_remote: bool,
    device: str,
    say: Callable[[str], None],
) -> None:
    """Classify pictures by these runs until interrupted. Raises: UserError if one has no finished network."""
    names = [Run(path).name for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    served = [Served(path, name=name, device=device) for path, name in zip(paths, names, strict=True)]
    _check_pictures(served)
    _check_remote(served, allow_remote=allow_remote, say=say)
    app = serving_app(
        lambda metrics: Service(served, metrics=metrics),
        access=access,
        neighbours=neighbours,
        data_dir=data_dir,
        allow_remote=allow_remote,
    )
    run(app, address=address, say=lambda url: say(f"{' and '.join(names)} at {url}: open it in a browser"))


def serve_dashboard(folder: Path, *, access: Access, address: tuple[str, int], say: Callable[[str], None]) -> None:
    """Show the runs below a folder until interrupted. Raises: UserError if it is not a folder."""
    app = dashboard_app(folder, access=access)
    run(app, address=address, say=lambda url: say(f"The runs in {folder} at {url}: open it in a browser"))


def _check_pictures(served: Sequence[Served]) -> None:
    for each in served:
        if each.network.channels not in (1, 3):
            raise UserError(
                f"{each.name} is for images of {each.network.channels} channels: pictures are grey or RGB, with 1 or 3"
            )


def _check_remote(served: Sequence[Served], *, allow_remote: bool, say: Callable[[str], None]) -> None:
    """Report the addresses that a run's recipe would have contacted; the run is served without its own images."""
    for each in served:
        try:
            if each.run is not None:
                check_remote(each.run.recipe.data, of="its recipe", allow_remote=allow_remote)
        except UserError as error:
            say(f"{each.name} is served without its own images: {error}")


def make_access(host: str, *, token: str | None) -> Access:
    """Decide who may send requests. Raises: UserError if others could without a token, or with a guessable one."""
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise UserError(
            f"--token has {len(token)} characters, which can be guessed: use {SHORTEST_TOKEN} or more, for example "
            f"{secrets.token_urlsafe(16)}"
        )
    if token is not None and not (token.isascii() and token.isprintable() and token == token.strip()):
        raise UserError(
            "--token has letters that a browser cannot send: use ASCII letters, digits and signs, with no blank around"
        )
    if token is None and not _is_this_machine(host):
        raise UserError(
            f"--host {host} opens the server to others: add --token, for example --token {secrets.token_urlsafe(16)}, "
            "or omit --host"
        )
    named = f"[{host}]" if ":" in host else host
    return Access(token=token, hosts=(*HOSTS, named))


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def run(app: FastAPI, *, address: tuple[str, int], say: Callable[[str], None]) -> None:
    """Serve the app until interrupted; `say` gets the URL. Raises: UserError if it cannot listen on the address."""
    host, port = address
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        option = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        raise UserError(f"cannot listen on {host}:{port} ({error.strerror}): choose another {option}") from None
    _allow_many_connections()
    config = uvicorn.Config(
        app,
        http=Patient,
        ws="none",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    with listener, suppress(KeyboardInterrupt):  # uvicorn raises it again once everything is closed
        say(f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[listener])


def _allow_many_connections() -> None:
    """Raise the limit of open files to what the system allows; each connection is one."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS reports an infinite limit, and refuses it
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

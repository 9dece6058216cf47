"""Middleware in front of the app: who may send requests, how large they may be, and how long sending may take."""

import asyncio
import hmac
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Pages hold no secrets, and a page must load before it can send a token; the token protects what pages request.
OPEN = ("/", "/docs", "/openapi.json", "/healthz")
FOREIGN = (
    "This request comes from a page of another site: use this server's own page, and let a proxy pass on the header "
    "Host or Sec-Fetch-Site"
)
CLOSE = {"Connection": "close"}  # after an early answer, since more of the upload may follow
DROPPED = 64 << 20  # bytes of a refused upload that are read, so that the client hears the answer


@dataclass(frozen=True)
class Limits:
    """The most bytes of one body, of all bodies being read, and the most seconds that reading one may take."""

    body_bytes: int = 16 << 20
    all_bodies_bytes: int = 256 << 20
    body_seconds: float = 20.0


class Guard:
    """ASGI middleware; `note` gets the path, status and seconds of every request."""

    def __init__(
        self, app: ASGIApp, *, limits: Limits, token: str | None, note: Callable[[str, int, float], None]
    ) -> None:
        self.app, self.limits, self.note = app, limits, note
        self._expected = None if token is None else f"Bearer {token}".encode()
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), [499]  # 499: the client has left without an answer

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        body = _Body(self, receive)
        try:
            await self._answer(scope, body, watch)
        except ClientDisconnect:
            pass
        finally:
            self._held -= body.size
            self.note(scope["path"], status[0], time.perf_counter() - began)

    async def _answer(self, scope: Scope, body: "_Body", send: Send) -> None:
        headers = dict(scope["headers"])
        refusal = self._find_refusal(scope["path"], headers)
        if refusal is None:
            await self.app(scope, body.receive, send)
            return
        if b"expect" not in headers:  # else the client waits for an answer before it sends
            await body.drop()
        await refusal(scope, body.receive, send)

    def _find_refusal(self, path: str, headers: Mapping[bytes, bytes]) -> JSONResponse | None:
        if not self._is_allowed(path, headers.get(b"authorization", b"")):
            refusal = _refuse(HTTPStatus.UNAUTHORIZED, "A token is needed: send the header Authorization: Bearer TOKEN")
            refusal.headers["WWW-Authenticate"] = "Bearer"
            return refusal
        if self._expected is None and path not in OPEN and _is_foreign(headers):
            return _refuse(HTTPStatus.FORBIDDEN, FOREIGN)
        announced = headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced[:20]) > self.limits.body_bytes:
            return _refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self.too_large)
        return None

    def _is_allowed(self, path: str, given: bytes) -> bool:
        return self._expected is None or path in OPEN or hmac.compare_digest(given, self._expected)

    @property
    def too_large(self) -> str:
        return f"A request may hold at most {self.limits.body_bytes >> 20} MB: send smaller pictures, or fewer at once"

    def hold(self, size: int) -> None:
        """Count bytes held in memory. Raises: HTTPException if they are too many."""
        self._held += size
        if self._held > self.limits.all_bodies_bytes:
            raise HTTPException(503, "Too many uploads at once: try again later", headers={"Retry-After": "1", **CLOSE})


class _Body:
    """One request's body while it is read."""

    def __init__(self, guard: Guard, receive: Receive) -> None:
        self.size = 0
        self._guard, self._receive = guard, receive
        self._deadline = time.monotonic() + guard.limits.body_seconds
        self._is_complete = False

    async def receive(self) -> Message:
        """Return the next message. Raises: HTTPException if the body is too large or too slow."""
        if self._is_complete:  # all that can follow is a disconnect
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._deadline - time.monotonic()))
        except TimeoutError:
            seconds = self._guard.limits.body_seconds
            raise HTTPException(408, f"The upload took longer than {seconds:g} seconds", headers=CLOSE) from None
        size = len(message.get("body", b""))
        self.size += size
        self._is_complete = not message.get("more_body", False)
        try:
            self._guard.hold(size)
            if self.size > self._guard.limits.body_bytes:
                raise HTTPException(413, self._guard.too_large, headers=CLOSE)
        except HTTPException:
            await self.drop()
            raise
        return message

    async def drop(self) -> None:
        """Read the rest and forget it, up to a limit: closing a connection with unread bytes would lose the answer."""
        dropped = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(self._deadline - time.monotonic()):
                while not self._is_complete and dropped < DROPPED:
                    message = await self._receive()
                    dropped += len(message.get("body", b""))
                    self._is_complete = not message.get("more_body", False)


def _is_foreign(headers: Mapping[bytes, bytes]) -> bool:
    """Tell whether a browser sends this request for another site's page: a form of any site may post here.

    Browsers compare the origins themselves, so their verdict also holds behind a proxy. Old ones only send the page's.
    """
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if site is not None:
        return site not in (b"same-origin", b"none")
    return origin is not None and origin.partition(b"://")[2] != headers.get(b"host")


def _refuse(status: HTTPStatus, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers=CLOSE)

"""The app: its addresses, its pages, and the guard before them."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException as PlainHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from reslab import __version__
from reslab.data.pictures import MAX_PIXELS
from reslab.errors import UserError
from reslab.serving.decoding import Uploaded
from reslab.serving.examples import find_examples
from reslab.serving.guard import Guard, Limits
from reslab.serving.metrics import Metrics
from reslab.serving.pages import Page, render
from reslab.serving.schema import MAX_PICTURES, Example, Model, PredictResponse, Problem, Upload
from reslab.serving.served import Asked
from reslab.serving.service import Service, describe
from reslab.serving.turns import Busy
from reslab.serving.uploads import read_uploads

T = TypeVar("T")

PROBLEMS: dict[int | str, dict[str, Any]] = {code: {"model": Problem} for code in (401, 403, 408, 413, 422, 503)}
# FastAPI knows bodies of one kind; here are two.
FILES = {
    "type": "object",
    "required": ["files"],
    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
}
JSON = {
    "type": "object",
    "required": ["pictures"],
    "properties": {"pictures": {"type": "array", "items": Upload.model_json_schema()}},
}
BODIES = {"content": {"multipart/form-data": {"schema": FILES}, "application/json": {"schema": JSON}}, "required": True}


@dataclass(frozen=True)
class Access:
    """Who may ask: everybody who knows the `token`, or without one everybody who calls the server by one of `hosts`.

    A page of somebody else's that has its own name point to this machine is then refused (DNS rebinding).
    """

    token: str | None = None
    hosts: Sequence[str] = ("127.0.0.1", "localhost", "[::1]", "testserver")
    limits: Limits = field(default_factory=Limits)


def serving_app(
    service_of: Callable[[Metrics], Service],
    *,
    access: Access,
    neighbours: int = 0,
    data_dir: Path | None = None,
    allow_remote: bool = False,
) -> FastAPI:
    """Make the app that answers for pictures, with that many training images to find the nearest ones among."""
    metrics = Metrics()
    service = service_of(metrics)
    return build_app(
        "predict",
        router=_answering(service, access.limits),
        access=access,
        metrics=metrics,
        lifespan=lambda _: service.running(neighbours=neighbours, data_dir=data_dir, allow_remote=allow_remote),
    )


def build_app(
    page: Page,
    *,
    router: APIRouter,
    access: Access,
    metrics: Metrics,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
) -> FastAPI:
    """Put pages, addresses and guard around a router."""
    app = FastAPI(
        title="reslab",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,  # what a generated client calls its functions
    )
    # The guard checks the token before anything is read; this only says so in openapi.json.
    bearer = [Depends(HTTPBearer(auto_error=False, description="The server's token."))] if access.token else []
    app.include_router(router, dependencies=bearer)
    _add_page(app, "/", page)
    _add_page(app, "/docs", "docs")

    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> str:
        """Say that the server answers."""
        return "ok"

    @app.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> bytes:
        """Give figures for Prometheus."""
        return metrics.render()

    app.add_exception_handler(PlainHTTPException, _point_to_docs)
    if access.token is None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(access.hosts))
    app.add_middleware(Guard, limits=access.limits, token=access.token, note=metrics.note_request)
    return app


async def _point_to_docs(request: Request, error: Exception) -> Response:
    """Say where the addresses are listed, where none fits; other refusals have a sentence of their own."""
    assert isinstance(error, PlainHTTPException)
    if error.status_code in (404, 405) and error.detail == HTTPStatus(error.status_code).phrase:
        error.detail = f"{request.method} {request.url.path[:100]} is no address of this server: see /docs"
    return await http_exception_handler(request, error)


def _add_page(app: FastAPI, path: str, page: Page) -> None:
    rendered = render(page)

    @app.get(path, response_class=HTMLResponse, include_in_schema=False, name=page)
    async def show() -> HTMLResponse:
        return HTMLResponse(rendered.html, headers={"Content-Security-Policy": rendered.policy})


def _answering(service: Service, limits: Limits) -> APIRouter:
    router = APIRouter(prefix="/v1", responses=PROBLEMS)

    @router.post("/predict", response_model=PredictResponse, openapi_extra={"requestBody": BODIES})
    async def predict(
        request: Request,
        top: Annotated[int, Query(ge=1, description="How many classes to name for each picture.")] = 5,
        heat: Annotated[bool, Query(description="Also return a heat map of the evidence for each.")] = False,
        nearest: Annotated[int, Query(ge=0, le=50, description="How many nearest training images to give.")] = 0,
        coverage: Annotated[
            float | None,
            Query(
                gt=0, lt=1, description="Also give the set of classes that the truth is among in this share of cases."
            ),
        ] = None,
    ) -> Response:
        """Classify pictures: files of a form, or JSON with base64."""
        asked = Asked(top=top, heat=heat, nearest=nearest, coverage=coverage)
        try:
            uploads = await _read(request)
            asked.check(len(uploads))
            found = await _while_there(request, service.predict(uploads, asked=asked))
        except UserError as error:
            raise HTTPException(422, str(error)) from None
        except Busy:
            raise HTTPException(503, "Too many pictures wait: try again later", headers={"Retry-After": "1"}) from None
        # As a response, or FastAPI would validate once more what has just been made.
        return Response(found.model_dump_json(), media_type="application/json")

    found = find_examples(service.served[0])

    @router.get("/examples")
    def examples() -> list[Example]:
        """Give pictures to try: test images of the first run that answers."""
        return found

    @router.get("/model")
    def model() -> Model:
        """Say which runs answer, their classes, and what a request may hold."""
        return Model(
            version=__version__,
            runs=[describe(served) for served in service.served],
            max_pictures=MAX_PICTURES,
            max_bytes=limits.body_bytes,
            max_pixels=MAX_PIXELS,
        )

    return router


async def _read(request: Request) -> list[Uploaded]:
    """Read the files in a request. Raises: UserError where there are none, or too many."""
    # Not by `request.body()`, which would keep the body beside its files until the request is answered.
    body = b"".join([chunk async for chunk in request.stream()])
    return read_uploads(body, content_type=request.headers.get("content-type", ""))


async def _while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do `work` as long as the client of a request that is read waits. Raises: ClientDisconnect where it leaves."""
    task, left = asyncio.create_task(work), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((task, left), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        left.cancel()
        await asyncio.gather(task, left, return_exceptions=True)

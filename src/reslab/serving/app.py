"""The web app: its routes, its pages, and the guard in front of them."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException as PlainHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from reslab import __version__
from reslab.data.pictures import MAX_PIXELS
from reslab.errors import UserError, describe_wanted, show
from reslab.serving.decoding import UnstartedError, Uploaded
from reslab.serving.examples import find_examples
from reslab.serving.guard import Guard, Limits
from reslab.serving.metrics import Metrics
from reslab.serving.pages import Page, render
from reslab.serving.schema import MAX_PICTURES, Example, Model, PredictResponse, Problem, Upload
from reslab.serving.served import Asked
from reslab.serving.service import Service, describe, describe_neighbours
from reslab.serving.turns import Busy
from reslab.serving.uploads import read_uploads

T = TypeVar("T")

PROBLEMS: dict[int | str, dict[str, Any]] = {code: {"model": Problem} for code in (401, 403, 408, 413, 422, 503)}
# FastAPI documents one kind of body; this endpoint takes two.
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


HOSTS: Final = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Access:
    """Who may send requests: clients that know the `token`; without a token, clients that address one of `hosts`.

    Checking the host refuses foreign pages that let a name of their own point to this machine (DNS rebinding).
    """

    token: str | None = None
    hosts: Sequence[str] = HOSTS
    limits: Limits = field(default_factory=Limits)


def serving_app(
    service_of: Callable[[Metrics], Service],
    *,
    access: Access,
    neighbours: int = 0,
    data_dir: Path | None = None,
    allow_remote: bool = False,
) -> FastAPI:
    """Build the app that classifies pictures; it finds the nearest among this many training `neighbours`."""
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
    """Build an app around a router: pages, health check, metrics and guard."""
    app = FastAPI(
        title="reslab",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,  # generated clients name their functions by it
    )
    # The guard checks the token before anything is read; this only documents it in openapi.json.
    bearer = [Depends(HTTPBearer(auto_error=False, description="The server's token."))] if access.token else []
    app.include_router(router, dependencies=bearer)
    _add_page(app, "/", page)
    _add_page(app, "/docs", "docs")

    @app.get("/healthz", response_class=PlainTextResponse)
    async def healthz() -> str:
        """Return ok while the server is running."""
        return "ok"

    @app.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> bytes:
        """Return metrics for Prometheus."""
        return metrics.render()

    app.add_exception_handler(PlainHTTPException, _point_to_docs)
    app.add_exception_handler(RequestValidationError, _name_parameter)
    if access.token is None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(access.hosts))
    app.add_middleware(Guard, limits=access.limits, token=access.token, note=metrics.note_request)
    return app


async def _name_parameter(request: Request, error: Exception) -> Response:
    """Say in a sentence which parameter has a wrong value."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"][1:]))  # after "query"
    if first["type"] == "missing":
        detail = f"{where} is missing"
    else:
        detail = f"{where} should be {describe_wanted(first)}, not {show(first['input'])}"
    return await http_exception_handler(request, HTTPException(422, detail))


async def _point_to_docs(request: Request, error: Exception) -> Response:
    """Point to /docs if no route matches; other refusals have messages of their own."""
    assert isinstance(error, PlainHTTPException)
    if error.status_code in (404, 405) and error.detail == HTTPStatus(error.status_code).phrase:
        error.detail = f"{request.method} {request.url.path[:100]} is not a route of this server: see /docs"
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
        top: Annotated[int, Query(ge=1, description="Number of classes to return for each picture.")] = 5,
        heat: Annotated[bool, Query(description="Also return a heat map of the evidence for each class.")] = False,
        nearest: Annotated[int, Query(ge=0, le=50, description="Number of nearest training images to return.")] = 0,
        coverage: Annotated[
            float | None,
            Query(
                gt=0,
                lt=1,
                description="Also return a set of classes that contains the true one in this share of cases.",
            ),
        ] = None,
    ) -> Response:
        """Classify pictures, sent as files of a form or as base64 in JSON."""
        asked = Asked(top=top, heat=heat, nearest=nearest, coverage=coverage)
        try:
            uploads = await _read(request)
            asked.check(len(uploads))
            found = await _while_there(request, service.predict(uploads, asked=asked))
        except UserError as error:
            raise HTTPException(422, str(error)) from None
        except Busy:
            raise HTTPException(
                503, "Too many pictures are waiting: try again later", headers={"Retry-After": "1"}
            ) from None
        except UnstartedError:
            raise HTTPException(
                503,
                "The process that decodes pictures does not start; the server may lack memory",
                headers={"Retry-After": "60"},
            ) from None
        # Returned as a Response, since FastAPI would validate the model a second time.
        return Response(found.model_dump_json(), media_type="application/json")

    # Read now, since the networks are those of now too: a run may be trained or evaluated again meanwhile.
    found, described = find_examples(service.served[0]), list(map(describe, service.served))

    @router.get("/examples")
    def examples() -> list[Example]:
        """Return pictures to try: test images of the first run."""
        return found

    @router.get("/model")
    def model() -> Model:
        """Return the served runs, their classes, and the limits of a request."""
        return Model(
            version=__version__,
            runs=[
                known.model_copy(update=describe_neighbours(served))
                for known, served in zip(described, service.served, strict=True)
            ],
            max_pictures=MAX_PICTURES,
            max_bytes=limits.body_bytes,
            max_pixels=MAX_PIXELS,
        )

    return router


async def _read(request: Request) -> list[Uploaded]:
    """Read the files in a request. Raises: UserError if there are none or too many."""
    # `request.body()` would keep the body in memory, next to its files, until the request is answered.
    body = b"".join([chunk async for chunk in request.stream()])
    return read_uploads(body, content_type=request.headers.get("content-type", ""))


async def _while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do `work` while the client of a fully read request waits. Raises: ClientDisconnect if it leaves."""
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

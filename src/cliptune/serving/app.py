"""The paths of a server and what each answers; errors in our words, whoever raised them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect

from cliptune._version import __version__
from cliptune.serving.batching import Answering
from cliptune.serving.body import Body, Held, Photo, many_photos, one_photo
from cliptune.serving.keys import Keys
from cliptune.serving.limits import Limits, Refused, not_now
from cliptune.serving.metrics import Metrics
from cliptune.serving.observed import Observed
from cliptune.serving.page import SECURITY_HEADERS, language_for, page
from cliptune.serving.schema import (
    AboutOut,
    PredictionOut,
    Predictions,
    State,
    many_bodies,
    one_body,
    refusals,
)
from cliptune.serving.worker import Fault, Loaded

log = logging.getLogger(__name__)

TopK = Annotated[int, Query(ge=1, le=1000, description="How many classes to name.")]
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

_bearer = HTTPBearer(auto_error=False, description="A key of the server's file.")
_header = APIKeyHeader(name="X-API-Key", auto_error=False)


def build_app(
    answering: Answering,
    *,
    limits: Limits,
    metrics: Metrics,
    lifespan: Lifespan,
    keys: Keys | None = None,
    cors_origins: Sequence[str] = (),
    lines: bool = False,
) -> FastAPI:
    """The application of a server; `lines` writes a line of JSON for each request to stdout."""
    app = FastAPI(
        title="cliptune", version=__version__, lifespan=lifespan, redirect_slashes=False,
        docs_url=None, redoc_url=None,  # their pages load scripts from elsewhere
        description="What is on photos, by a classifier that was fine-tuned with cliptune.",
    )  # fmt: skip
    _add_open_paths(app, answering, limits, keys)
    _add_answers(app, answering, limits, metrics, keys)
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    if cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(cors_origins), allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )  # fmt: skip
    paths = {"/", "/about", "/health", "/ready", "/metrics", "/openapi.json", *_ANSWERING}
    app.add_middleware(Observed, metrics=metrics, paths=paths, lines=lines)
    return app


_ANSWERING = ("/predict", "/predict/many", "/look")


def _add_open_paths(app: FastAPI, answering: Answering, limits: Limits, keys: Keys | None) -> None:
    """What needs no key: no photo is answered for."""

    @app.get("/", response_class=HTMLResponse, summary="The page for people")
    async def people(request: Request) -> Response:
        shown = language_for(request.headers.get("Accept-Language", ""))
        return HTMLResponse(page(shown), headers=SECURITY_HEADERS)

    @app.get("/health", response_model=State, summary="Whether the server runs")
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get(
        "/ready", response_model=State, responses=refusals(503), summary="Whether it can answer now"
    )
    async def ready() -> Response:
        _loaded(answering)
        return JSONResponse({"status": "ready"})

    @app.get(
        "/about", response_model=AboutOut, responses=refusals(503), summary="Classes and limits"
    )
    async def about() -> Response:
        loaded = _loaded(answering)
        found = AboutOut.model_validate({
            "checkpoint": loaded.checkpoint, "version": __version__,
            "classes": [{"label": label, "name": name} for label, name in loaded.classes],
            "precision": loaded.precision, "tells_none_of_these": loaded.rejects,
            "shows_where_it_looked": loaded.looks, "needs_key": keys is not None,
            "max_bytes": limits.max_bytes, "max_pixels": limits.max_pixels,
            "max_photos": limits.max_photos,
        })  # fmt: skip
        return JSONResponse(found.model_dump())


def _add_answers(
    app: FastAPI, answering: Answering, limits: Limits, metrics: Metrics, keys: Keys | None
) -> None:
    """What needs a key, where there are keys."""
    held = Held(limits.max_held_bytes)
    guarded: Any = {"dependencies": [Depends(_key_check(keys))]} if keys else {}

    @app.post(
        "/predict", response_model=PredictionOut, responses=refusals(), openapi_extra=one_body(),
        summary="What is on a photo", **guarded,
    )  # fmt: skip
    async def predict(request: Request, top_k: TopK = 5) -> Response:
        async with Body(request, limits, held) as body:
            photo = await one_photo(request, body, limits)
            request.state.photos, request.state.bytes = 1, len(body)
            answers, loaded = await answering.answer([photo.content], top_k=top_k)
        metrics.answers(answers)
        if isinstance(answers[0], Fault):
            raise Refused(answers[0].status, answers[0].message)
        return JSONResponse(answers[0] | {"image": photo.name}, headers=_by(loaded))

    @app.post(
        "/predict/many", response_model=Predictions, responses=refusals(),
        openapi_extra=many_bodies(), summary="What is on each of several photos", **guarded,
    )  # fmt: skip
    async def predict_many(request: Request, top_k: TopK = 5) -> Response:
        async with Body(request, limits, held) as body:
            photos = await many_photos(request, body, limits)
            request.state.photos, request.state.bytes = len(photos), len(body)
            answers, loaded = await answering.answer(
                [photo.content for photo in photos], top_k=top_k
            )
        metrics.answers(answers)
        found = [_one_of_many(photo, each) for photo, each in zip(photos, answers, strict=True)]
        return JSONResponse({"predictions": found}, headers=_by(loaded))

    @app.post(
        "/look", response_class=Response, openapi_extra=one_body(), **guarded,
        responses=refusals() | {200: {"content": {"image/jpeg": {}}}},
        summary="Where on a photo the classifier looked",
    )  # fmt: skip
    async def look(
        request: Request,
        label: Annotated[str | None, Query(description="A class. Default: the best.")] = None,
    ) -> Response:
        async with Body(request, limits, held) as body:
            photo = await one_photo(request, body, limits)
            request.state.photos, request.state.bytes = 1, len(body)
            picture, loaded = await answering.look(photo.content, label)
        return Response(picture, media_type="image/jpeg", headers=_by(loaded))

    @app.get("/metrics", response_class=Response, summary="Counts for Prometheus", **guarded)
    async def counts() -> Response:
        text = metrics.text(waiting=answering.waiting, loaded=answering.loaded)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _loaded(answering: Answering) -> Loaded:
    if answering.loaded is None:
        raise not_now("the classifier is being loaded")
    return answering.loaded


def _by(loaded: Loaded) -> dict[str, str]:
    """The header that says which checkpoint answered; its name may hold any character."""
    return {"X-Checkpoint": loaded.checkpoint.encode("ascii", "backslashreplace").decode()}


def _one_of_many(photo: Photo, answer: dict[str, Any] | Fault) -> dict[str, Any]:
    if isinstance(answer, Fault):
        return {"image": photo.name, "error": answer.message}
    return answer | {"image": photo.name}


def _key_check(keys: Keys) -> Callable[..., Any]:
    async def check(
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
        header: Annotated[str | None, Security(_header)],
    ) -> None:
        given = header or (bearer.credentials if bearer else None)
        if given is None or not keys.hold(given):
            raise Refused(
                401,
                "found no key of this server; expected 'Authorization: Bearer KEY' or "
                "'X-API-Key: KEY'. Ask whoever runs it for one.",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return check


async def _refused(request: Request, error: Any) -> Response:
    return JSONResponse({"error": error.message}, error.status, headers=error.headers)


async def _bad_parameter(request: Request, error: Any) -> Response:
    faults = [f"{'.'.join(map(str, f['loc'][1:]))}: {f['msg']}" for f in error.errors()[:3]]
    return JSONResponse({"error": "; ".join(faults)}, 422)


async def _http(request: Request, error: Any) -> Response:
    words = {
        404: "there is nothing at this address. Its addresses: /openapi.json",
        405: "this address does not take that method. How it is used: /openapi.json",
    }
    text = words.get(error.status_code, str(error.detail))
    return JSONResponse({"error": text}, error.status_code, headers=error.headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("unexpected, at %s", request.url.path, exc_info=error)
    text = f"unexpected {type(error).__name__}. This is a fault of the server; its log has more."
    return JSONResponse({"error": text}, HTTPStatus.INTERNAL_SERVER_ERROR)


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it


_HANDLERS: dict[type[Exception], Any] = {
    Refused: _refused,
    RequestValidationError: _bad_parameter,
    HTTPException: _http,
    ClientDisconnect: _left,
    Exception: _unexpected,
}

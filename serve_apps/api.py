"""The FastAPI application that a Gateway answers with: routes, errors, limits, OpenAPI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import metadata
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI
from fastapi_offline import FastAPIOffline
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from serve_apps import page
from serve_apps.endpoints import attributes, embeddings, events, experiment, products, rank, similar
from serve_apps.endpoints.events import EventsRequest
from serve_apps.http import errors
from serve_apps.http.admission import Admission
from serve_apps.protocol import (
    AttributesRequest,
    EmbeddingRequest,
    Health,
    ModelsAnswer,
    RankRequest,
    SimilarRequest,
    answer,
)

if TYPE_CHECKING:
    from serve_apps.gateway import Gateway

FAILURES: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "model": errors.ErrorAnswer,
        "description": "The request is at fault; `code` and `param` say how.",
    },
    "503": {"model": errors.ErrorAnswer, "description": "Not now: see `code`, and `Retry-After` for when."},
}


def build(gateway: Gateway) -> FastAPI:
    app = FastAPIOffline(
        title="shoplens",
        version=metadata.version("shoplens"),
        description="Embeddings and attributes of products by photo and text, and the products most similar to one.",
        redoc_url=None,
        responses=FAILURES,
        lifespan=_closing(gateway),
    )
    app.include_router(embeddings.router(gateway), tags=["embeddings"])
    app.include_router(attributes.router(gateway), tags=["attributes"])
    app.include_router(rank.router(gateway), tags=["ranking"])
    app.include_router(_models(gateway), tags=["models"])
    if gateway.settings.search:
        app.include_router(similar.router(gateway), tags=["search"])
        app.include_router(products.router(gateway), tags=["shop"])
    app.include_router(experiment.router(gateway), tags=["experiments"])
    app.include_router(events.router(gateway), tags=["experiments"])
    app.include_router(_health(gateway), tags=["health"])
    if gateway.settings.page:
        page.install(app)
    errors.install(app)
    app.add_middleware(Admission, limits=gateway.settings.limits)
    _describe_bodies(app)
    return app


def _closing(gateway: Gateway) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """What a replica that is stopped in order does last."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(gateway.events.close)

    return lifespan


def _models(gateway: Gateway) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/models", response_model=ModelsAnswer)
    async def models() -> Response:
        """Registered versions, newest first, with their aliases; `active` ones are in use."""
        return answer({"object": "list", "data": await gateway.models()}, None)

    return router


def _health(gateway: Gateway) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz", response_model=Health)
    async def healthz() -> Response:
        """200 if the model answers through the queue that requests go through, else 503."""
        await gateway.pulse()
        active = {name: release.version for name, release in gateway.serving().items()}
        default = active.get(gateway.settings.models[0])
        models = {name: active.get(name) for name in gateway.settings.models}
        ranker = active.get(await gateway.first_ranker() or "")
        status = "ok" if default else "waiting"
        return answer({"status": status, "model": default, "models": models, "ranker": ranker}, default)

    return router


def _describe_bodies(app: FastAPI) -> None:
    """Adds to OpenAPI the request bodies that the routes parse themselves."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            requests = (EmbeddingRequest, AttributesRequest, RankRequest, SimilarRequest, EventsRequest)
            bodies = [(model, "validation") for model in requests]
            _, found = models_json_schema(bodies, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
            schema["components"]["schemas"].update(found["$defs"])
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]

"""The FastAPI application of a Gateway: endpoints, errors, limits, OpenAPI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import metadata
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from pydantic.json_schema import models_json_schema

from serve_apps import page
from serve_apps.endpoints import (
    attributes,
    captions,
    embeddings,
    events,
    experiment,
    health,
    models,
    products,
    rank,
    similar,
)
from serve_apps.gateway import Gateway
from serve_apps.http import description, errors
from serve_apps.http.admission import Admission
from serve_apps.http.parsing import Body
from serve_apps.http.retrieval import Retrieval
from serve_apps.settings import Limits

ENDPOINTS = (embeddings, attributes, rank, captions, models, similar, products, experiment, events, health)
"""In the order of the API reference. A new endpoint is a file with `router(gateway)` and its name here."""
FAILURES: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "model": errors.ErrorAnswer,
        "description": "The request is at fault; `code` and `param` say how.",
    },
    "503": {"model": errors.ErrorAnswer, "description": "Not now: see `code`, and `Retry-After` for when."},
}


class Ingress(Gateway):
    """A Gateway with its application, as `serve.ingress` takes it."""

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build(self)


def build(gateway: Gateway) -> FastAPI:
    app = FastAPIOffline(
        title="shoplens",
        version=metadata.version("shoplens"),
        description=description.about(gateway.settings.limits),
        redoc_url=None,
        responses=FAILURES,
        lifespan=_closing(gateway),
    )
    routers = [endpoint.router(gateway) for endpoint in ENDPOINTS]
    for router in routers:
        app.include_router(router)
    if gateway.settings.page:
        page.install(app)
    errors.install(app)
    app.add_middleware(Retrieval)
    app.add_middleware(Admission, limits=gateway.settings.limits)
    _describe_bodies(app, routers, gateway.settings.limits)
    return app


def _closing(gateway: Gateway) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Closes the event log when a replica is stopped in order."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(gateway.events.close)

    return lifespan


def _describe_bodies(app: FastAPI, routers: Sequence[APIRouter], limits: Limits) -> None:
    """Adds to OpenAPI the schemas of the request bodies that the routes parse themselves, and the limits of the settings."""
    generate = app.openapi
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    bodies = [(route.openapi_extra.model, "validation") for route in routes if isinstance(route.openapi_extra, Body)]

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            _, found = models_json_schema(bodies, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
            schema["components"]["schemas"].update(found["$defs"])
            app.openapi_schema = description.with_limits(schema, limits)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]

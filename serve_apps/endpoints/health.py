"""`GET /healthz`: whether the models answer, and the versions in use."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import Response

from serve_apps.gateway import Gateway
from serve_apps.http.answers import answer
from shoplens.packages.capabilities import RANK_IMAGES


class Health(BaseModel):
    status: Literal["ok", "waiting"] = Field(description="waiting: nothing is promoted yet")
    model: str | None
    models: dict[str, str | None]
    ranker: str | None = Field(description="version that answers /v1/rank if the request names no model")


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz", response_model=Health)
    async def healthz() -> Response:
        """200 if a sample of each model comes back through the queue of its requests, else 503."""
        await gateway.pulse()
        default, ranker = await gateway.first(), await gateway.first(RANK_IMAGES)
        active = gateway.serving()
        version = None if default is None else default.version
        body = {
            "status": "waiting" if default is None else "ok",
            "model": version,
            "models": {name: active[name].version if name in active else None for name in gateway.names},
            "ranker": None if ranker is None else ranker.version,
        }
        return answer(body, version)

    return routes

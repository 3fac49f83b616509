"""`GET /v1/models`: the registered versions, their aliases and capabilities."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import Response

from serve_apps.gateway import Gateway
from serve_apps.http.answers import answer


class ModelRow(BaseModel):
    id: str = Field(examples=["eclip/3"])
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "shoplens"
    aliases: list[str]
    active: bool
    capabilities: list[str] = Field(
        description="names of what the version can do", examples=[["embed_image", "embed_text"]]
    )
    precision: str | None = Field(
        description="number format that the loaded version computes in; null: it is not loaded", examples=["bfloat16"]
    )


class ModelsAnswer(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelRow]


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["models"])

    @routes.get("/v1/models", response_model=ModelsAnswer)
    async def models() -> Response:
        """Registered versions, newest first, with their aliases and capabilities; `active` ones are in use."""
        return answer({"object": "list", "data": await gateway.models()}, None)

    return routes

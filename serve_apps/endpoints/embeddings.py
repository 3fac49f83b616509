"""`POST /v1/embeddings`: OpenAI's request and answer, for texts, photos and products in one list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from serve_apps.http.errors import ApiError, bad_request
from serve_apps.protocol import (
    EmbeddingAnswer,
    EmbeddingForm,
    EmbeddingRequest,
    embedding_answer,
    form_inputs,
    parse,
    parse_form,
)
from serve_apps.settings import Limits

if TYPE_CHECKING:
    from serve_apps.gateway import Gateway

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/EmbeddingRequest"},
                "examples": {
                    "text": {"value": {"model": "eclip", "input": "red summer dress"}},
                    "mixed": {
                        "value": {
                            "model": "eclip@champion",
                            "input": [
                                "red summer dress",
                                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,..."}},
                                {"type": "product", "product_id": "PRODUCT_ID"},
                            ],
                        }
                    },
                },
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["model"],
                    "properties": {
                        "model": {"type": "string"},
                        "encoding_format": {"enum": ["float", "base64"]},
                        "input": {"type": "array", "items": {"type": "string"}},
                        "image": {"type": "array", "items": {"type": "string", "format": "binary"}},
                    },
                }
            },
        },
    }
}


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def must_be_json(request: Request) -> None:
    """Raises ApiError 415."""
    if media_type(request) != "application/json":
        raise ApiError(415, "unsupported_media_type", "send JSON with the header Content-Type: application/json")


def form_limits(limits: Limits) -> dict[str, int]:
    """What `Request.form` takes."""
    parts = limits.inputs + 10
    return {"max_files": parts, "max_fields": parts, "max_part_size": limits.body_bytes}


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/embeddings", response_model=EmbeddingAnswer, openapi_extra=BODY)
    async def embeddings(request: Request) -> Response:
        """Unit vectors of texts, photos and products, in the order of the request.

        `model` is a name (its champion), `name@alias` or `name/version`. One photo that cannot be decoded
        fails this request and no other.
        """
        if media_type(request) == "multipart/form-data":
            async with request.form(**form_limits(gateway.settings.limits)) as form:
                fields, inputs = await form_inputs(form)
            form_fields = parse_form(EmbeddingForm, fields)
            model, encoding, dimensions = form_fields.model, form_fields.encoding_format, None
        else:
            must_be_json(request)
            asked = await gateway.in_thread(parse, EmbeddingRequest, await request.body())
            model, encoding, dimensions, inputs = (
                asked.model,
                asked.encoding_format,
                asked.dimensions,
                asked.inputs,
            )
        served = await gateway.served(model)
        vectors, tokens = await gateway.embed(served, inputs)
        if dimensions is not None and dimensions != vectors.shape[1]:
            message = f"{served.version} has {vectors.shape[1]} dimensions; they cannot be changed"
            raise bad_request("invalid_value", message, "dimensions")
        return embedding_answer(vectors, encoding, served.version, tokens)

    return routes

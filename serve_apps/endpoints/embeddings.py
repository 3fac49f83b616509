"""`POST /v1/embeddings`: the request and answer of OpenAI, for texts, photos and products in one list."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from serve_apps.gateway import Gateway
from serve_apps.http.answers import answer
from serve_apps.http.errors import Place, bad_request
from serve_apps.http.inputs import (
    FORM_IMAGE,
    ImageItem,
    ImageUrl,
    Input,
    LongText,
    Photo,
    PhotoAndText,
    ProductItem,
    ProductRef,
    Strict,
    Text,
    TextItem,
    item_kind,
)
from serve_apps.http.parsing import Body, form_inputs, form_limits, is_form, must_be_json, parse, parse_form
from serve_apps.references import AskedModel
from serve_apps.vectors import embed


class ImageTextItem(Strict):
    """A photo and a text that get one vector together, from a model that reads both."""

    type: Literal["image_text"]
    image_url: ImageUrl
    text: LongText


def _no_tokens(value: Any) -> Any:
    """Clients of OpenAI may send the numbers of tokens: `[1, 2]`, `[[1, 2], [3]]`."""
    if isinstance(value, list) and not {int, list}.isdisjoint(map(type, value)):
        raise PydanticCustomError(
            "tokens",
            "tokens are not taken, because every model has its own: send the text "
            "(in LangChain check_embedding_ctx_length=False)",
        )
    return value


def _input_kind(value: Any) -> str | None:
    return "string" if isinstance(value, str) else "list" if isinstance(value, list) else None


Item = Annotated[
    Annotated[LongText, Tag("string")]
    | Annotated[TextItem, Tag("text")]
    | Annotated[ImageItem, Tag("image_url")]
    | Annotated[ImageTextItem, Tag("image_text")]
    | Annotated[ProductItem, Tag("product")],
    Discriminator(
        item_kind,
        custom_error_type="unknown_item",
        custom_error_message='an item is a string or an object of "type" text, image_url, image_text or product',
    ),
]


class EmbeddingRequest(Strict):
    model: AskedModel
    input: Annotated[
        Annotated[LongText, Tag("string")]
        | Annotated[
            list[Item],
            Field(min_length=1, fail_fast=True, json_schema_extra={"maxItems": "limits.inputs"}),
            Tag("list"),
        ],
        Discriminator(
            _input_kind,
            custom_error_type="unknown_input",
            custom_error_message="give a string, or a list of strings and typed items",
        ),
        BeforeValidator(_no_tokens),
    ]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, description="if given, must be the model's own")
    user: str | None = Field(None, description="accepted for OpenAI clients, not used")

    @classmethod
    def place(cls, found: Place) -> Place:
        """`("input", "list", 3, "image_url", "image_url", "url")` -> `("input", 3, "image_url", "url")`."""
        if found[:1] != ("input",):
            return found
        item = found[2:]
        return ("input", *item[:1], *item[2:])

    @property
    def inputs(self) -> list[Input]:
        if isinstance(self.input, str):
            return [Text("input", self.input)]
        return [_input(item, f"input[{i}]") for i, item in enumerate(self.input)]


def _input(item: str | TextItem | ImageItem | ImageTextItem | ProductItem, place: str) -> Input:
    match item:
        case str():
            return Text(place, item)
        case TextItem():
            return Text(place, item.text)
        case ImageItem():
            return Photo(place, item.image_url.url)
        case ImageTextItem():
            return PhotoAndText(place, Photo(place, item.image_url.url), Text(place, item.text))
        case ProductItem():
            return ProductRef(place, item.product_id)


class EmbeddingForm(Strict):
    """The plain fields of a multipart request."""

    model: AskedModel
    encoding_format: Literal["float", "base64"] = "float"


class Embedding(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="floats, or base64 of little-endian float32")


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingAnswer(BaseModel):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str = Field(examples=["eclip/3"])
    usage: Usage


BODY = Body(
    EmbeddingRequest,
    {
        "text": {"model": "eclip", "input": "red summer dress"},
        "mixed": {
            "model": "eclip@champion",
            "input": [
                "red summer dress",
                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,..."}},
                {"type": "product", "product_id": "PRODUCT_ID"},
            ],
        },
    },
    form={
        "required": ["model"],
        "properties": {
            "model": {"type": "string"},
            "encoding_format": {"enum": ["float", "base64"]},
            "input": {"type": "array", "items": {"type": "string"}},
            "image": {
                "type": "array",
                "items": {"type": "string", "format": "binary"},
                "description": FORM_IMAGE,
            },
        },
    },
)


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["embeddings"])

    @routes.post("/v1/embeddings", response_model=EmbeddingAnswer, openapi_extra=BODY)
    async def embeddings(request: Request) -> Response:
        """Unit vectors of texts, photos and products, in the order of the request.

        A photo that cannot be decoded fails its own request and no other. Tokens are not taken in place of texts.
        """
        inputs: Sequence[Input]
        if is_form(request):
            async with request.form(**form_limits(gateway.settings.limits)) as form:
                fields, inputs = await form_inputs(form)
            form_fields = parse_form(EmbeddingForm, fields)
            model, encoding, dimensions = form_fields.model, form_fields.encoding_format, None
        else:
            must_be_json(request)
            asked = await gateway.in_thread(parse, EmbeddingRequest, await request.body())
            model, encoding, dimensions, inputs = asked.model, asked.encoding_format, asked.dimensions, asked.inputs
        served = await gateway.served(model)
        vectors, tokens = await embed(gateway, served, inputs)
        if dimensions is not None and dimensions != vectors.shape[1]:
            message = f"{served.version} has {vectors.shape[1]} dimensions; they cannot be changed"
            raise bad_request("invalid_value", message, "dimensions")
        return embedding_answer(vectors, encoding, served.version, tokens)

    return routes


def embedding_answer(vectors: np.ndarray, encoding_format: str, model: str, tokens: int) -> Response:
    """`vectors` float32 [n, d]."""
    if encoding_format == "base64":
        rows: Sequence[Any] = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    else:
        rows = vectors.tolist()
    data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return answer({"object": "list", "data": data, "model": model, "usage": usage}, model)

"""Parts of answers that several endpoints give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field
from pydantic_core import to_json
from starlette.responses import Response

MODEL_HEADER = "X-Model-Version"


class ProductSummary(BaseModel):
    """A product as lists show it."""

    product_id: str
    catalog_id: str | None
    title: str
    category_id: str | None
    category_path: list[str]
    price: float | None
    currency: str | None
    stock: int | None = Field(description="pieces; null: unknown")
    seller: str | None
    image: str = Field(examples=["/v1/images/IMAGE_ID"])


def answer(body: Mapping[str, Any], model: str | None) -> Response:
    """JSON body, with the version that made it in the header `X-Model-Version`."""
    headers = {} if model is None else {MODEL_HEADER: model}
    return Response(to_json(body), media_type="application/json", headers=headers)

"""`POST /v1/similar`: the products nearest to a product, a text or a photo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from serve_apps.embeddings import must_be_json
from serve_apps.errors import bad_request
from serve_apps.products import must_have
from serve_apps.protocol import (
    Photo,
    PriceRange,
    ProductRef,
    SimilarAnswer,
    SimilarRequest,
    Text,
    answer,
    parse,
)

if TYPE_CHECKING:
    from serve_apps.gateway import Gateway, Served

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/SimilarRequest"},
                "examples": {
                    "text": {"value": {"text": "red summer dress", "k": 10}},
                    "product": {
                        "value": {
                            "product_id": "PRODUCT_ID",
                            "k": 10,
                            "category": "CATEGORY_ID",
                            "price": {"min": 10, "max": 100},
                            "exclude_catalog": True,
                        }
                    },
                },
            }
        },
    }
}


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/similar", response_model=SimilarAnswer, openapi_extra=BODY)
    async def similar(request: Request) -> Response:
        """The `k` products nearest to the query, best first; the query product itself is never among them.

        Model and index are of the one version named in the answer.
        """
        must_be_json(request)
        asked = await gateway.in_thread(parse, SimilarRequest, await request.body())
        served = await gateway.served(asked.model, search=True)
        assert served.catalogue is not None
        if asked.category is not None:
            must_have(served.catalogue, asked.category)
        vectors, _ = await gateway.embed(served, [_query(asked)])
        data = await gateway.in_thread(_search, served, asked, vectors[0])
        body = {"object": "list", "model": served.version, "dataset": served.catalogue.name, "data": data}
        return answer(body, served.version)

    return routes


def _query(asked: SimilarRequest) -> Text | Photo | ProductRef:
    if asked.product_id is not None:
        return ProductRef("product_id", asked.product_id)
    if asked.exclude_catalog:
        raise bad_request(
            "invalid_value",
            "exclude_catalog needs product_id: only a product has a catalog",
            "exclude_catalog",
        )
    if asked.text is not None:
        return Text("text", asked.text)
    assert asked.image is not None
    return Photo("image", asked.image)


def _search(served: Served, asked: SimilarRequest, vector: np.ndarray) -> list[dict[str, Any]]:
    index, catalogue = served.index, served.catalogue
    assert index is not None
    assert catalogue is not None
    price = asked.price or PriceRange()
    found, scores = index.search(
        vector,
        asked.k,
        category=asked.category,
        price_min=price.min,
        price_max=price.max,
        exclude=asked.product_id,
        exclude_catalog=asked.exclude_catalog,
    )
    rows = (catalogue.row(product_id) for product_id in found)
    return [
        {**catalogue.summary(row), "score": float(score)}
        for row, score in zip(rows, scores, strict=True)
        if row is not None
    ]

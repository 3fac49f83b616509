"""`POST /v1/similar`: the products nearest to a product, a text or a photo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from serve_apps.catalogue import Catalogue
from serve_apps.embeddings import must_be_json
from serve_apps.errors import bad_request, not_found
from serve_apps.experiment import answering
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
from shoplens.retrieval.index import UnknownCategory

if TYPE_CHECKING:
    from serve_apps.gateway import Gateway

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

        Model and index are of the one version named in the answer. While an experiment runs, a request that names a
        `user` and no `model` is answered by the model of the user's arm.
        """
        must_be_json(request)
        asked = await gateway.in_thread(parse, SimilarRequest, await request.body())
        served, arm = await answering(gateway, asked)
        catalogue = served.catalogue
        assert catalogue is not None
        vectors, _ = await gateway.embed(served, [_query(asked)])
        try:
            data = await gateway.in_thread(_search, catalogue, asked, vectors[0])
        except UnknownCategory as error:
            raise not_found("category_not_found", str(error)[:300], "category") from None
        shown = {"model": served.version, "dataset": catalogue.name, "experiment": arm}
        body = {"object": "list", **shown, "data": data}
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


def _search(catalogue: Catalogue, asked: SimilarRequest, vector: np.ndarray) -> list[dict[str, Any]]:
    """Raises UnknownCategory."""
    price = asked.price or PriceRange()
    itself, its_catalog = [], []
    if asked.product_id is not None:
        itself = [asked.product_id]
        its_catalog = [catalogue.cards(itself)[0]["catalog_id"]] if asked.exclude_catalog else []
    hits = catalogue.index.search(
        vector,
        asked.k,
        category=asked.category,
        price_min=price.min,
        price_max=price.max,
        exclude_products=itself,
        exclude_catalogs=its_catalog,
    )[0]
    cards = catalogue.cards([hit.product_id for hit in hits])
    return [{**card, "score": hit.score} for card, hit in zip(cards, hits, strict=True)]

"""`POST /v1/similar`: the products most similar to a product, a text or a photo, by the rules of the shop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from serve_apps.endpoints.embeddings import must_be_json
from serve_apps.endpoints.experiment import answering
from serve_apps.http.errors import bad_request, not_found
from serve_apps.protocol import (
    Photo,
    SimilarAnswer,
    SimilarRequest,
    Text,
    answer,
    parse,
)
from shoplens.search import rings
from shoplens.search.index import Index, UnknownCategory, UnknownProduct
from shoplens.search.rules import SameProduct

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
                            "price": {"min": 10, "max": 100},
                            "attributes": {"colour": "red"},
                            "exclude_catalog": True,
                            "photo_cap": 2,
                            "widening": {"rings": 1},
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
        """At most `k` products similar to the query, each with the ring it was found in and the rules applied to it.

        Model and index are of the one version named in the answer. While an experiment runs, a request that names a
        `user` and no `model` is answered by the model of the user's arm.
        """
        must_be_json(request)
        asked = await gateway.in_thread(parse, SimilarRequest, await request.body())
        if asked.exclude_catalog and asked.product_id is None:
            raise bad_request(
                "invalid_value", "exclude_catalog needs product_id: only a product has a catalog", "exclude_catalog"
            )
        served, arm = await answering(gateway, asked)
        vector = None
        if asked.product_id is None:
            vectors, _ = await gateway.embed(served, [_query(asked)])
            vector = vectors[0]
        try:
            body = await gateway.in_thread(_answer, served, asked, gateway.settings.same_product, vector)
        except UnknownProduct as error:
            raise not_found("product_not_found", str(error)[:300], "product_id") from None
        except UnknownCategory as error:
            raise not_found("category_not_found", str(error)[:300], "category") from None
        return answer({**body, "experiment": arm}, served.version)

    return routes


def _query(asked: SimilarRequest) -> Text | Photo:
    if asked.text is not None:
        return Text("text", asked.text)
    assert asked.image is not None
    return Photo("image", asked.image)


def _answer(served: Served, asked: SimilarRequest, same: SameProduct, vector: np.ndarray | None) -> dict[str, Any]:
    """`vector` float32 [d] is the query where that is no product. Raises UnknownProduct, UnknownCategory."""
    catalogue = served.catalogue
    assert catalogue is not None
    found = _search(catalogue.index, asked, same, vector)
    places = catalogue.index.products.of_photos(np.array([result.row for result in found.results], dtype=np.int64))
    return {
        "object": "list",
        "model": served.version,
        "dataset": catalogue.name,
        "snapshot": f"{served.version}@{found.snapshot}",
        "request_id": uuid4().hex,
        "data": [
            {**card, "score": result.score, "ring": result.ring, "rules": result.rules}
            for card, result in zip(catalogue.cards(places), found.results, strict=True)
        ],
    }


def _search(index: Index, asked: SimilarRequest, same: SameProduct, vector: np.ndarray | None) -> rings.Results:
    rules, widening = asked.rules(same), asked.widening
    if vector is not None:
        return rings.search(index, vector, asked.k, [asked.category], rules=rules, widening=widening)
    assert asked.product_id is not None
    order = None if asked.category is None else [asked.category]
    return rings.similar(index, asked.product_id, asked.k, order=order, rules=rules, widening=widening)

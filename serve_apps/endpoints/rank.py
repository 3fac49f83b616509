"""`POST /v1/rank`: images ranked for a topic, by fit and by what shoppers like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import APIRouter, Request
from starlette.responses import Response

from serve_apps.endpoints.embeddings import must_be_json
from serve_apps.http.errors import ApiError, bad_request
from serve_apps.protocol import RankAnswer, RankRequest, answer, parse
from shoplens.packages.ranking import places, reasons

if TYPE_CHECKING:
    from serve_apps.gateway import Gateway

BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/RankRequest"},
                "examples": {
                    "products": {
                        "value": {
                            "model": "clik",
                            "topic": {"name": "spring picnic", "date": "2025-04-01", "kwds": ["floral", "light"]},
                            "images": [
                                {"type": "product", "product_id": "PRODUCT_ID"},
                                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,..."}},
                            ],
                            "top_n": 1,
                        }
                    }
                },
            }
        },
    }
}


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/rank", response_model=RankAnswer, openapi_extra=BODY)
    async def rank(request: Request) -> Response:
        """The images, best first, each with its score and what it is made of.

        `relevance_score` = `fit` + `attraction`: how far the topic itself speaks for the image, and what speaks for it
        beside that. An image that cannot be read is listed in `failed`, and the others are ranked; if none can be,
        the request fails as the first of them.
        """
        must_be_json(request)
        asked = await gateway.in_thread(parse, RankRequest, await request.body())
        most = gateway.settings.limits.candidates
        if len(asked.images) > most:
            raise bad_request("too_many_inputs", f"{len(asked.images)} images; at most {most} at a time", "images")
        served = await gateway.ranker(asked.model)
        query = await gateway.query(served, asked.topic.text)
        rows, _ = await gateway.embed_each(served, asked.inputs)
        vectors = {i: row for i, row in enumerate(rows) if not isinstance(row, ApiError)}
        faults = {i: row for i, row in enumerate(rows) if isinstance(row, ApiError)}
        if not vectors:
            raise faults[0]
        good = list(vectors)
        found = reasons(query.topic[0], query.query[0], np.stack(list(vectors.values())))
        results = [
            {
                "index": good[place.index],
                "relevance_score": place.score,
                "fit": place.fit,
                "attraction": place.attraction,
                **({"image": asked.images[good[place.index]]} if asked.return_images else {}),
            }
            for place in places(found, asked.top_n)
        ]
        failed = [{"index": i, "code": fault.code, "message": fault.message} for i, fault in faults.items()]
        return answer({"object": "list", "model": served.version, "results": results, "failed": failed}, served.version)

    return routes

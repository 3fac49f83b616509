"""`POST /v1/rank`: images ranked for a topic, by fit and by what shoppers like."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, Discriminator, Field, Tag, model_validator
from starlette.responses import Response

from serve_apps.encoded import Fault
from serve_apps.gateway import Gateway, Needs
from serve_apps.http.answers import answer
from serve_apps.http.errors import ApiError, Place, bad_request
from serve_apps.http.inputs import ImageItem, Photo, ProductItem, ProductRef, Strict, item_kind
from serve_apps.http.parsing import Body, must_be_json, parse
from serve_apps.photos import UNPROCESSABLE
from serve_apps.references import AskedModel
from serve_apps.vectors import embed_each
from shoplens.packages.capabilities import RANK_IMAGES
from shoplens.packages.ranking import places, reasons
from shoplens.schema import TopicText

NEEDS = Needs((RANK_IMAGES,), named="not_a_ranker", unnamed="no_ranker")

Candidate = Annotated[
    Annotated[str, Tag("string")] | Annotated[ImageItem, Tag("image_url")] | Annotated[ProductItem, Tag("product")],
    Discriminator(
        item_kind,
        custom_error_type="unknown_candidate",
        custom_error_message='a candidate is a URL (data:image/... too) or an object of "type" image_url or product',
    ),
]
TopicField = Annotated[str, Field(max_length=2000)]


class TopicFields(Strict):
    """The texts of a shopping exhibition. Each field may be left out, but one must hold text."""

    name: TopicField = ""
    desc: TopicField = ""
    date: str | None = Field(None, description="YYYY-MM-DD, the day it opens; default: today")
    cat1: TopicField = ""
    cat2: TopicField = ""
    cat3: TopicField = ""
    cat4: TopicField = ""
    kwds: list[TopicField] = Field([], max_length=100, fail_fast=True)

    @model_validator(mode="after")
    def _has_text(self) -> TopicFields:
        if not "".join((self.name, self.desc, self.cat1, self.cat2, self.cat3, self.cat4, *self.kwds)).strip():
            raise ValueError("the topic is empty: give its name, desc, cat1 to cat4 or kwds")
        if self.date is not None:
            try:
                datetime.date.fromisoformat(self.date)
            except ValueError:
                raise ValueError(f"date {self.date[:40]!r} is no date: write YYYY-MM-DD") from None
        return self

    @property
    def text(self) -> TopicText:
        return TopicText(**self.model_dump())


class RankRequest(Strict):
    """Rank `images` for `topic`, best first."""

    model: AskedModel | None = None
    topic: TopicFields
    images: list[Candidate] = Field(min_length=1, fail_fast=True, json_schema_extra={"maxItems": "limits.candidates"})
    top_n: int | None = Field(None, ge=1, description="number of results; default: all")
    return_images: bool = Field(False, description="repeat each image in its result")

    @classmethod
    def place(cls, found: Place) -> Place:
        """`("images", 3, "image_url", "image_url")` -> `("images", 3, "image_url")`."""
        return (*found[:2], *found[3:]) if found[:1] == ("images",) else found

    @property
    def inputs(self) -> list[Photo | ProductRef]:
        found: list[Photo | ProductRef] = []
        for i, item in enumerate(self.images):
            match item:
                case str():
                    found.append(Photo(f"images[{i}]", item))
                case ImageItem():
                    found.append(Photo(f"images[{i}]", item.image_url.url))
                case ProductItem():
                    found.append(ProductRef(f"images[{i}]", item.product_id))
        return found


class RankResult(BaseModel):
    """One image. `relevance_score` is the sum of `fit`, along the topic itself, and `attraction`, the rest."""

    index: int = Field(description="its place in the request")
    relevance_score: float = Field(description="-1 to 1")
    fit: float
    attraction: float
    image: Any = Field(None, description="as it was sent, if `return_images` is set")


class RankFailure(BaseModel):
    """An image that could not be ranked."""

    index: int
    code: str
    message: str


class RankAnswer(BaseModel):
    object: Literal["list"] = "list"
    model: str = Field(examples=["clik/3"])
    results: list[RankResult] = Field(description="best first")
    failed: list[RankFailure]


BODY = Body(
    RankRequest,
    {
        "products": {
            "model": "clik",
            "topic": {"name": "spring picnic", "date": "2025-04-01", "kwds": ["floral", "light"]},
            "images": [
                {"type": "product", "product_id": "PRODUCT_ID"},
                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,..."}},
            ],
            "top_n": 1,
        }
    },
)


def router(gateway: Gateway) -> APIRouter:
    routes = APIRouter(tags=["ranking"])

    @routes.post("/v1/rank", response_model=RankAnswer, openapi_extra=BODY)
    async def rank(request: Request) -> Response:
        """The images, best first, each with its score and the two parts of the score.

        `relevance_score` = `fit` + `attraction`. `fit` is the score along the topic itself, `attraction` the rest.
        An image that cannot be read is listed in `failed`, and the others are ranked. If none can be read, the
        request fails with the error of the first.
        """
        must_be_json(request)
        asked = await gateway.in_thread(parse, RankRequest, await request.body())
        most = gateway.settings.limits.candidates
        if len(asked.images) > most:
            raise bad_request("too_many_inputs", f"{len(asked.images)} images; at most {most} at a time", "images")
        served = await gateway.served(asked.model, NEEDS)
        [query] = await gateway.call(served, RANK_IMAGES, [asked.topic.text])
        if isinstance(query, Fault):
            raise ApiError(UNPROCESSABLE, "not_encodable", query.message, "topic")
        rows, _ = await embed_each(gateway, served, asked.inputs)
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

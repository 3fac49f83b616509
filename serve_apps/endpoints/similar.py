"""`POST /v1/similar`: the products most similar to a product, a text or a photo, by the rules of the shop."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal
from uuid import uuid4

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, BeforeValidator, Field, model_validator
from starlette.responses import Response

from serve_apps.catalogue import UnknownAttribute
from serve_apps.endpoints.experiment import answering
from serve_apps.gateway import Gateway, Needs, Served
from serve_apps.http.answers import ProductSummary, answer
from serve_apps.http.errors import bad_request, not_found
from serve_apps.http.inputs import (
    CATEGORY,
    IMAGE,
    AttributeText,
    CategoryName,
    LongText,
    Photo,
    PhotoAndText,
    Price,
    ProductId,
    Strict,
    Text,
    at_most,
    given,
)
from serve_apps.http.parsing import Body, must_be_json, parse
from serve_apps.references import AskedModel
from serve_apps.vectors import embed
from shoplens.packages.capabilities import EMBED_IMAGE, EMBED_IMAGE_TEXT, EMBED_TEXT
from shoplens.schema import Identifier
from shoplens.search import rings
from shoplens.search.index import Index, UnknownCategory, UnknownProduct
from shoplens.search.rings import Widening
from shoplens.search.rules import NAMES, Rules, SameProduct

MAX_K = 1000
MAX_ATTRIBUTES = 20
ONE_QUERY = "give exactly one of product_id, text and image"


class PriceRange(Strict):
    min: Price | None = None
    max: Price | None = None
    currency: str | None = Field(
        None,
        pattern=r"^[A-Z]{3}$",
        description="ISO 4217 code, such as KRW; products with a price in another currency are left out; null: the "
        "currency of most prices of the shop",
    )

    @model_validator(mode="after")
    def _ordered(self) -> PriceRange:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is greater than max")
        return self


class SimilarRequest(Strict):
    """Exactly one of `product_id`, `text` and `image` is the query. The other fields choose the products to show.

    A model that does photo + text → vector also takes `image` and `text` together as one query.
    The search for a product starts in its own category, and adds wider categories ring by ring until `k` products may
    be shown. With `category`, the subtree of that category is the only ring. Without it, a text or a photo searches
    the whole shop.
    """

    product_id: ProductId | None = Field(None, description="a product of the index; it is never in its own answer")
    text: LongText | None = Field(None, description="words, for a model that embeds texts")
    image: str | None = Field(None, description=IMAGE)
    k: int = Field(10, ge=1, le=MAX_K, description="most products in the answer")
    category: CategoryName | None = Field(None, description=f"{CATEGORY}; the whole subtree is searched")
    price: PriceRange | None = Field(None, description="inclusive; with a bound, products without a price are left out")
    attributes: Annotated[dict[AttributeText, AttributeText | None], at_most(MAX_ATTRIBUTES)] = Field(
        {},
        max_length=MAX_ATTRIBUTES,
        description="a value that the product must have, by attribute, in the writing of the shop; null: any. A key or "
        "value that no product has gets 404, and the message names near ones",
    )
    in_stock: bool = Field(True, description="leave out products whose stock is known and zero")
    exclude_catalog: bool = Field(False, description="leave out other listings of the query product")
    cheapest: bool | None = Field(
        None,
        description="show only the cheapest listing of a product, of those that may be shown, in any category; "
        "null: true if the query is a product, false if it is a text or a photo",
    )
    photo_cap: int | None = Field(
        None, ge=1, description="most products that share a photo though they are different; null: all"
    )
    widening: Annotated[Widening, BeforeValidator(partial(given, Widening))] = Widening()
    model: AskedModel | None = None
    user: Identifier | None = Field(
        None, description="id of the user; while an experiment runs, the user's arm chooses the model"
    )

    @model_validator(mode="after")
    def _one_query(self) -> SimilarRequest:
        given = {name for name in ("product_id", "text", "image") if getattr(self, name) is not None}
        if len(given) != 1 and given != {"text", "image"}:
            raise ValueError(ONE_QUERY)
        return self

    @property
    def query(self) -> Text | Photo | PhotoAndText | None:
        """The input to embed; None if the query is a product of the index."""
        text = None if self.text is None else Text("text", self.text)
        photo = None if self.image is None else Photo("image", self.image)
        if text is not None and photo is not None:
            return PhotoAndText("image", photo, text)
        return text or photo

    @property
    def needs(self) -> Needs:
        match self.query:
            case Text():
                return Needs((EMBED_TEXT,), index=True)
            case Photo():
                return Needs((EMBED_IMAGE,), index=True)
            case PhotoAndText():
                return Needs((EMBED_IMAGE_TEXT,), index=True)
        return Needs(index=True)

    def rules(self, same_product: SameProduct = SameProduct()) -> Rules:
        """The rules of the shop, with the wishes of the request."""
        price = self.price or PriceRange()
        return Rules(
            identifiers=same_product.identifiers,
            variants=same_product.variants,
            in_stock=self.in_stock,
            price_min=price.min,
            price_max=price.max,
            currency=price.currency,
            attributes=self.attributes,
            seed_catalog=not self.exclude_catalog,
            cheapest=self.product_id is not None if self.cheapest is None else self.cheapest,
            component_cap=self.photo_cap,
        )


class SimilarProduct(ProductSummary):
    score: float = Field(description="cosine similarity to the query, of the product's best photo")
    ring: int = Field(description="0: found in the first category searched, 1: in the one searched next, ...")
    rules: list[Literal[NAMES]] = Field(  # type: ignore[valid-type]
        description="rules that the product was checked by. in_stock: its stock is known and not zero; price, "
        "attributes: they fit the request; cheapest: dearer listings of the product were left out; shared_photo: "
        "another result shares a photo with it; capped: `photo_cap` left out further products with the photo"
    )


class InArm(BaseModel):
    """The experiment that an answer counts for, and the arm of its user."""

    name: str
    arm: str


class SimilarAnswer(BaseModel):
    object: Literal["list"] = "list"
    model: str = Field(examples=["similar/2"])
    dataset: str = Field(description="dataset of the products", examples=["shop@0123456789ab"])
    snapshot: str = Field(
        description="the model version, and its index with the deltas it had at the time of the search",
        examples=["similar/2@0123456789abcdef+3.01234567"],
    )
    request_id: str = Field(description="id of this answer, for the events that are logged about it")
    experiment: InArm | None = Field(description="null: the answer counts for no experiment")
    data: list[SimilarProduct] = Field(
        description="best first: by ring, within the limits of `widening.margin`, then by score"
    )


BODY = Body(
    SimilarRequest,
    {
        "text": {"text": "red summer dress", "k": 10},
        "product": {
            "product_id": "PRODUCT_ID",
            "k": 10,
            "price": {"min": 10, "max": 100},
            "attributes": {"colour": "red"},
            "exclude_catalog": True,
            "photo_cap": 2,
            "widening": {"rings": 1},
        },
    },
)


def router(gateway: Gateway) -> APIRouter:
    """No routes if the settings switch search off."""
    routes = APIRouter(tags=["search"])
    if not gateway.settings.search:
        return routes

    @routes.post("/v1/similar", response_model=SimilarAnswer, openapi_extra=BODY)
    async def similar(request: Request) -> Response:
        """At most `k` products similar to the query, each with its ring and the rules that it was checked by.

        Model and index are of the one version named in the answer. While an experiment runs, a request that names a
        `user` and no `model` is answered by the model of the user's arm.
        """
        must_be_json(request)
        asked = await gateway.in_thread(parse, SimilarRequest, await request.body())
        if asked.exclude_catalog and asked.product_id is None:
            raise bad_request(
                "invalid_value", "exclude_catalog needs product_id: only a product has a catalog", "exclude_catalog"
            )
        served, arm = await answering(gateway, asked.user, asked.model, asked.needs)
        query, vector = asked.query, None
        if isinstance(query, PhotoAndText) and not served.can(EMBED_IMAGE_TEXT):
            raise bad_request("invalid_value", f"the body: {ONE_QUERY}")
        if query is not None:
            vectors, _ = await embed(gateway, served, [query])
            vector = vectors[0]
        try:
            body = await gateway.in_thread(_answer, served, asked, gateway.settings.same_product, vector)
        except UnknownProduct as error:
            raise not_found("product_not_found", str(error)[:300], "product_id") from None
        except UnknownCategory as error:
            raise not_found("category_not_found", str(error)[:300], "category") from None
        except UnknownAttribute as error:
            raise not_found("attribute_not_found", str(error)[:300], f"attributes.{error.key[:80]}") from None
        return answer({**body, "experiment": arm}, served.version)

    return routes


def _answer(served: Served, asked: SimilarRequest, same: SameProduct, vector: np.ndarray | None) -> dict[str, Any]:
    """The body. `vector` float32 [d] is the query, or None for a product. Raises UnknownProduct, -Category, -Attribute."""
    catalogue = served.catalogue
    assert catalogue is not None
    told = {"category": catalogue.category(asked.category), "attributes": catalogue.filters(asked.attributes)}
    asked = asked.model_copy(update=told)
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

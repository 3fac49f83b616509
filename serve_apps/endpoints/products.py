"""`GET /v1/products`, `/v1/images`, `/v1/categories`: the shop, which is the dataset under the active index."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from serve_apps.catalogue import Catalogue
from serve_apps.gateway import Gateway, Needs
from serve_apps.http.answers import ProductSummary, answer
from serve_apps.http.errors import bad_request, not_found
from serve_apps.http.inputs import CATEGORY, CategoryName, Price
from serve_apps.references import AskedModel
from shoplens.search.index import UnknownCategory

MAX_PAGE = 1000
Model = Annotated[
    AskedModel | None,
    Query(description="the model whose shop is shown; default: the first one in use that has an index"),
]


class ProductDetail(ProductSummary):
    """A product with its description, attributes and all photos."""

    description: str
    attributes: dict[str, list[str]]
    review_count: int | None
    images: list[str]
    model: str


class ProductsAnswer(BaseModel):
    object: Literal["list"] = "list"
    model: str
    dataset: str
    total: int
    data: list[ProductSummary]


class CategoryRow(BaseModel):
    id: str
    parent_id: str | None
    level: int
    name: str
    path: list[str]
    n_products: int = Field(description="products of the whole subtree")


class CategoriesAnswer(BaseModel):
    object: Literal["list"] = "list"
    model: str
    dataset: str
    data: list[CategoryRow]


def router(gateway: Gateway) -> APIRouter:
    """No routes if the settings switch search off."""
    routes = APIRouter(tags=["shop"])
    if not gateway.settings.search:
        return routes

    async def shop(model: str | None) -> tuple[Catalogue, str]:
        served = await gateway.served(model, Needs(index=True))
        assert served.catalogue is not None
        return served.catalogue, served.version

    @routes.get("/v1/products", response_model=ProductsAnswer)
    async def products(
        category: Annotated[CategoryName | None, Query(description=f"{CATEGORY}; its subtree is included")] = None,
        price_min: Annotated[Price | None, Query()] = None,
        price_max: Annotated[Price | None, Query()] = None,
        offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 60,
        model: Model = None,
    ) -> Response:
        """Products of the shop, a page at a time."""
        catalogue, version = await shop(model)
        if price_min is not None and price_max is not None and price_min > price_max:
            raise bad_request("invalid_value", "price_min is greater than price_max", "price_min")
        try:
            total, data = await gateway.in_thread(catalogue.page, category, price_min, price_max, offset, limit)
        except UnknownCategory as error:
            raise not_found("category_not_found", str(error)[:300], "category") from None
        body = {"object": "list", "model": version, "dataset": catalogue.name, "total": total, "data": data}
        return answer(body, version)

    @routes.get("/v1/products/{product_id:path}", response_model=ProductDetail)
    async def product(product_id: str, model: Model = None) -> Response:
        """One product with its description, attributes and all photos."""
        catalogue, version = await shop(model)
        try:
            found = catalogue.product(product_id)
        except KeyError:
            raise not_found("product_not_found", f"{catalogue.name} has no such product", "product_id") from None
        return answer({"model": version, **found}, version)

    @routes.get("/v1/categories", response_model=CategoriesAnswer)
    async def categories(model: Model = None) -> Response:
        """The category tree, depth first."""
        catalogue, version = await shop(model)
        body = {"object": "list", "model": version, "dataset": catalogue.name, "data": catalogue.categories}
        return answer(body, version)

    @routes.get(
        "/v1/images/{image_id:path}",
        response_class=Response,
        responses={200: {"content": {"image/*": {}}}, 304: {}},
    )
    async def image(
        image_id: str,
        dataset: Annotated[str | None, Query(pattern="^[0-9a-f]{12}$", description="as in `image` of answers")] = None,
    ) -> Response:
        """A photo with its original bytes. With `dataset` the address always names the same bytes."""
        if dataset is None:
            catalogue, _ = await shop(None)
        else:
            catalogue = gateway.catalogue(dataset, image_id)
        try:
            data, kind, sha256 = await gateway.in_thread(catalogue.photo, image_id)
        except KeyError:
            raise not_found("image_not_found", f"{catalogue.name} has no such image", "image_id") from None
        cached = "no-cache" if dataset is None else "public, max-age=31536000, immutable"
        headers = {
            "Cache-Control": cached,
            "ETag": f'"{sha256}"',
            "Content-Security-Policy": "default-src 'none'",
        }
        return Response(data, media_type=kind, headers=headers)

    return routes

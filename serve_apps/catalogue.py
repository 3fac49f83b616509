"""The shop that an index was built from, looked up by product, category and photo."""

from __future__ import annotations

from functools import cached_property
from typing import Any
from urllib.parse import quote

import numpy as np

from shoplens.datasets.format import Dataset

SUMMARY = ["product_id", "catalog_id", "title", "category_id", "category_path", "price", "currency", "seller"]
MEDIA_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}


class Catalogue:
    """Read access to one dataset; safe from many threads."""

    def __init__(self, path: str) -> None:
        """Raises ShoplensError if there is no dataset."""
        self.dataset = Dataset(path)
        self.digest = self.dataset.digest[:12]
        products, images = self.dataset.products, self.dataset.images
        self._row_of = {product: row for row, product in enumerate(products["product_id"].to_pylist())}
        self._sample_of = {image: sample for sample, image in enumerate(images["image_id"].to_pylist())}
        self._image_ids = images["image_id"]
        product_row = self.dataset.product_row
        self._by_product = np.argsort(product_row, kind="stable")
        self._first = np.searchsorted(product_row[self._by_product], np.arange(len(products) + 1))
        self._price = products["price"].to_numpy()
        places = {node.id: node.order for node in self.dataset.categories}
        self._place = np.array(
            [places.get(c or "", -1) for c in products["category_id"].to_pylist()], dtype=np.int64
        )
        self._summaries = products.select(SUMMARY)

    @property
    def name(self) -> str:
        """`NAME@digest12`, as answers name it."""
        return f"{self.dataset.name}@{self.digest}"

    def row(self, product_id: str) -> int | None:
        return self._row_of.get(product_id)

    def has_category(self, category_id: str) -> bool:
        return category_id in self.dataset.categories

    def summary(self, row: int) -> dict[str, Any]:
        """What answers say of a product; `image` is its first photo."""
        product = self._summaries.slice(row, 1).to_pylist()[0]
        photos = self._photos(row)
        return {**product, "image": self._url(photos[0]) if len(photos) else None}

    def detail(self, row: int) -> dict[str, Any]:
        product = self.dataset.products.slice(row, 1).to_pylist()[0]
        return {
            **self.summary(row),
            "description": product["description"] or "",
            "attributes": dict(product["attributes"] or ()),
            "images": [self._url(sample) for sample in self._photos(row)],
        }

    def rows(self, category: str | None, price_min: float | None, price_max: float | None) -> np.ndarray:
        """Rows of the products in the category's subtree and the price range (no price: in none), int64."""
        chosen = np.ones(len(self._place), dtype=bool)
        if category is not None:
            node = self.dataset.categories[category]
            chosen &= (self._place >= node.order) & (self._place <= node.last)
        if price_min is not None:
            chosen &= self._price >= price_min
        if price_max is not None:
            chosen &= self._price <= price_max
        return np.flatnonzero(chosen)

    @cached_property
    def categories(self) -> list[dict[str, Any]]:
        """Rows of `GET /v1/categories`, depth first."""
        table = self.dataset.table("categories").sort_by("order")
        rows = table.select(["category_id", "parent_id", "level", "name", "path", "n_products"]).to_pylist()
        return [{"id": row.pop("category_id"), **row} for row in rows]

    def sample(self, image_id: str) -> int | None:
        return self._sample_of.get(image_id)

    def photo(self, sample: int) -> tuple[bytes, str, str]:
        """Bytes as they came, media type, SHA-256."""
        row = self.dataset.images.slice(sample, 1).select(["format", "sha256"]).to_pylist()[0]
        return self.dataset.read_image(sample), MEDIA_TYPES[row["format"]], row["sha256"]

    def _photos(self, row: int) -> np.ndarray:
        return self._by_product[self._first[row] : self._first[row + 1]]

    def _url(self, sample: int) -> str:
        """The digest makes the address change with the dataset, so that it may be cached for good."""
        image_id = self._image_ids[int(sample)].as_py()
        return f"/v1/images/{quote(image_id, safe='')}?dataset={self.digest}"

"""The shop under an index: its products as answers show them, by category and price, and its photos."""

from __future__ import annotations

from functools import cached_property
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from serve_apps.release import Release
from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError
from shoplens.retrieval.index import Index

CARD = ["product_id", "catalog_id", "title", "category_id", "category_path", "price", "currency", "seller"]
MEDIA_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}


class Catalogue:
    """One index and the products of its dataset that can be found in it; safe from many threads."""

    def __init__(self, release: Release, dim: int) -> None:
        """Raises ShoplensError if there is no index, or not one of this version and of the dataset as it is."""
        assert release.index is not None
        self.index = Index.load(release.index)
        about = self.index.about
        built_for = f"{about.get('model')}/{about.get('version')}"
        if (built_for, self.index.dim) != (release.version, dim):
            raise ShoplensError(
                f"the index {release.index} was built for {built_for} with vectors of {self.index.dim}, "
                f"not for {release.version} with {dim}: build it again"
            )
        self.dataset = Dataset(about["dataset_path"])
        if self.dataset.digest != about["dataset_digest"]:
            raise ShoplensError(f"{self.dataset.path} has changed since the index was built: build the index again")
        self.digest = self.dataset.digest[:12]
        items = self.index.items
        self._image_ids = items["image_id"].combine_chunks()
        self._samples = items["sample"].to_numpy()
        self._row_of_photo = {image_id: row for row, image_id in enumerate(self._image_ids.to_pylist())}
        photos = np.argsort(self._samples, kind="stable")
        product = self.dataset.product_row[self._samples[photos]]
        self._photos = photos[np.argsort(product, kind="stable")]
        """Rows of `items`, those of a product next to each other, each product's in the dataset's order."""
        pictured, self._first = np.unique(np.sort(product), return_index=True)
        self._products = self.dataset.products.take(pa.array(pictured)).combine_chunks()
        self._row_of = {product_id: row for row, product_id in enumerate(self._products["product_id"].to_pylist())}
        self._price = self._products["price"].to_numpy()
        tree = self.dataset.categories
        places = {node.id: node.order for node in tree}
        self._place = np.array([places.get(c, -1) for c in self._products["category_id"].to_pylist()], dtype=np.int64)

    @property
    def name(self) -> str:
        """`NAME@digest12`, as answers name it."""
        return f"{self.dataset.name}@{self.digest}"

    def page(
        self, category: str | None, price_min: float | None, price_max: float | None, offset: int, limit: int
    ) -> tuple[int, list[dict[str, Any]]]:
        """How many products lie in the category's subtree and the price range, and the cards of `limit` of them.

        With a bound, products without a price are left out. Raises KeyError for an unknown category.
        """
        chosen = np.ones(len(self._place), dtype=bool)
        if category is not None:
            node = self.dataset.categories[category]
            chosen &= (self._place >= node.order) & (self._place <= node.last)
        if price_min is not None:
            chosen &= self._price >= price_min
        if price_max is not None:
            chosen &= self._price <= price_max
        rows = np.flatnonzero(chosen)
        return len(rows), self._cards(rows[offset : offset + limit])

    def cards(self, product_ids: list[str]) -> list[dict[str, Any]]:
        """What a list shows of each product. Raises KeyError for one that is not in the index."""
        return self._cards(np.array([self._row_of[product_id] for product_id in product_ids], dtype=np.int64))

    def _cards(self, rows: np.ndarray) -> list[dict[str, Any]]:
        cards = self._products.select(CARD).take(pa.array(rows)).to_pylist()
        return [{**card, "image": self._url(self._first[row])} for card, row in zip(cards, rows, strict=True)]

    def product(self, product_id: str) -> dict[str, Any]:
        """A card with description, attributes and all photos. Raises KeyError."""
        row = self._row_of[product_id]
        product = self._products.slice(row, 1).to_pylist(maps_as_pydicts="strict")[0]
        end = self._first[row + 1] if row + 1 < len(self._first) else len(self._photos)
        return {
            **self.cards([product_id])[0],
            "description": product["description"] or "",
            "attributes": product["attributes"] or {},
            "review_count": product["review_count"],
            "images": [self._url(place) for place in range(self._first[row], end)],
        }

    @cached_property
    def categories(self) -> list[dict[str, Any]]:
        """The tree, depth first; `n_products` are those that can be found, subtree included."""
        place = np.sort(self._place)
        return [
            {
                "id": node.id,
                "parent_id": node.parent_id,
                "level": node.level,
                "name": node.name,
                "path": list(node.path),
                "n_products": int(np.searchsorted(place, node.last, "right") - np.searchsorted(place, node.order)),
            }
            for node in self.dataset.categories
        ]

    def photo(self, image_id: str) -> tuple[bytes, str, str]:
        """Bytes as they came, media type, SHA-256. Raises KeyError."""
        sample = int(self._samples[self._row_of_photo[image_id]])
        row = self.dataset.images.slice(sample, 1).select(["format", "sha256"]).to_pylist()[0]
        return self.dataset.read_image(sample), MEDIA_TYPES[row["format"]], row["sha256"]

    def _url(self, place: int) -> str:
        """The digest makes the address change with the dataset, so that it may be cached for good."""
        image_id = self._image_ids[int(self._photos[place])].as_py()
        return f"/v1/images/{quote(image_id, safe='')}?dataset={self.digest}"

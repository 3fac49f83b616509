"""The shop under an index: product cards by category and price, and photos."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from serve_apps.release import Release
from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError, did_you_mean
from shoplens.search import deltas
from shoplens.search.index import UnknownCategory
from shoplens.search.rings import similar
from shoplens.search.rules import Rules, SameProduct

FACTS = ["product_id", "catalog_id", "category_id", "price", "currency", "stock", "attributes"]
"""Columns of the index. Deltas change them."""
WORDS = ["title", "description", "seller", "review_count"]
"""Columns of the dataset."""
CARD = ["product_id", "catalog_id", "title", "category_id", "price", "currency", "stock", "seller"]
MEDIA_TYPES = {"jpg": "image/jpeg"} | {kind: f"image/{kind}" for kind in ("png", "webp", "avif", "heic", "gif", "bmp")}


class UnknownAttribute(ShoplensError):
    """No product has the attribute `key`, or none has this value of it."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class Catalogue:
    """One index with its deltas, joined with the products and photos of its dataset. Many threads may use it.

    A product without a photo in the dataset cannot be shown, and `index` leaves it out. A product that only a delta
    has is an example. The *place* of a product is its position in `index.products`.
    """

    def __init__(self, release: Release, dim: int, same_product: SameProduct = SameProduct()) -> None:
        """Raises ShoplensError if the index is missing, is of another version, or its dataset has changed."""
        assert release.index is not None
        index = deltas.load(release.index)
        about = index.about
        built_for = f"{about.get('model')}/{about.get('version')}"
        if (built_for, index.dim) != (release.version, dim):
            raise ShoplensError(
                f"the index {release.index} was built for {built_for} with vectors of {index.dim}, "
                f"not for {release.version} with {dim}: build it again"
            )
        self.dataset = Dataset(about["dataset_path"])
        if self.dataset.digest != about["dataset_digest"]:
            raise ShoplensError(f"{self.dataset.path} has changed since the index was built: build the index again")
        self.digest = self.dataset.digest[:12]
        self._image_ids = index.items["image_id"].combine_chunks()
        self._samples = _samples(index.items, self.dataset)
        self._start = index.products.start
        some_sample = np.maximum.reduceat(self._samples, self._start[:-1])
        self.index = index.without(some_sample < 0)
        assert self.index.products.gone is not None
        self._shown = ~self.index.products.gone
        row = self.dataset.product_row[some_sample]
        self._listed = np.flatnonzero(self._shown)[np.argsort(row[self._shown], kind="stable")]
        """int64 [products]: places of the products that can be shown, in the order of the dataset."""
        facts = index.items.select(FACTS).take(pa.array(self._start[:-1]))
        currency = pc.coalesce(facts["currency"], self.dataset.products["currency"].take(pa.array(row)))
        facts = facts.set_column(FACTS.index("currency"), "currency", currency)
        words = self.dataset.products.select(WORDS).take(pa.array(row))
        self._products = pa.table([*facts.columns, *words.columns], [*FACTS, *WORDS]).combine_chunks()
        pictured = np.repeat(self._shown, np.diff(self._start)) & (self._samples >= 0)
        image_ids = self._image_ids.filter(pa.array(pictured)).to_pylist()
        self._sample_of = dict(zip(image_ids, self._samples[pictured].tolist(), strict=True))
        self._warm_up(same_product)

    def _warm_up(self, same_product: SameProduct) -> None:
        """Computes the lazy columns, so that the first search does not wait for them."""
        for product_id in self.index.products.ids(self._listed[:1]):
            similar(self.index, product_id, 1, rules=Rules(**dict(same_product)))
        self.index.products.having("", "")

    def category(self, named: str | None) -> str | None:
        """The id of a category, as `CategoryTree.find` takes its name; None for the whole shop. Raises UnknownCategory."""
        if named is None:
            return None
        try:
            return self.index.tree.find(named).id
        except ShoplensError as error:
            raise UnknownCategory(f"{self.name}: {error}") from None

    def filters(self, asked: Mapping[str, str | None]) -> dict[str, str]:
        """Attributes and values in the writing of the shop; the form of Unicode and outer blanks do not matter.

        A value of None is left out. Raises UnknownAttribute, with near keys or values in the message.
        """
        products, found = self.index.products, {}
        for key, value in asked.items():
            if value is None:
                continue
            if len(products.having(key, value)):
                found[key] = value
                continue
            keys = products.attribute_keys
            if (known := _same(key, keys)) is None:
                raise UnknownAttribute(key, f"{self.name} has no attribute {key[:80]!r}{_advice(key, keys)}")
            values = products.attribute_values(known)
            if (same := _same(value, values)) is None:
                what = f"no product of {self.name} has the {known} {value[:80]!r}"
                raise UnknownAttribute(key, what + _advice(value, values))
            found[known] = same
        return found

    @property
    def name(self) -> str:
        """`NAME@digest12`, the `dataset` of answers."""
        return f"{self.dataset.name}@{self.digest}"

    def page(
        self, category: str | None, price_min: float | None, price_max: float | None, offset: int, limit: int
    ) -> tuple[int, list[dict[str, Any]]]:
        """The number of products in the category's subtree and the price range, and the cards of one page of them.

        With a price bound, products without a price in the shop's main currency are left out. Raises UnknownCategory.
        """
        chosen = np.zeros(len(self._shown), dtype=bool)
        for low, high in self.index.slices(self.category(category)):
            chosen[low:high] = True
        places = self._listed[chosen[self._listed]]
        places = places[self.index.products.in_price_range(places, price_min, price_max)]
        return len(places), self.cards(places[offset : offset + limit])

    def cards(self, places: np.ndarray) -> list[dict[str, Any]]:
        """Cards of the products at these places int64 [p]. All of them must be products that can be shown."""
        rows = self._products.select(CARD).take(pa.array(places)).to_pylist()
        return [
            {**row, "category_path": self._path(row["category_id"]), "image": self._url(self._photos(place)[0])}
            for row, place in zip(rows, places.tolist(), strict=True)
        ]

    def product(self, product_id: str) -> dict[str, Any]:
        """A card with description, attributes and all photos. Raises KeyError if there is no such product to show."""
        place = self.index.products.place(product_id)
        if place is None:
            raise KeyError(product_id)
        product = self._products.slice(place, 1).to_pylist(maps_as_pydicts="strict")[0]
        return {
            **self.cards(np.array([place]))[0],
            "description": product["description"] or "",
            "attributes": product["attributes"] or {},
            "review_count": product["review_count"],
            "images": [self._url(row) for row in self._photos(place)],
        }

    @cached_property
    def categories(self) -> list[dict[str, Any]]:
        """The tree, depth first. `n_products` counts the products of the subtree that can be shown."""
        return [
            {
                "id": node.id,
                "parent_id": node.parent_id,
                "level": node.level,
                "name": node.name,
                "path": list(node.path),
                "n_products": sum(int(self._shown[low:high].sum()) for low, high in self.index.slices(node.id)),
            }
            for node in self.index.tree
        ]

    def has_photo(self, image_id: str) -> bool:
        return image_id in self._sample_of

    def photo(self, image_id: str) -> tuple[bytes, str, str]:
        """Original bytes, media type, SHA-256. Raises KeyError."""
        sample = self._sample_of[image_id]
        row = self.dataset.images.slice(sample, 1).select(["format", "sha256"]).to_pylist()[0]
        return self.dataset.read_image(sample), MEDIA_TYPES[row["format"]], row["sha256"]

    def first_photo(self, product_id: str) -> bytes:
        """The photo that lists show of a product, as the dataset has it. Raises KeyError."""
        place = self.index.products.place(product_id)
        if place is None:
            raise KeyError(product_id)
        return self.dataset.read_image(int(self._samples[self._photos(place)[0]]))

    def _path(self, category_id: str | None) -> list[str]:
        return [] if category_id is None else list(self.index.tree[category_id].path)

    def _photos(self, place: int) -> list[int]:
        """Rows of the product's photos, those that the dataset has, in the order of the dataset."""
        rows = np.arange(self._start[place], self._start[place + 1])
        rows = rows[self._samples[rows] >= 0]
        return rows[np.argsort(self._samples[rows])].tolist()

    def _url(self, row: int) -> str:
        """The digest changes the address with the dataset, so that browsers may cache the photo without a time limit."""
        return f"/v1/images/{quote(self._image_ids[row].as_py(), safe='')}?dataset={self.digest}"


def _same(asked: str, known: Sequence[str]) -> str | None:
    """The word among `known` that looks the same."""
    by_look = {_look(word): word for word in known}
    return by_look.get(_look(asked))


def _look(word: str) -> str:
    return unicodedata.normalize("NFC", word).strip()


def _advice(wrong: str, known: Sequence[str]) -> str:
    some = ", ".join(sorted(known)[:5])
    return did_you_mean(wrong, known) or (f"; there is {some}" if some else "")


def _samples(items: pa.Table, dataset: Dataset) -> np.ndarray:
    """int64 [photos]: the row of each photo in `Dataset.images`; -1 if the dataset has no photo of this id and product."""
    images = dataset.images
    sample = pc.index_in(items["image_id"], value_set=images["image_id"].combine_chunks())
    same = pc.equal(images["product_id"].take(sample), items["product_id"])
    known = pc.if_else(pc.fill_null(same, False), sample, -1)
    return known.to_numpy().astype(np.int64)

"""The vector index of a shop's photos, searched by category.

Products lie in depth-first order of the category tree, those without a category last. The photos of a product are
neighbours. So a category with its whole subtree is one slice of the vectors, and the score of a product is a maximum
over neighbouring scores. Products that a delta adds (`deltas`) follow the base in the same order; a category is then
two slices.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import copy
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from shoplens.errors import ShoplensError
from shoplens.schema import CategoryTree
from shoplens.search import files, scan
from shoplens.search.inverted_lists import Approximate, InvertedLists
from shoplens.search.items import conform, depth_first
from shoplens.search.products import Products, run_starts
from shoplens.search.scan import Gallery, Range, TopK
from shoplens.search.storage import STORAGES, Storage, Stored, Vectors, blocks, check_range, encode

_GREATEST_SCORE = 1e38


class UnknownCategory(ShoplensError):
    """The requested category is not in the index."""


class UnknownProduct(ShoplensError):
    """The requested product is not in the index."""


class Index:
    """An index in one folder. Vectors are mapped from disk, so replicas share their memory. Safe from many threads.

    Attributes:
    - `vectors` [n, d], `items` (`ITEMS`, one row a vector), `products` (their columns), `tree`
    - `about`: model name and version, dataset name and digest, and whatever else the builder recorded
    - `similar_categories`: for each category the learned similar ones, nearest first
    - `inverted_lists`: the approximate search of large ranges; None: every search is exact
    - `snapshot`: an id of the content; stored beside an answer it tells which index gave it
    """

    def __init__(
        self,
        vectors: Vectors,
        items: pa.Table,
        products: Products,
        slices: Mapping[str | None, Sequence[tuple[int, int]]],
        tree: CategoryTree,
        about: Mapping[str, Any],
        *,
        storage: Storage,
        longest: float,
        snapshot: str,
        similar_categories: Mapping[str, Sequence[str]] = MappingProxyType({}),
        inverted_lists: InvertedLists | None = None,
        order: np.ndarray | None = None,
    ) -> None:
        """Use `build`, `load` or `deltas.load`.

        `slices` are each category's ranges of products, in ascending order; under None those of the whole index.
        `order` int64 [products] ranks products of equal score; None: by their place.
        """
        self.vectors, self.items, self.products, self.tree, self.about = vectors, items, products, tree, dict(about)
        self.storage, self.longest, self.snapshot = storage, longest, snapshot
        self.similar_categories, self.inverted_lists = similar_categories, inverted_lists
        self.order, self._slices = order, slices
        self._gallery = Gallery(vectors, products.start, longest, order)

    @classmethod
    def build(
        cls,
        folder: str | os.PathLike[str],
        vectors: np.ndarray,
        items: pa.Table,
        tree: CategoryTree,
        about: Mapping[str, Any],
        *,
        storage: Storage = "float32",
        similar_categories: Mapping[str, Sequence[str]] = MappingProxyType({}),
        approximate: Approximate | None = None,
    ) -> Index:
        """Writes the index of `vectors` float32 [n, d] aside, moves it to `folder` (replaces an old index), loads it.

        items               `ITEMS`, one row for each vector
        storage             number format of the stored vectors: 4d, 2d or d + 4 bytes each. Exact search is exact for
                            the vectors as stored.
        similar_categories  see `category_similarity.similar_categories`
        approximate         search large ranges by inverted lists

        Raises ShoplensError if vectors are not finite, if items contradict each other, if a price is negative or not
        finite, or if a category is not in the tree.
        """
        if storage not in STORAGES:
            raise ShoplensError(f"vectors cannot be stored as {storage!r}: ask for {', '.join(STORAGES)}")
        vectors = np.asanyarray(vectors)
        if vectors.ndim != 2 or vectors.dtype != np.float32:
            raise ShoplensError(f"vectors must be float32 [n, d], not {vectors.dtype} {list(vectors.shape)}")
        if len(vectors) != items.num_rows or not len(vectors):
            raise ShoplensError(
                f"{len(vectors)} vectors for {items.num_rows} photos: give one for each, and at least one"
            )
        if not all(np.isfinite(vectors[rows]).all() for rows in blocks(*vectors.shape)):
            raise ShoplensError("some vectors are not finite: the model has diverged, embed with another version")
        check_range(vectors, storage)
        items = conform(items)
        order = depth_first(items, tree)
        items = items.take(pa.array(order))

        def stored(rows: slice) -> Stored:
            return encode(vectors[order[rows]], storage)

        files.write(folder, stored, vectors.shape[1], items, tree, about, storage, similar_categories, approximate)
        return cls.load(folder, verify=False)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, verify: bool = True) -> Index:
        """Opens an index; `verify` reads every file once and compares its SHA-256.

        Raises ShoplensError if the folder holds no index, or one that is damaged or of another format.
        """
        read = files.read(folder, verify=verify)
        items = conform(read.items)
        return cls(
            read.vectors,
            items,
            Products(items, np.append(run_starts(items["product_id"]), items.num_rows)),
            read.slices,
            read.tree,
            read.about,
            storage=read.storage,
            longest=read.longest,
            snapshot=read.snapshot,
            similar_categories=read.similar_categories,
            inverted_lists=read.inverted_lists,
        )

    @property
    def dim(self) -> int:
        return self.vectors.shape[1]

    def __len__(self) -> int:
        """Number of products that a search can return."""
        gone = self.products.gone
        return len(self.products) - (0 if gone is None else int(gone.sum()))

    def __contains__(self, product_id: object) -> bool:
        return self.products.place(product_id) is not None

    def without(self, hidden: np.ndarray) -> Index:
        """A view of this index that also hides the products `hidden` bool [products]. It shares the vectors."""
        other = copy(self)
        other.products = self.products.without(hidden)
        return other

    def slices(self, category: str | None) -> Sequence[tuple[int, int]]:
        """The product ranges (first, end) of a category's subtree; None: of the whole index. Raises UnknownCategory."""
        try:
            return self._slices[category]
        except KeyError:
            raise UnknownCategory(f"category {category!r} is not in the index: ask for one of its categories") from None

    def ring_order(self, category: str | None) -> list[str | None]:
        """The categories that a search visits: the given one, its similar categories, then its ancestors, nearest first.

        The ancestors come last, so the search always reaches what the tree alone would reach. None: the whole index.
        Raises UnknownCategory.
        """
        self.slices(category)
        order = [category]
        if category is not None:
            order += self.similar_categories.get(category, ())
        while category is not None and (category := self.tree[category].parent_id) is not None:
            order.append(category)
        return order

    def nearest(self, queries: np.ndarray, k: int, ranges: Sequence[Range]) -> TopK:
        """The top-k products of the disjoint `ranges` for each query [m, d]; see `scan.best`.

        Large ranges are searched approximately if the index has inverted lists. Raises ShoplensError if k is below 1, or
        if queries have another dimension, are not finite, or are so long that scores would overflow.
        """
        if k < 1:
            raise ShoplensError(f"k is {k}: ask for at least 1 product")
        queries = np.atleast_2d(np.asarray(queries, dtype=np.float32))
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ShoplensError(
                f"queries have shape {list(queries.shape)}, but the index holds vectors of {self.dim} numbers: embed "
                "queries with the model of the index"
            )
        greatest = float(np.abs(queries).max(initial=0))
        if not np.isfinite(greatest):
            raise ShoplensError("a query vector is not finite: embed the query again")
        if greatest * self.longest * self.dim > _GREATEST_SCORE:
            raise ShoplensError("scores of vectors this long overflow: scale queries and vectors to unit length")
        if self.inverted_lists is not None:
            approximate = self.inverted_lists.nearest(self._gallery, queries, k, ranges)
            if approximate is not None:
                return approximate
        return scan.best(self._gallery, queries, k, ranges)

    def vector_of(self, product_id: str) -> np.ndarray:
        """The query vector of a product, float32 [d]: the mean of its photos' vectors, at unit length.

        Raises UnknownProduct.
        """
        place = self.products.place(product_id)
        if place is None:
            raise UnknownProduct(f"product {product_id!r} is not in the index: ask for one of its products")
        return self.vector_at(place)

    def vector_at(self, place: int) -> np.ndarray:
        """Like `vector_of`, for the product at this place."""
        photos = self.vectors.block(int(self.products.start[place]), int(self.products.start[place + 1]))
        mean = photos.mean(axis=0, dtype=np.float64)
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), dtype=np.float32)

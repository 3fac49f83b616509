"""Random shops: several photos a product, coarse vectors (so that scores tie), holes in every column."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from shoplens.schema import CategoryTree
from shoplens.search.index import Index
from shoplens.search.items import ITEMS
from shoplens.search.scan import Range
from shoplens.search.storage import Storage

SIZES = [["S"], ["S"], ["M"], ["S", "M"], ["M", "S"], []]
NUMBERS = [["LG-109"], ["lg 109"], ["LG-108"], ["N/A"], ["LG-109", "LG-108"], []]
PATHS = [("a",), ("a", "b"), ("a", "b", "c"), ("a", "d"), ("e",), ("e", "f")]
NONE: Mapping[str, Sequence[str]] = {}


def tree_of(paths: Sequence[tuple[str, ...]]) -> CategoryTree:
    """Ids are the names on the way from the root, joined by `/`."""
    whole = {path[:end] for path in paths for end in range(1, len(path) + 1)}
    return CategoryTree.of((path, "/".join(path)) for path in whole)


TREE = tree_of(PATHS)


class Shop:
    """`vectors` [photos, dim] and `rows` of `ITEMS`, of which no product need have any."""

    def __init__(
        self,
        seed: int,
        n_products: int,
        n_photos: int,
        dim: int = 3,
        paths: Sequence[tuple[str, ...]] = PATHS,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.tree = TREE if paths is PATHS else tree_of(paths)
        self.vectors = rng.integers(-2, 3, size=(n_photos, dim)).astype(np.float32)
        product = rng.integers(n_products, size=n_photos)
        columns: dict[str, list[Any]] = {
            "catalog_id": [
                None if rng.random() < 0.2 else f"c{rng.integers(max(4, n_products // 3))}" for _ in range(n_products)
            ],
            "category_id": [
                None if rng.random() < 0.2 else "/".join(paths[rng.integers(len(paths))]) for _ in range(n_products)
            ],
            "price": [None if rng.random() < 0.2 else float(rng.integers(10)) for _ in range(n_products)],
            "currency": [[None, "KRW", "USD", "USD", "KRW", "KRW", "USD"][p % 7] for p in range(n_products)],
            "stock": [None if rng.random() < 0.2 else int(rng.integers(3)) for _ in range(n_products)],
            "component": [None if rng.random() < 0.5 else int(rng.integers(3)) for _ in range(n_products)],
            "attributes": [
                None
                if rng.random() < 0.2
                else [
                    ("color", ["red", "blue"][: rng.integers(3)]),
                    ("size", SIZES[rng.integers(len(SIZES))]),
                    ("brand", ["Ahn", "ahn."][: rng.integers(3)]),
                    ("MPN", NUMBERS[rng.integers(len(NUMBERS))]),
                ]
                for _ in range(n_products)
            ],
        }
        self.rows = [
            {"image_id": f"i{i}", "product_id": f"p{p}", "sample": i}
            | {name: values[p] for name, values in columns.items()}
            for i, p in enumerate(product.tolist())
        ]

    @property
    def items(self) -> pa.Table:
        return pa.Table.from_pylist(self.rows, schema=ITEMS)

    def build(
        self, folder: Path, storage: Storage = "float32", similar_categories: Mapping[str, Sequence[str]] = NONE
    ) -> Index:
        return Index.build(
            folder,
            self.vectors,
            self.items,
            self.tree,
            {"model": "eclip"},
            storage=storage,
            similar_categories=similar_categories,
        )


class Hit(NamedTuple):
    product_id: str
    row: int
    score: float


def nearest(
    index: Index, queries: np.ndarray, k: int, category: str | None = None, barred: Collection[str] = ()
) -> list[list[Hit]]:
    """The best k products of a category for each query, but those that are gone and those `barred` by id."""
    products = index.products
    excluded = np.isin(products.all_ids.to_numpy(zero_copy_only=False), list(barred))
    if products.gone is not None:
        excluded |= products.gone
    ranges = [Range(low, high, excluded[low:high]) for low, high in index.slices(category)]
    return [
        [Hit(*hit) for hit in zip(products.ids(places), rows.tolist(), scores.tolist(), strict=True)]
        for places, rows, scores in zip(*index.nearest(queries, k, ranges), strict=True)
    ]

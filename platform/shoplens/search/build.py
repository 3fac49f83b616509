"""What an index is built from: a dataset, the vectors of its photos, and what both tell of products and categories."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import field_validator

from shoplens.config import Config
from shoplens.curation.shared_photos import ComponentsConfig, components
from shoplens.datasets.format import Dataset
from shoplens.search.category_similarity import RingsConfig, categories_of, clicks_of, learned
from shoplens.search.index import Index, items
from shoplens.search.inverted_lists import Approximate
from shoplens.search.storage import Storage


class IndexConfig(Config):
    """How an index is built.

    storage         what a vector is kept as: float32, float16 or int8
    components      what makes two photos the same, of products of different catalogs
    rings           the order in which a search widens: the weights by which the similarity of categories is learned, or
                `tree` for the ancestors only
    approximate     which ranges of products are searched by inverted lists; null: none, every search is exact
    """

    storage: Storage = "float32"
    components: ComponentsConfig = ComponentsConfig()
    rings: RingsConfig | None = RingsConfig()
    approximate: Approximate | None = None

    @field_validator("rings", mode="before")
    @classmethod
    def _tree_is_no_rings(cls, rings: Any) -> Any:
        return None if rings == "tree" else rings


@dataclass(frozen=True)
class Built:
    """An index, and counts of what is in it: `str` says them in a sentence."""

    index: Index
    counts: Mapping[str, int]

    def __str__(self) -> str:
        said = {name: f"{count:,}" for name, count in self.counts.items()}
        told = (
            "{photos} photos of {products} products in {categories} categories; {sold_out} out of stock, of "
            "{stock_unknown} it is not known; {in_components} show a photo of another, in {components} components; "
        )
        rings = "rings by the category tree"
        if self.index.akin:
            rings = "rings by similar categories, learned from the photos" + (
                " and {sessions} sessions" if self.counts["sessions"] else ""
            )
        return (told + rings).format(**said)


def build(
    folder: str | os.PathLike[str],
    dataset: Dataset,
    samples: np.ndarray,
    vectors: np.ndarray,
    about: Mapping[str, Any],
    config: IndexConfig = IndexConfig(),
) -> Built:
    """The index in `folder` of the photos `samples` int64 [n] of a dataset, with their `vectors`, float32 unit rows [n, d].

    `about` gains `built_with`, the configuration. Raises ShoplensError as `Index.build` does.
    """
    product = dataset.product_row[samples]
    component = _components(dataset, samples, product, vectors, config.components)
    akin: dict[str, list[str]] = {}
    sessions = 0
    if config.rings is not None:
        clicks = clicks_of(dataset)
        sessions = len(np.unique(clicks.session))
        filed = categories_of(dataset.products["category_id"], dataset.categories)[product]
        akin = learned(vectors, filed, dataset.categories, clicks, config.rings)
    index = Index.build(
        folder,
        vectors,
        items(dataset, samples, component=pa.array(component, mask=component < 0)),
        dataset.categories,
        {**about, "built_with": config.model_dump(mode="json")},
        storage=config.storage,
        akin=akin,
        approximate=config.approximate,
    )
    products = index.products
    shared = products.component[products.component >= 0]
    counts = {
        "photos": len(samples),
        "products": len(products),
        "categories": len(index.tree),
        "sold_out": int((products.stock == 0).sum()),
        "stock_unknown": int((products.stock < 0).sum()),
        "in_components": len(shared),
        "components": len(np.unique(shared)),
        "sessions": sessions,
    }
    return Built(index, counts)


def _components(
    dataset: Dataset, samples: np.ndarray, product: np.ndarray, vectors: np.ndarray, config: ComponentsConfig
) -> np.ndarray:
    """int64 [products of the dataset]."""
    codes = dataset.products["catalog_id"].combine_chunks().dictionary_encode().indices
    role = dataset.images["role"].to_numpy(zero_copy_only=False)[samples]
    by_shop = ~np.isin(role.astype(str), config.user_roles)
    phash = dataset.images["phash"].to_numpy()[samples]
    return components(
        product[by_shop],
        codes.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64),
        phash[by_shop],
        config,
        vectors=vectors if by_shop.all() else vectors[by_shop],
    )

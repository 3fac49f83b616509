"""Build of an index from a dataset and the vectors of its photos, with photo groups and similar categories."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from shoplens.config import Config
from shoplens.curation.shared_photos import ComponentsConfig, components
from shoplens.datasets.format import Dataset
from shoplens.search.category_similarity import RingsConfig, categories_of, clicks_of, similar_categories
from shoplens.search.index import Index
from shoplens.search.inverted_lists import Approximate
from shoplens.search.items import items
from shoplens.search.storage import Storage


class IndexConfig(Config):
    """Settings of an index build."""

    storage: Storage = Field("float32", description="Number format of the stored vectors: float32, float16 or int8.")
    components: ComponentsConfig = Field(
        ComponentsConfig(), description="When two photos of different catalogs are the same photo."
    )
    rings: RingsConfig | None = Field(
        RingsConfig(),
        description="Weights of the category similarity that orders the rings of a search; `tree`: the ancestors only.",
    )
    approximate: Approximate | None = Field(
        None, description="Search large ranges by inverted lists; null: every search is exact."
    )

    @field_validator("rings", mode="before")
    @classmethod
    def _tree_is_no_rings(cls, rings: Any) -> Any:
        return None if rings == "tree" else rings


@dataclass(frozen=True)
class Built:
    """An index with counts of its content. `str` is one sentence with the counts."""

    index: Index
    counts: Mapping[str, int]

    def __str__(self) -> str:
        counts = {name: f"{count:,}" for name, count in self.counts.items()}
        content = (
            "{photos} photos of {products} products in {categories} categories; {sold_out} out of stock, the "
            "stock of {stock_unknown} unknown; {in_components} show a photo of another, in {components} components; "
        )
        rings = "rings by the category tree"
        if self.index.similar_categories:
            rings = "rings by similar categories, learned from the photos" + (
                " and {sessions} sessions" if self.counts["sessions"] else ""
            )
        return (content + rings).format(**counts)


def build(
    folder: str | os.PathLike[str],
    dataset: Dataset,
    samples: np.ndarray,
    vectors: np.ndarray,
    about: Mapping[str, Any],
    config: IndexConfig = IndexConfig(),
) -> Built:
    """Builds the index in `folder` of the photos `samples` int64 [n] with their `vectors`, float32 unit rows [n, d].

    `about` gains `built_with`, the settings. Raises ShoplensError as `Index.build` does.
    """
    product = dataset.product_row[samples]
    photo_group = _photo_groups(dataset, samples, product, vectors, config.components)
    similar: dict[str, list[str]] = {}
    sessions = 0
    if config.rings is not None:
        clicks = clicks_of(dataset)
        sessions = len(np.unique(clicks.session))
        category = categories_of(dataset.products["category_id"], dataset.categories)[product]
        similar = similar_categories(vectors, category, dataset.categories, clicks, config.rings)
    index = Index.build(
        folder,
        vectors,
        items(dataset, samples, photo_group=pa.array(photo_group, mask=photo_group < 0)),
        dataset.categories,
        {**about, "built_with": config.model_dump(mode="json")},
        storage=config.storage,
        similar_categories=similar,
        approximate=config.approximate,
    )
    products = index.products
    shared = products.photo_group[products.photo_group >= 0]
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


def _photo_groups(
    dataset: Dataset, samples: np.ndarray, product: np.ndarray, vectors: np.ndarray, config: ComponentsConfig
) -> np.ndarray:
    """int64 [products of the dataset]: the number of each product's photo group, -1 for none."""
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

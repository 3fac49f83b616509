"""The metadata table of the samplers: one row a photo, as plain arrays. No image is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError


@dataclass(frozen=True)
class Samples:
    """Photos of one or more splits.

    sample    int64 [n]: row in `images.parquet`
    product   int64 [n]: row in `products.parquet`
    catalog   int64 [n]: catalog code; a product without a catalog id is a catalog of its own
    category  int64 [n, levels]: category code at each level, root first. Below the product's deepest category, the
              code of that category is repeated. All -1 if the product has no category
    phash     uint64 [n]: perceptual hash of the photo
    """

    sample: np.ndarray
    product: np.ndarray
    catalog: np.ndarray
    category: np.ndarray
    phash: np.ndarray

    def __len__(self) -> int:
        return len(self.sample)

    def keep(self, mask: np.ndarray) -> Samples:
        """The rows where `mask` (bool [n]) is true."""
        return Samples(self.sample[mask], self.product[mask], self.catalog[mask], self.category[mask], self.phash[mask])

    @classmethod
    def of(cls, dataset: Dataset, splits: Sequence[str], roles: Sequence[str] | None = None) -> Samples:
        """All photos of `splits`, or only those with a role in `roles`.

        Raises ShoplensError if no photo is left; the message lists the splits of the dataset.
        """
        images = dataset.images
        chosen = np.isin(images["split"].to_numpy(zero_copy_only=False), list(splits))
        if roles is not None:
            chosen &= np.isin(images["role"].to_numpy(zero_copy_only=False), list(roles))
        sample = np.flatnonzero(chosen)
        if not len(sample):
            known = ", ".join(f"{split} ({n})" for split, n in dataset.manifest.photos_by_split.items())
            raise ShoplensError(f"{dataset.path} has no photo in split {'/'.join(splits)}; it has {known}")
        product = dataset.product_row[sample]
        return cls(
            sample=sample,
            product=product,
            catalog=catalog_codes(dataset)[product],
            category=category_codes(dataset)[product],
            phash=images["phash"].to_numpy()[sample],
        )


def catalog_codes(dataset: Dataset) -> np.ndarray:
    """Code of every product's catalog, int64 [products]; a product without one is a catalog of its own."""
    codes: dict[str, int] = {}
    ids = dataset.products["catalog_id"].to_pylist()
    return np.array(
        [codes.setdefault(f"c{c}" if c is not None else f"p{row}", len(codes)) for row, c in enumerate(ids)],
        dtype=np.int64,
    )


def category_codes(dataset: Dataset) -> np.ndarray:
    """Category code of every product at each level, as in `Samples.category`: int64 [products, levels]."""
    tree = dataset.categories
    levels = max((node.level for node in tree), default=1)
    lineage: dict[str | None, list[int]] = {None: [-1] * levels}
    for node in tree:
        parents = lineage[node.parent_id][: node.level - 1]
        lineage[node.id] = parents + [node.order] * (levels - len(parents))
    return np.array([lineage[c or None] for c in dataset.products["category_id"].to_pylist()], dtype=np.int64)

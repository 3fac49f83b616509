"""A split of a dataset as vectors, the input of every task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from shoplens.errors import ShoplensError

Modality = Literal["image", "text", "fused"]
MODALITIES: tuple[Modality, ...] = ("image", "text", "fused")
MODALITY_TITLES: dict[Modality, str] = {"image": "by photo", "text": "by text", "fused": "by both"}


@dataclass(frozen=True)
class EmbeddedSplit:
    """n photos of p products and c candidate categories as vectors. Vectors are float32 of unit length.

    `catalog[i] < 0` means that the product's catalog is unknown. Such a product is a catalog of its own.
    `category[i] < 0` means that the product has no candidate category. `category_vectors` encode the prompt of each
    candidate category; `category_paths` are the names from the root to that leaf category.
    """

    images: np.ndarray
    """[n, d]"""
    samples: np.ndarray
    """[n] sample id (row of `Dataset.images`)"""
    product: np.ndarray
    """[n] row of the photo's product"""
    texts: Sequence[str]
    """[p]"""
    text_vectors: np.ndarray
    """[p, d]"""
    catalog: np.ndarray
    """[p] code of the product's catalog"""
    category: np.ndarray | None = None
    """[p] row of the product's category"""
    category_vectors: np.ndarray | None = None
    """[c, d]"""
    category_paths: Sequence[tuple[str, ...]] = ()
    """[c]"""
    attributes: Sequence[Mapping[str, tuple[str, ...]]] = ()
    """[p] values by key; a missing key means that the product's value is unknown"""

    def __post_init__(self) -> None:
        """Raises ShoplensError if a vector is not finite: a comparison with nan would favour the model."""
        n, p = len(self.images), len(self.texts)
        if len(self.samples) != n or len(self.product) != n:
            raise ValueError(f"{n} photos, but {len(self.samples)} sample ids and {len(self.product)} product rows")
        if len(self.text_vectors) != p or len(self.catalog) != p:
            raise ValueError(f"{p} texts, but {len(self.text_vectors)} text vectors and {len(self.catalog)} catalogs")
        if not n:
            raise ShoplensError("the split has no photo to evaluate on: choose another split")
        if self.product.min() < 0 or self.product.max() >= p:
            raise ValueError("a product row is out of range")
        if (self.category is None) != (self.category_vectors is None):
            raise ValueError("category and category_vectors go together")
        if self.category is not None and self.category_vectors is not None:
            if len(self.category) != p or self.category.max(initial=-1) >= len(self.category_vectors):
                raise ValueError("category must hold a row of category_vectors for every product")
            if self.category_paths and len(self.category_paths) != len(self.category_vectors):
                raise ValueError("one category path for each category vector")
        for name in ("images", "text_vectors", "category_vectors"):
            vectors = getattr(self, name)
            bad = 0 if vectors is None else int((~np.isfinite(vectors).all(axis=1)).sum())
            if bad:
                raise ShoplensError(
                    f"the model gives {bad} of {len(vectors)} {name.replace('_', ' ')} that are not finite: its training diverged"
                )

    @property
    def catalog_of_product(self) -> np.ndarray:
        """[p] codes from 0 without gaps. Each unknown catalog has a code of its own."""
        own = int(self.catalog.max(initial=0)) + 1 + np.arange(len(self.catalog))
        return np.unique(np.where(self.catalog < 0, own, self.catalog), return_inverse=True)[1]

    @property
    def path_of_product(self) -> list[tuple[str, ...]]:
        """[p] category names from the root; empty for a product without a candidate category."""
        if self.category is None:
            return [()] * len(self.texts)
        return [tuple(self.category_paths[code]) if code >= 0 else () for code in self.category]

    def vectors(self, modality: Modality) -> np.ndarray:
        """float32 [m, d] of unit length: photos, texts of products, or each photo with its product's text (see `fuse`)."""
        match modality:
            case "image":
                return self.images
            case "text":
                return self.text_vectors
            case "fused":
                return fuse(self.images, self.text_vectors[self.product])

    def rows(self, modality: Modality) -> np.ndarray:
        """[m] the product row of each of `vectors`."""
        return np.arange(len(self.texts)) if modality == "text" else self.product

    def keep(self, products: np.ndarray) -> EmbeddedSplit:
        """Keeps the products where `products` (bool [p]) is true, with their photos.

        Raises ShoplensError if no photo remains.
        """
        photos = products[self.product]
        kept = np.flatnonzero(products).tolist()
        return replace(
            self,
            images=self.images[photos],
            samples=self.samples[photos],
            product=(np.cumsum(products) - 1)[self.product[photos]],
            texts=[self.texts[row] for row in kept],
            text_vectors=self.text_vectors[kept],
            catalog=self.catalog[kept],
            category=None if self.category is None else self.category[kept],
            attributes=[self.attributes[row] for row in kept] if self.attributes else (),
        )


def fuse(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The normalised sum of unit vectors [n, d], row by row."""
    both = a + b
    return both / np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-12)

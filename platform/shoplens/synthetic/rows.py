"""Rows of the tables `products` and `images`, and their ids."""

from __future__ import annotations

import hashlib
from typing import Any

from shoplens.datasets.images import HASH_SIDE, decode, perceptual_hash
from shoplens.schema import CategoryTree, Product
from shoplens.synthetic.catalogue import Design


def opaque_id(letter: str, number: int, seed: int) -> str:
    """An id that does not reveal which offers belong together. Numbers below 10^9 have distinct ids."""
    return f"{letter}{(number * 387_420_489 + seed * 1_000_003 + 271_828_183) % 10**9:09d}"


def category_id(design: Design) -> str:
    """The id of the leaf category of a design."""
    return CategoryTree().add(design.leaf.path)


def product_row(product: Product) -> dict[str, Any]:
    """The row of `products.parquet`."""
    fields = product.model_dump()
    return {
        "product_id": fields.pop("id"),
        **fields,
        "texts": list(product.texts.items()),
        "attributes": list(product.attributes.items()),
    }


def image_row(
    product: Product, image_id: str, role: str, shard: str, offset: int, data: bytes, size: tuple[int, int]
) -> dict[str, Any]:
    """The row of `images.parquet` of a JPEG with the bytes `data`, of `size` (width, height) in pixels."""
    return {
        "image_id": image_id,
        "product_id": product.id,
        "role": role,
        "split": product.split,
        "shard": shard,
        "offset": offset,
        "length": len(data),
        "width": size[0],
        "height": size[1],
        "format": "jpg",
        "sha256": hashlib.sha256(data).hexdigest(),
        "phash": perceptual_hash(decode(data, draft=HASH_SIDE, grey=True).image),
    }

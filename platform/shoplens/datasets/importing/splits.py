"""Splits: the names that other tools give them, and the parts that are drawn if a source names none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from shoplens.datasets.importing.source import Reject, SourceProduct
from shoplens.datasets.importing.tidy import tidy
from shoplens.schema import Product

_NAMES = {
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "development": "val",
    "training": "train",
    "testing": "test",
}
SHARE = 0.1
"""Share of the catalogs that is drawn for `val`, and for `test`."""
SMALL = 50
DRAWN = (
    f"splits: the source names none, so {SHARE:.0%} of the catalogs are drawn for val and {SHARE:.0%} for test, by a "
    "hash of their ids; a product without a catalog_id is a catalog of its own"
)


def split_name(name: str) -> str:
    """`"Validation "` -> `"val"`, the name that shoplens uses. Other names are only made lower case."""
    folded = tidy(name).casefold()
    return _NAMES.get(folded, folded)


def catalog_key(product: Product) -> str:
    """The catalog of a product: what must not lie in two splits."""
    return f"c{product.catalog_id}" if product.catalog_id is not None else f"p{product.id}"


def draw_splits(items: Iterable[SourceProduct | Reject | object]) -> Mapping[str, str] | None:
    """The split of every catalog with a photo, or None as soon as an item names a split.

    The split of a catalog depends on its id alone, so a shop that grows keeps its splits. In a shop of fewer than `SMALL`
    catalogs, where chance could leave a part empty, the parts are the first catalogs in the order of the hash. One
    catalog is `train`, two are `train` and `val`.
    """
    place: dict[str, float] = {}
    for item in items:
        if not isinstance(item, SourceProduct):
            continue
        photos = [photo for photo in item.photos if not isinstance(photo, Reject)]
        if "split" in item.product.model_fields_set or any(photo.split for photo in photos):
            return None
        if photos:
            key = catalog_key(item.product)
            place[key] = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    n = len(place)
    ends = [sum(at < SHARE for at in place.values()), sum(at < 2 * SHARE for at in place.values())]
    if n < SMALL or not 0 < ends[0] < ends[1] < n:
        part = max(1, round(SHARE * n))
        ends = [part, 2 * part] if n > 2 else [0, n - 1]
    ordered = sorted(place, key=lambda key: place[key])
    return {key: "test" if rank < ends[0] else "val" if rank < ends[1] else "train" for rank, key in enumerate(ordered)}

"""Products that an export lists in several rows, one for each variant or photo."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from shoplens.datasets.importing.feeds import Columns
from shoplens.datasets.importing.rows import Placed, Row
from shoplens.datasets.importing.source import Reject
from shoplens.datasets.importing.tidy import identifier, no_value
from shoplens.datasets.importing.vocabularies import SHOPIFY, WOOCOMMERCE

MERGED = (SHOPIFY, WOOCOMMERCE)
"""Vocabularies whose tables list a product in several rows."""


def merged(rows: Iterable[Placed], columns: Columns) -> Iterator[Placed]:
    """One row a product, under our names, in the order of their first rows. The whole table is held in memory.

    The first row with a title gives the fields, and the others what it lacks. Photos and values of attributes are those
    of all rows. Stock is their sum; a stock that is no number of pieces is noted and does not count.
    """
    families: dict[str, list[tuple[str, Row]]] = {}
    parent_of_sku: dict[str, str] = {}
    orphans: list[tuple[str, Row, str]] = []
    for where, theirs in rows:
        if isinstance(theirs, Reject):
            yield where, theirs
            continue
        parent = _parent(theirs, columns)
        if parent is not None and parent.startswith("id:"):
            families.setdefault(parent[3:].strip(), []).append((where, theirs))
        elif parent is not None:
            orphans.append((where, theirs, parent))
        else:
            key = _key(columns.row(theirs).get("id")) or where
            families.setdefault(key, []).append((where, theirs))
            if sku := _key(theirs.get(columns.names.get("sku", ""))):
                parent_of_sku[sku] = key
    for where, theirs, parent in orphans:
        families.setdefault(parent_of_sku.get(parent, parent), []).append((where, theirs))
    for family in families.values():
        yield from _together(family, columns)


def _together(family: list[tuple[str, Row]], columns: Columns) -> Iterator[Placed]:
    family = sorted(
        family, key=lambda row: (_parent(row[1], columns) is not None, no_value(columns.row(row[1]).get("title")))
    )
    where, first = family[0]
    names = {name: first[name] for name, _ in columns.options if not no_value(first.get(name))}
    product: Row = {}
    photos: dict[str, list[Any]] = {"image": [], "images": []}
    attributes: dict[str, list[Any]] = {}
    stock: list[tuple[str, Any]] = []
    for at, theirs in family:
        ours = columns.row({**names, **{key: value for key, value in theirs.items() if not no_value(value)}})
        for field, seen in photos.items():
            seen += [photo for photo in ours.pop(field, []) if photo not in seen]
        if isinstance(ours.get("attributes"), Mapping):
            for key, value in ours.pop("attributes").items():
                attributes.setdefault(key, []).extend(value if isinstance(value, list) else [value])
        if "stock" in ours:
            stock.append((at, ours.pop("stock")))
        product = {**ours, **product}
    if attributes:
        product["attributes"] = attributes
    pieces = []
    for at, given in stock:
        try:
            number = int(identifier(given))
        except ValueError:
            number = -1
        if number < 0:
            detail = f"stock: {reprlib.repr(given)} is no number of pieces; it does not count"
            yield at, Reject("field", detail, at, _key(product.get("id")))
        else:
            pieces.append(number)
    if pieces:
        product["stock"] = sum(pieces)
    yield where, {**product, **photos}


def _parent(theirs: Row, columns: Columns) -> str | None:
    """The product of which a row of WooCommerce is a variation: `id:10`, or its SKU."""
    return _key(theirs.get(columns.names.get("parent", ""))) if columns.vocabulary is WOOCOMMERCE else None


def _key(value: Any) -> str | None:
    try:
        return None if no_value(value) else identifier(value)
    except ValueError:
        return None

"""The products of an index as columns: what filters and rules look at, and lookups by id, catalog and attribute.

A product's place is its number in the order of the index. Ids stay in Arrow arrays and are found by bisection:
opening an index of a million products makes no Python string.
"""

from __future__ import annotations

from bisect import bisect_left
from copy import copy
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shoplens.search.attributes import AttributePairs, attribute_pairs, variants
from shoplens.search.product_identity import Identifiers, products_of

_OFFERS_KEPT = 4
_COLUMNS = ["product_id", "catalog_id", "category_id", "price", "stock", "component", "attributes"]


class Offers(NamedTuple):
    """What is one thing to a shopper: listings of one product that agree in some attributes.

    code   int64 [n]: a number for each such group; -1 of a listing of which neither catalog nor number tells
    order  int64 [n]: places by group, then price, then id, those of no group first; without a price last in their group
    begin  int64 [groups + 1]: where each group's begin in `order`
    """

    code: np.ndarray
    order: np.ndarray
    begin: np.ndarray


class Members(NamedTuple):
    """Ragged groups one behind the other: `place` [t], and the group [t] that each belongs to."""

    group: np.ndarray
    place: np.ndarray


class Products:
    """The columns of n products, read from the first photo of each among the items (`index.ITEMS`).

    all_ids    string [n]
    start      int64 [n + 1]: the photos of product p are the rows start[p]..start[p + 1]
    price      float64 [n], NaN where unknown
    stock      int64 [n], pieces; -1 where unknown
    component  int64 [n]: products with equal ones share a photo; -1 where unknown
    catalog    int64 [n]: a number for each catalog; -1 where unknown
    gone       bool [n] of those that must not be found, or None
    """

    def __init__(self, items: pa.Table, start: np.ndarray, gone: np.ndarray | None = None) -> None:
        self.start, self.gone = start, gone
        self._first = items.select(_COLUMNS).take(pa.array(start[:-1]))
        self.all_ids = _whole(self._first["product_id"])
        self.price = _whole(self._first["price"]).to_numpy(zero_copy_only=False)
        self.stock, self.component = (
            _whole(self._first[name]).fill_null(-1).to_numpy(zero_copy_only=False) for name in ("stock", "component")
        )
        self._there = np.arange(len(start) - 1) if gone is None else np.flatnonzero(~gone)
        """Places of what has not left the shop; that is more than can be found in `without`."""
        self._identities: dict[Identifiers, np.ndarray] = {}
        self._offers: dict[tuple[tuple[str, ...], Identifiers], Offers] = {}

    def __len__(self) -> int:
        return len(self.all_ids)

    def without(self, hidden: np.ndarray) -> Products:
        """The same columns, in which those `hidden` bool [n] must not be found either."""
        other = copy(self)
        other.gone = hidden if self.gone is None else self.gone | hidden
        return other

    def of_photos(self, rows: np.ndarray) -> np.ndarray:
        """The places of the products that the photos at these rows [p] are of."""
        return np.searchsorted(self.start, rows, side="right") - 1

    def ids(self, places: np.ndarray) -> list[str]:
        """The ids of the products at these places [p]."""
        return self.all_ids.take(pa.array(places)).to_pylist()

    def category(self, place: int) -> str | None:
        return self._first["category_id"][place].as_py()

    def place(self, product_id: object) -> int | None:
        """Where the product is, None if it is not here."""
        places = self._by_id.equal_to(product_id)
        if self.gone is not None:
            places = places[~self.gone[places]]
        return int(places[0]) if len(places) else None

    @cached_property
    def _by_id(self) -> _Sorted:
        return _Sorted(self.all_ids)

    @cached_property
    def id_rank(self) -> np.ndarray:
        """int64 [n]: the place of each product's id among the sorted ids."""
        rank = np.empty(len(self), dtype=np.int64)
        rank[self._by_id.order] = np.arange(len(self))
        return rank

    @cached_property
    def _catalogs(self) -> pa.DictionaryArray:
        return _whole(self._first["catalog_id"]).dictionary_encode()

    @cached_property
    def catalog(self) -> np.ndarray:
        return self._catalogs.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)

    def identity(self, identifiers: Identifiers = ()) -> np.ndarray:
        """int64 [n]: equal for listings of one product (`product_identity.products_of`), -1 where none is known.

        What has left the shop tells nothing of others, and is of no product itself.
        """
        if (kept := self._identities.get(identifiers)) is not None:
            return kept
        found, there = np.full(len(self), -1, dtype=np.int64), self._there
        found[there] = products_of(self.catalog[there], self._attribute_column.take(pa.array(there)), identifiers)
        if len(self._identities) < _OFFERS_KEPT:
            self._identities[identifiers] = found
        return found

    def offers(self, keys: tuple[str, ...] = (), identifiers: Identifiers = ()) -> Offers:
        """The listings of a product whose values of the attributes `keys` are the same; of no keys, all of them."""
        if (kept := self._offers.get((keys, identifiers))) is not None:
            return kept
        product, variant = self.identity(identifiers), variants(self._attribute_column, keys)
        code = np.where(product >= 0, product * (variant.max(initial=0) + 1) + variant, -1)
        code = np.unique(code, return_inverse=True)[1] - int((product < 0).any())
        order = np.lexsort((self.id_rank, self.price, code))
        found = Offers(code, order, np.searchsorted(code[order], np.arange(code.max(initial=-1) + 2)))
        if len(self._offers) < _OFFERS_KEPT:
            self._offers[keys, identifiers] = found
        return found

    @property
    def _attribute_column(self) -> pa.MapArray:
        return _whole(self._first["attributes"])

    @cached_property
    def _attributes(self) -> AttributePairs:
        return attribute_pairs(self._attribute_column)

    @cached_property
    def _keys(self) -> _Sorted:
        return _Sorted(self._attributes.keys)

    @cached_property
    def _values(self) -> _Sorted:
        return _Sorted(self._attributes.values)

    def having(self, key: str, value: str) -> np.ndarray:
        """The places, in order, of the products whose attribute `key` has this value among its values."""
        codes, pairs = self._keys.equal_to(key), self._attributes
        found = self._values.equal_to(value)
        if not len(codes) or not len(found):
            return np.empty(0, dtype=np.int64)
        code = codes[0] * len(pairs.values) + found[0]
        return pairs.row[np.searchsorted(pairs.code, code) : np.searchsorted(pairs.code, code, side="right")]


def members(offers: Offers, codes: np.ndarray) -> Members:
    """The products of each of these groups [g], cheapest first, then by id; those without a price stand last.

    `group` counts along `codes`.
    """
    begin = offers.begin
    count = begin[codes + 1] - begin[codes]
    group = np.repeat(np.arange(len(codes)), count)
    within = np.arange(len(group)) - np.repeat(np.cumsum(count) - count, count)
    return Members(group, offers.order[begin[codes][group] + within])


def run_starts(ids: pa.ChunkedArray) -> np.ndarray:
    """int64: where each run of equal neighbours begins."""
    whole = _whole(ids)
    if not len(whole):
        return np.empty(0, dtype=np.int64)
    changes = pc.not_equal(whole[1:], whole[:-1]).to_numpy(zero_copy_only=False)
    return np.flatnonzero(np.append(True, changes))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole


class _Sorted:
    """Strings in order: equal ones are found by bisection."""

    def __init__(self, strings: pa.Array) -> None:
        self._strings = strings
        self.order = pc.sort_indices(strings).to_numpy(zero_copy_only=False).astype(np.int64)

    def equal_to(self, string: object) -> np.ndarray:
        """The places that hold the string."""
        if not isinstance(string, str):
            return self.order[:0]
        low = high = bisect_left(range(len(self.order)), string, key=self._at)
        while high < len(self.order) and self._at(high) == string:
            high += 1
        return self.order[low:high]

    def _at(self, place: int) -> str:
        return self._strings[int(self.order[place])].as_py()

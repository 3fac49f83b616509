"""Product columns of an index: what filters and rules read, with lookups by id and by attribute.

A product's *place* is its number in the order of the index. Ids stay in Arrow arrays and are looked up by bisection, so
opening an index of a million products creates no Python strings.
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

_CACHED = 4
"""Settings for which identities and offers are kept."""
_COLUMNS = ["product_id", "catalog_id", "category_id", "price", "currency", "stock", "component", "attributes"]


class Offers(NamedTuple):
    """Offer groups: listings of one product that agree in the variant attributes, one thing to a shopper.

    code   int64 [n]: the group of each listing; -1 where neither catalog nor name identifies the product
    order  int64 [n]: places by group (no group first), then currency (products without a price last), then price, then id
    begin  int64 [groups + 1]: where each group begins in `order`
    """

    code: np.ndarray
    order: np.ndarray
    begin: np.ndarray


class Members(NamedTuple):
    """Groups of different sizes, concatenated: the `place` [t] of each member and its `group` [t]."""

    group: np.ndarray
    place: np.ndarray


class Products:
    """The columns of n products, read from the first photo of each product in the items (`items.ITEMS`).

    all_ids      string [n]
    start        int64 [n + 1]: the photos of product p are the rows start[p] to start[p + 1]
    price        float64 [n], NaN where unknown
    currency     int64 [n]: the number of the price's currency in `currencies`; -1 where unknown
    stock        int64 [n], pieces; -1 where unknown
    photo_group  int64 [n]: products of one group share a photo; -1 for none (column `component`)
    catalog      int64 [n]: the number of each catalog; -1 where unknown
    gone         bool [n]: products that a search must not return; None: no product
    """

    def __init__(self, items: pa.Table, start: np.ndarray, gone: np.ndarray | None = None) -> None:
        self.start, self.gone = start, gone
        self._first = items.select(_COLUMNS).take(pa.array(start[:-1]))
        self.all_ids = _whole(self._first["product_id"])
        self.price = _whole(self._first["price"]).to_numpy(zero_copy_only=False)
        self.stock, self.photo_group = (
            _whole(self._first[name]).fill_null(-1).to_numpy(zero_copy_only=False) for name in ("stock", "component")
        )
        self._there = np.arange(len(start) - 1) if gone is None else np.flatnonzero(~gone)
        """Places of the products that are still in the shop. Those hidden by `without` are among them."""
        self._identities: dict[Identifiers, np.ndarray] = {}
        self._offers: dict[tuple[tuple[str, ...], Identifiers], Offers] = {}

    def __len__(self) -> int:
        return len(self.all_ids)

    def without(self, hidden: np.ndarray) -> Products:
        """The same columns, with the products `hidden` bool [n] gone too."""
        other = copy(self)
        other.gone = hidden if self.gone is None else self.gone | hidden
        return other

    def of_photos(self, rows: np.ndarray) -> np.ndarray:
        """int64 [p]: the product of each photo row [p]."""
        return np.searchsorted(self.start, rows, side="right") - 1

    def ids(self, places: np.ndarray) -> list[str]:
        """The ids of the products at these places [p]."""
        return self.all_ids.take(pa.array(places)).to_pylist()

    def category(self, place: int) -> str | None:
        return self._first["category_id"][place].as_py()

    def place(self, product_id: object) -> int | None:
        """The place of a product; None if it is not in the index or is gone."""
        places = self._by_id.equal_to(product_id)
        if self.gone is not None:
            places = places[~self.gone[places]]
        return int(places[0]) if len(places) else None

    @cached_property
    def _currencies(self) -> pa.DictionaryArray:
        return _whole(self._first["currency"]).dictionary_encode()

    @cached_property
    def currencies(self) -> list[str]:
        return self._currencies.dictionary.to_pylist()

    @cached_property
    def currency(self) -> np.ndarray:
        return self._currencies.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)

    @cached_property
    def main_currency(self) -> str | None:
        """The currency of most products with a price; None: most prices have no currency, or there is no price."""
        there = self._there[~np.isnan(self.price[self._there])]
        counts = np.bincount(self.currency[there] + 1, minlength=len(self.currencies) + 1).tolist()
        return min(zip(counts, [None, *self.currencies], strict=True), key=lambda one: (-one[0], one[1] or ""))[1]

    def in_price_range(
        self, places: np.ndarray, least: float | None, greatest: float | None, currency: str | None = None
    ) -> np.ndarray:
        """bool [p]: which products at these places [p] have a price in the range, inclusive, and in the currency.

        Without a currency, the range is in the `main_currency`. Without a bound, every product passes.
        """
        passes = np.ones(len(places), dtype=bool)
        if least is None and greatest is None:
            return passes
        asked = self.main_currency if currency is None else currency
        known = {None: -1} | {name: code for code, name in enumerate(self.currencies)}
        passes &= self.currency[places] == known.get(asked, -2)
        passes &= self.price[places] >= (0 if least is None else least)
        return passes & (self.price[places] <= (np.inf if greatest is None else greatest))

    @cached_property
    def _by_id(self) -> _Sorted:
        return _Sorted(self.all_ids)

    @cached_property
    def id_rank(self) -> np.ndarray:
        """int64 [n]: the rank of each product's id."""
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
        """int64 [n]: equal for listings of one product (`product_identity.products_of`), -1 where unknown.

        Listings that left the shop get -1 and do not influence the others.
        """
        if (cached := self._identities.get(identifiers)) is not None:
            return cached
        product, there = np.full(len(self), -1, dtype=np.int64), self._there
        product[there] = products_of(self.catalog[there], self._attribute_column.take(pa.array(there)), identifiers)
        if len(self._identities) < _CACHED:
            self._identities[identifiers] = product
        return product

    def offers(self, keys: tuple[str, ...] = (), identifiers: Identifiers = ()) -> Offers:
        """Groups of the listings of a product that have equal values of the attributes `keys`; without keys: all of them."""
        if (cached := self._offers.get((keys, identifiers))) is not None:
            return cached
        product, variant = self.identity(identifiers), variants(self._attribute_column, keys)
        code = np.where(product >= 0, product * (variant.max(initial=0) + 1) + variant, -1)
        code = np.unique(code, return_inverse=True)[1] - int((product < 0).any())
        unit = np.where(np.isnan(self.price), len(self.currencies), self.currency)
        order = np.lexsort((self.id_rank, self.price, unit, code))
        offers = Offers(code, order, np.searchsorted(code[order], np.arange(code.max(initial=-1) + 2)))
        if len(self._offers) < _CACHED:
            self._offers[keys, identifiers] = offers
        return offers

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

    @property
    def attribute_keys(self) -> list[str]:
        return self._attributes.keys.to_pylist()

    def attribute_values(self, key: str) -> list[str]:
        """The values that products have of an attribute; [] if there is no such attribute."""
        pairs, codes = self._attributes, self._keys.equal_to(key)
        if not len(codes):
            return []
        first, end = np.searchsorted(pairs.code, np.array([codes[0], codes[0] + 1]) * len(pairs.values))
        return pairs.values.take(pa.array(np.unique(pairs.code[first:end]) % len(pairs.values))).to_pylist()

    def having(self, key: str, value: str) -> np.ndarray:
        """The places, ascending, of the products whose values of the attribute `key` include this one."""
        pairs = self._attributes
        key_codes, value_codes = self._keys.equal_to(key), self._values.equal_to(value)
        if not len(key_codes) or not len(value_codes):
            return np.empty(0, dtype=np.int64)
        code = key_codes[0] * len(pairs.values) + value_codes[0]
        return pairs.row[np.searchsorted(pairs.code, code) : np.searchsorted(pairs.code, code, side="right")]


def members(offers: Offers, codes: np.ndarray) -> Members:
    """The listings of the offer groups `codes` [g] by currency (unknown price last), cheapest first, then by id.

    `group` is the position in `codes`.
    """
    begin = offers.begin
    count = begin[codes + 1] - begin[codes]
    group = np.repeat(np.arange(len(codes)), count)
    within = np.arange(len(group)) - np.repeat(np.cumsum(count) - count, count)
    return Members(group, offers.order[begin[codes][group] + within])


def run_starts(ids: pa.ChunkedArray) -> np.ndarray:
    """int64: the rows where a run of equal ids begins."""
    whole = _whole(ids)
    if not len(whole):
        return np.empty(0, dtype=np.int64)
    changes = pc.not_equal(whole[1:], whole[:-1]).to_numpy(zero_copy_only=False)
    return np.flatnonzero(np.append(True, changes))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole


class _Sorted:
    """Strings sorted for lookup by bisection."""

    def __init__(self, strings: pa.Array) -> None:
        self._strings = strings
        self.order = pc.sort_indices(strings).to_numpy(zero_copy_only=False).astype(np.int64)

    def equal_to(self, string: object) -> np.ndarray:
        """The places of this string."""
        if not isinstance(string, str):
            return self.order[:0]
        low = high = bisect_left(range(len(self.order)), string, key=self._at)
        while high < len(self.order) and self._at(high) == string:
            high += 1
        return self.order[low:high]

    def _at(self, place: int) -> str:
        return self._strings[int(self.order[place])].as_py()

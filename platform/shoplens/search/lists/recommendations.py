"""Recommendations: the list of similar products of every seed, checked against the rules and stored as a table."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shoplens.errors import ShoplensError
from shoplens.search.index import Index
from shoplens.search.rings import Widening, similar
from shoplens.search.rules import NAMES, Rules

RECOMMENDATIONS = pa.schema(
    [
        ("seed", pa.string()),
        ("product_ids", pa.list_(pa.string())),
        ("rings", pa.list_(pa.int64())),
        ("scores", pa.list_(pa.float64())),
        ("rules", pa.list_(pa.list_(pa.string()))),
        ("seconds", pa.float64()),
    ]
)
"""One row a seed, results best first. The schema's metadata holds `snapshot`, `k`, `rules` and `widening`."""
_BIT = {name: 1 << number for number, name in enumerate(NAMES)}


@dataclass(frozen=True)
class Recommendations:
    """The lists of n seeds, at most k results each.

    seeds    ids of products; a seed that is not in the index has an empty list
    seed     int64 [n]: the seed's place in the index, -1 if it is not there
    place    int64 [n, k]: the results' places in the index, best first, padded with -1
    row      int64 [n, k]: the result's best photo, a row of `Index.items`, padded with -1
    ring     int64 [n, k]: the result's ring, padded with -1
    score    float64 [n, k], padded with NaN
    applied  uint8 [n, k]: the rules applied, one bit for each of `rules.NAMES`
    seconds  float64 [n]: duration of each search, NaN if there was none
    snapshot id of the index
    """

    seeds: Sequence[str]
    seed: np.ndarray
    place: np.ndarray
    row: np.ndarray
    ring: np.ndarray
    score: np.ndarray
    applied: np.ndarray
    seconds: np.ndarray
    snapshot: str

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def k(self) -> int:
        return self.place.shape[1]


def recommend(
    index: Index,
    seeds: Sequence[str],
    k: int,
    *,
    rules: Rules = Rules(),
    widening: Widening = Widening(),
    done: Callable[[int], object] = lambda n: None,
) -> Recommendations:
    """The results of `rings.similar` for each seed. `done(1)` is called after each seed.

    Searches run one after the other. They hold the interpreter lock most of the time, so threads would only slow down
    each of them. Raises ShoplensError if k is below 1.
    """
    if k < 1:
        raise ShoplensError(f"k is {k}: ask for at least 1 product")
    n = len(seeds)
    place, row, ring = (np.full((n, k), -1, dtype=np.int64) for _ in range(3))
    score, applied = np.full((n, k), np.nan), np.zeros((n, k), dtype=np.uint8)
    seconds, own = np.full(n, np.nan), np.full(n, -1, dtype=np.int64)
    for number, seed in enumerate(seeds):
        at = index.products.place(seed)
        if at is not None:
            own[number] = at
            began = perf_counter()
            results = similar(index, seed, k, rules=rules, widening=widening).results
            seconds[number] = perf_counter() - began
            end = len(results)
            row[number, :end] = [result.row for result in results]
            ring[number, :end] = [result.ring for result in results]
            score[number, :end] = [result.score for result in results]
            applied[number, :end] = [sum(map(_BIT.__getitem__, result.rules)) for result in results]
        done(1)
    here = row >= 0
    place[here] = index.products.of_photos(row[here])
    return Recommendations(seeds, own, place, row, ring, score, applied, seconds, index.snapshot)


def violations(index: Index, lists: Recommendations, rules: Rules) -> np.ndarray:
    """bool [n, k]: results that a rule forbids. This check shares no code with the search.

    A result violates the rules if
    - it is the seed, or is gone from the shop
    - it is of the seed's product, out of stock, outside the price range or without an attribute, if the rules filter so
    - a listing of its product and variant that may be shown is cheaper in its currency, or stands before it
    - it has no price, and such a listing has one
    - it exceeds the cap of its photo group
    """
    products = index.products
    here = lists.place >= 0
    place = np.where(here, lists.place, 0)
    seed = lists.seed[:, None]
    allowed = _passing(index, rules)
    wrong = (place == seed) | ~allowed[place]
    if not rules.seed_catalog:
        product = products.identity(rules.identifiers)
        wrong |= (product[place] >= 0) & (seed >= 0) & (product[place] == product[seed])
    if rules.cheapest:
        code = products.offers(rules.variants, rules.identifiers).code
        price = products.price
        unit = np.where(code >= 0, code * (len(products.currencies) + 1) + products.currency + 1, -1)
        priced = np.where(allowed & ~np.isnan(price), code, -1)
        seed_unit = np.where((seed >= 0) & allowed[seed] & ~np.isnan(price[seed]), unit[seed], -1)
        lowest, second = _two_lowest(price, unit, allowed)
        seed_is_lowest = (unit[place] == seed_unit) & (price[seed] == lowest[unit[place]])
        rival = np.where(seed_is_lowest, second[unit[place]], lowest[unit[place]])
        prices = np.bincount(priced[priced >= 0], minlength=int(code.max(initial=-1)) + 2)
        others = prices[code[place]] - ((code[place] == code[seed]) & (seed_unit >= 0))
        unpriced = np.isnan(price[place])
        before = _earlier(np.where(here & ~unpriced, unit[place], -1))
        before = np.where(unpriced, _earlier(np.where(here, code[place], -1)), before)
        wrong |= (code[place] >= 0) & ((price[place] > rival) | (unpriced & (others > 0)) | (before > 0))
    if rules.component_cap is not None:
        group = np.where(here, products.photo_group[place], -1)
        wrong |= _earlier(group) >= rules.component_cap
    return wrong & here


def table(index: Index, lists: Recommendations) -> pa.Table:
    """The lists as `RECOMMENDATIONS`."""
    here = lists.place >= 0
    ends = np.concatenate([[0], np.cumsum(here.sum(axis=1))])

    def ragged(values: pa.Array) -> pa.Array:
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values)

    names = pa.array([list(compress(NAMES, _bits(mask))) for mask in range(1 << len(NAMES))], pa.list_(pa.string()))
    return pa.table(
        [
            pa.array(lists.seeds, pa.string()),
            ragged(index.products.all_ids.take(pa.array(lists.place[here]))),
            ragged(pa.array(lists.ring[here])),
            ragged(pa.array(lists.score[here])),
            ragged(names.take(pa.array(lists.applied[here]))),
            pa.array(lists.seconds, from_pandas=True),
        ],
        schema=RECOMMENDATIONS,
    )


def write(path: str | os.PathLike[str], index: Index, lists: Recommendations, rules: Rules, widening: Widening) -> None:
    """Writes `table` as Parquet, aside and then moved to `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {"rules": rules.model_dump_json(), "widening": widening.model_dump_json(), "k": json.dumps(lists.k)}
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        whole = table(index, lists).replace_schema_metadata({"snapshot": lists.snapshot, **settings})
        pq.write_table(whole, aside, compression="zstd")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _passing(index: Index, rules: Rules) -> np.ndarray:
    """bool [products]: products that pass the filters, from the columns of the index alone."""
    products = index.products
    passes = np.ones(len(products), dtype=bool) if products.gone is None else ~products.gone
    if rules.in_stock:
        passes &= products.stock != 0
    if rules.price_min is not None or rules.price_max is not None:
        currency = np.array([*products.currencies, None], dtype=object)[products.currency]
        passes &= currency == (products.main_currency if rules.currency is None else rules.currency)
    if rules.price_min is not None:
        passes &= products.price >= rules.price_min
    if rules.price_max is not None:
        passes &= products.price <= rules.price_max
    if rules.attributes:
        of_product = index.items["attributes"].take(pa.array(products.start[:-1])).to_pylist()
        required = rules.attributes.items()
        passes &= np.array(
            [all(value in dict(one or ()).get(key, ()) for key, value in required) for one in of_product], dtype=bool
        )
    return passes


def _two_lowest(price: np.ndarray, code: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two lowest known prices among the allowed listings of each code; inf where there is none, and at place -1."""
    n = int(code.max(initial=-1)) + 1
    lowest, second = np.full(n + 1, np.inf), np.full(n + 1, np.inf)
    priced = np.flatnonzero(allowed & (code >= 0) & ~np.isnan(price))
    priced = priced[np.lexsort((price[priced], code[priced]))]
    group, ordered = code[priced], price[priced]
    first = np.flatnonzero(np.diff(group, prepend=-1))
    lowest[group[first]] = ordered[first]
    more = first[np.diff(np.append(first, len(group))) > 1]
    second[group[more]] = ordered[more + 1]
    return lowest, second


def _earlier(codes: np.ndarray) -> np.ndarray:
    """int64 [n, k]: how often each entry's code occurs earlier in its row; 0 for codes below 0."""
    count = np.zeros(codes.shape, dtype=np.int64)
    for at in range(1, codes.shape[1]):
        count[:, at] = ((codes[:, :at] == codes[:, at, None]) & (codes[:, at, None] >= 0)).sum(axis=1)
    return count


def _bits(mask: int) -> list[bool]:
    return [bool(mask & bit) for bit in _BIT.values()]

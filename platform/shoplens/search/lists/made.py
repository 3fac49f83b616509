"""The list of every page: the similar products of each seed, made in one go, checked against the rules, kept as a table."""

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
from shoplens.search.products import Products
from shoplens.search.rings import Widening, similar
from shoplens.search.rules import NAMES, Rules

LISTS = pa.schema(
    [
        ("seed", pa.string()),
        ("product_ids", pa.list_(pa.string())),
        ("rings", pa.list_(pa.int64())),
        ("scores", pa.list_(pa.float64())),
        ("rules", pa.list_(pa.list_(pa.string()))),
        ("seconds", pa.float64()),
    ]
)
"""One row a seed, best first. The schema's metadata says how they were made: `snapshot`, `k`, `rules`, `widening`."""
_BIT = {name: 1 << number for number, name in enumerate(NAMES)}


@dataclass(frozen=True)
class Lists:
    """The lists of n seeds, of at most k results each.

    seeds    ids of products, which need not be in the index: such a seed has an empty list
    seed     int64 [n]: its place in the index, -1 where it is not there
    place    int64 [n, k]: places of the results, best first, -1 from where a list ends
    row      int64 [n, k]: the photo that was nearest, a row of `Index.items`; -1 there too
    ring     int64 [n, k]: the ring it was found in; -1 there too
    score    float64 [n, k]; nan there
    applied  uint8 [n, k]: the rules applied, a bit for each of `rules.NAMES`
    seconds  float64 [n]: what each search took; nan where there was none
    snapshot of the index
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


def lists_of(
    index: Index,
    seeds: Sequence[str],
    k: int,
    *,
    rules: Rules = Rules(),
    widening: Widening = Widening(),
    done: Callable[[int], object] = lambda n: None,
) -> Lists:
    """What `rings.similar` shows for each seed. `done` is told how many seeds more have their list.

    Searches run one after the other: they hold the interpreter for most of their time, so that threads would only make
    each of them slower. Raises ShoplensError on a k below 1.
    """
    if k < 1:
        raise ShoplensError(f"k is {k}: ask for at least 1 product")
    n = len(seeds)
    place, row, ring = (np.full((n, k), -1, dtype=np.int64) for _ in range(3))
    score, applied = np.full((n, k), np.nan), np.zeros((n, k), dtype=np.uint8)
    seconds, own = np.full(n, np.nan), np.full(n, -1, dtype=np.int64)
    for number, seed in enumerate(seeds):
        found = index.products.place(seed)
        if found is not None:
            own[number] = found
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
    return Lists(seeds, own, place, row, ring, score, applied, seconds, index.snapshot)


def broken(index: Index, lists: Lists, rules: Rules) -> np.ndarray:
    """bool [n, k]: results that a rule forbids, each list looked at anew, whatever the search says it applied.

    A result breaks a rule if it is the seed itself or is gone; is of the seed's product, out of stock, outside the price
    range or without an attribute where the rules ask for it; if a listing of its product and variant that could be shown is
    cheaper, or stands before it; and if it is beyond the cap of its component.
    """
    products = index.products
    here = lists.place >= 0
    place = np.where(here, lists.place, 0)
    seed = lists.seed[:, None]
    shows = _passing(index, rules)
    wrong = (place == seed) | ~shows[place]
    if not rules.seed_catalog:
        product = products.identity(rules.identifiers)
        wrong |= (product[place] >= 0) & (seed >= 0) & (product[place] == product[seed])
    if rules.cheapest:
        code = products.offers(rules.variants, rules.identifiers).code
        offer, of_seed = code[place], np.where(seed >= 0, code[seed], -1)
        lowest, second = _two_lowest(products, code, shows)
        price = products.price[place]
        itself = (offer == of_seed) & shows[seed] & (products.price[seed] == lowest[offer])
        rival = np.where(itself, second[offer], lowest[offer])
        cheaper = (price > rival) | (np.isnan(price) & np.isfinite(rival))
        wrong |= (offer >= 0) & (cheaper | (_before(np.where(here, offer, -1)) > 0))
    if rules.component_cap is not None:
        component = np.where(here, products.photo_group[place], -1)
        wrong |= _before(component) >= rules.component_cap
    return wrong & here


def table(index: Index, lists: Lists) -> pa.Table:
    """`LISTS` of the lists."""
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
        schema=LISTS,
    )


def write(path: str | os.PathLike[str], index: Index, lists: Lists, rules: Rules, widening: Widening) -> None:
    """Writes `table` as Parquet aside, then moves it to `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = {"rules": rules.model_dump_json(), "widening": widening.model_dump_json(), "k": json.dumps(lists.k)}
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        whole = table(index, lists).replace_schema_metadata({"snapshot": lists.snapshot, **made})
        pq.write_table(whole, aside, compression="zstd")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _passing(index: Index, rules: Rules) -> np.ndarray:
    """bool [products]: what the filters let through, from the columns as they are in the index."""
    products = index.products
    passes = np.ones(len(products), dtype=bool) if products.gone is None else ~products.gone
    if rules.in_stock:
        passes &= products.stock != 0
    if rules.price_min is not None:
        passes &= products.price >= rules.price_min
    if rules.price_max is not None:
        passes &= products.price <= rules.price_max
    if rules.attributes:
        said = index.items["attributes"].take(pa.array(products.start[:-1])).to_pylist()
        asked = rules.attributes.items()
        passes &= np.array(
            [all(value in dict(one or ()).get(key, ()) for key, value in asked) for one in said], dtype=bool
        )
    return passes


def _two_lowest(products: Products, code: np.ndarray, shows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two lowest known prices among the listings of each code that may be shown; infinite where there is none."""
    n = int(code.max(initial=-1)) + 1
    lowest, second = np.full(n + 1, np.inf), np.full(n + 1, np.inf)
    priced = np.flatnonzero(shows & (code >= 0) & ~np.isnan(products.price))
    priced = priced[np.lexsort((products.price[priced], code[priced]))]
    group, price = code[priced], products.price[priced]
    first = np.flatnonzero(np.diff(group, prepend=-1))
    lowest[group[first]] = price[first]
    more = first[np.diff(np.append(first, len(group))) > 1]
    second[group[more]] = price[more + 1]
    return lowest, second


def _before(codes: np.ndarray) -> np.ndarray:
    """How often each entry's code stands before it in its row, int64 [n, k]; 0 of codes below 0."""
    count = np.zeros(codes.shape, dtype=np.int64)
    for at in range(1, codes.shape[1]):
        count[:, at] = ((codes[:, :at] == codes[:, at, None]) & (codes[:, at, None] >= 0)).sum(axis=1)
    return count


def _bits(mask: int) -> list[bool]:
    return [bool(mask & bit) for bit in _BIT.values()]

"""Search through the category tree: the seed's leaf first, then rings around it until enough may be shown.

A ring is a category without what the rings before it held: of the order leaf, parent, grandparent the second ring
is the leaf's siblings and the third its cousins; of an order that was learned (`category_similarity.learned`) each is a
leaf of its own, wherever it lies, until the ancestors follow with what is left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from pydantic import Field

from shoplens.config import Config
from shoplens.errors import ShoplensError
from shoplens.search.index import Index, UnknownProduct
from shoplens.search.rules import Rules, Shown, named, shown, under_cap
from shoplens.search.scan import Range


class Widening(Config):
    """How far a search goes where the leaf is too small.

    rings    most rings beyond the leaf; null: all of the order
    margin   a result stands above one of an inner ring only if its score is higher by more than this for each ring
             between them; null: never
    floor    results that score less are left out; a ring beyond the leaf in which all that may be shown score less
             ends the search
    """

    rings: int | None = Field(None, ge=0)
    margin: float | None = Field(None, ge=0, allow_inf_nan=False)
    floor: float | None = Field(None, allow_inf_nan=False)


class Result(NamedTuple):
    """A product found: its best photo's row in the index and inner product, the ring (0: the leaf), the rules applied.

    `rules` are names of `rules.NAMES`.
    """

    product_id: str
    row: int
    score: float
    ring: int
    rules: tuple[str, ...]


class Results(NamedTuple):
    """At most k results, best first, and the snapshot of the index that they were found in."""

    snapshot: str
    results: list[Result]


_FEW = 16
"""Of a ring of so many times as many products as are asked for, the nearest are judged by the rules, not all."""


class _Taken(NamedTuple):
    """Of one ring: places, rows and scores [n], best first, and which stand for dearer listings; components that had
    more than the cap; whether all that may be shown score below the floor."""

    places: np.ndarray
    rows: np.ndarray
    scores: np.ndarray
    cheapest: np.ndarray
    capped: set[int]
    low: bool


def rings(index: Index, order: Iterable[str | None]) -> Iterator[list[tuple[int, int]]]:
    """The ranges of products of each category of `order` that none before it held. Raises UnknownCategory."""
    held: list[tuple[int, int]] = []
    for category in order:
        ring = list(_without(index.slices(category), held))
        held = sorted([*held, *ring])
        yield ring


def similar(
    index: Index,
    seed: str,
    k: int,
    *,
    order: Sequence[str | None] | None = None,
    rules: Rules = Rules(),
    widening: Widening = Widening(),
) -> Results:
    """The products most similar to the product `seed`, its own category first.

    `order`: the categories of the rings, where it is left out those of `Index.ring_order` for the seed's own. Raises
    UnknownProduct, and what `search` raises.
    """
    place = index.products.place(seed)
    if place is None:
        raise UnknownProduct(f"product {seed!r} is not in the index")
    if order is None:
        order = index.ring_order(index.products.category(place))
    return search(index, index.vector_at(place), k, order, rules=rules, widening=widening, seed=place)


def search(
    index: Index,
    query: np.ndarray,
    k: int,
    order: Sequence[str | None],
    *,
    rules: Rules = Rules(),
    widening: Widening = Widening(),
    seed: int | None = None,
) -> Results:
    """The k best products for `query` [d], ring by ring of `order` until there are k that may be shown.

    A ring is searched only if those before it hold fewer than k, and gives only as many as are missing: k are found
    wherever k exist in the rings allowed. Equal scores of a ring stand in the order of the index. `seed` is the place of the
    product that is looked at, if it is one. Raises UnknownCategory, and ShoplensError on an empty `order`, a k below 1
    and a query of another dimension or not finite.
    """
    if not order:
        raise ShoplensError("no category was given to search in: give at least the product's own")
    if k < 1:
        raise ShoplensError(f"k is {k}: ask for at least 1 product")
    products = index.products
    last = len(order) if widening.rings is None else widening.rings + 1
    columns: list[tuple[np.ndarray, ...]] = []
    of_component: Counter[int] = Counter()
    capped: set[int] = set()
    missing = k
    for number, ranges in enumerate(rings(index, order[:last])):
        taken = _best_of_ring(index, query, missing, ranges, rules, widening, of_component, seed)
        columns.append((np.full(len(taken.places), number), *taken[:4]))
        of_component.update(products.component[taken.places].tolist())
        capped |= taken.capped
        missing -= len(taken.places)
        if missing == 0 or (taken.low and number > 0):
            break
    ring, places, rows, scores, cheapest = (np.concatenate(column) for column in zip(*columns, strict=True))
    if widening.margin is not None:
        standing = np.argsort(widening.margin * ring - scores, kind="stable")
        ring, places, rows, scores, cheapest = (column[standing] for column in (ring, places, rows, scores, cheapest))
    facts = (products.ids(places), rows.tolist(), scores.tolist(), ring.tolist())
    names = named(products, places, rules, cheapest, capped)
    return Results(index.snapshot, [Result(*result) for result in zip(*facts, names, strict=True)])


def _best_of_ring(
    index: Index,
    query: np.ndarray,
    k: int,
    ranges: Sequence[tuple[int, int]],
    rules: Rules,
    widening: Widening,
    before: Mapping[int, int],
    seed: int | None,
) -> _Taken:
    """`before`: how many results of each component the inner rings gave."""
    products = index.products
    floor = -np.inf if widening.floor is None else widening.floor
    judged: Shown | None = None
    asked = 2 * k
    while True:
        if asked * _FEW < sum(high - low for low, high in ranges):
            places, rows, scores = (column[0] for column in index.nearest(query, asked, [Range(*of) for of in ranges]))
            whole = scores[-1] < floor
            show = shown(products, places, rules, seed)
            places, rows, scores, cheapest = (of[show.allowed] for of in (places, rows, scores, show.cheapest))
            whole &= len(scores) > 0
        else:
            every = np.concatenate([np.arange(0), *(np.arange(low, high) for low, high in ranges)])
            judged = judged or shown(products, every, rules, seed)
            places, rows, scores = (
                column[0] for column in index.nearest(query, asked, _pieces(ranges, ~judged.allowed))
            )
            whole = len(scores) < asked or scores[-1] < floor
            cheapest = judged.cheapest[np.searchsorted(every, places)]
        high = int((scores >= floor).sum())
        chosen, capped = under_cap(products.component[places[:high]].tolist(), k, rules.component_cap, before)
        if len(chosen) == k or whole:
            low = high == 0 < len(scores)
            return _Taken(places[chosen], rows[chosen], scores[chosen], cheapest[chosen], capped, low)
        asked *= 4


def _pieces(ranges: Sequence[tuple[int, int]], excluded: np.ndarray) -> list[Range]:
    """`excluded` bool of the ranges' products, one range behind the other."""
    ends = np.cumsum([high - low for low, high in ranges])
    return [Range(low, high, excluded[end - (high - low) : end]) for (low, high), end in zip(ranges, ends, strict=True)]


def _without(ranges: Iterable[tuple[int, int]], held: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What of the `ranges` lies in none of `held`, both in ascending order and disjoint."""
    for low, high in ranges:
        for first, end in held:
            if end <= low or high <= first:
                continue
            if low < first:
                yield low, first
            low = max(low, end)
        if low < high:
            yield low, high

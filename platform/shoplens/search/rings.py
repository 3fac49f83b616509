"""Search in rings around a category: the seed's leaf first, then wider rings until k products may be shown.

A ring is a category minus the rings before it. In the order leaf, parent, grandparent the second ring holds the leaf's
siblings and the third its cousins. In a learned order (`category_similarity.similar_categories`) each ring is one
leaf anywhere in the tree; the ancestors follow with the rest.
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
    """How far a search widens if its first category has too few products."""

    rings: int | None = Field(None, ge=0, description="Most rings beyond the first; null: all rings of the order.")
    margin: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="A result moves above a result of an inner ring only if its score is higher by more than this, times "
        "the number of rings between them; null: never.",
    )
    floor: float | None = Field(
        None,
        allow_inf_nan=False,
        description="Least score of a result. The search ends at a ring beyond the first in which every product that "
        "may be shown scores less.",
    )


class Result(NamedTuple):
    """A product of a list: row and inner product of its best photo, its ring (0: the first), and its `rules.NAMES`."""

    product_id: str
    row: int
    score: float
    ring: int
    rules: tuple[str, ...]


class Results(NamedTuple):
    """At most k results, best first, and the snapshot of the searched index."""

    snapshot: str
    results: list[Result]


_LARGE = 16
"""A ring is large if it has over 16 products for each one to fetch. Rules are then applied to the nearest products only."""


class _RingResults(NamedTuple):
    """Results of one ring, best first.

    places, rows, scores  [n]
    cheapest              bool [n], as in `rules.Shown`
    capped                photo groups that had more than the cap
    low                   every product that may be shown scores below the floor
    """

    places: np.ndarray
    rows: np.ndarray
    scores: np.ndarray
    cheapest: np.ndarray
    capped: set[int]
    low: bool


def rings(index: Index, order: Iterable[str | None]) -> Iterator[list[tuple[int, int]]]:
    """The product ranges of each category of `order`, minus those of the categories before it. Raises UnknownCategory."""
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

    `order` are the categories of the rings; default: `Index.ring_order` of the seed's category. Raises UnknownProduct, and
    the errors of `search`.
    """
    place = index.products.place(seed)
    if place is None:
        raise UnknownProduct(f"product {seed!r} is not in the index: ask for one of its products")
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
    """The k best products for `query` [d], ring by ring of `order` until k may be shown.

    A ring is searched only if the rings before it gave fewer than k, and adds only the missing ones. So k results come back
    whenever the allowed rings have k. Ties within a ring stand in the order of the index. `seed` is the place of the
    product whose page shows the list, if there is one. Raises UnknownCategory, and ShoplensError if `order` is empty, k is
    below 1, or the query has another dimension or is not finite.
    """
    if not order:
        raise ShoplensError("no category was given to search in: give at least the product's own")
    if k < 1:
        raise ShoplensError(f"k is {k}: ask for at least 1 product")
    products = index.products
    last = len(order) if widening.rings is None else widening.rings + 1
    columns: list[tuple[np.ndarray, ...]] = []
    group_sizes: Counter[int] = Counter()
    capped: set[int] = set()
    missing = k
    for number, ranges in enumerate(rings(index, order[:last])):
        best = _best_of_ring(index, query, missing, ranges, rules, widening, group_sizes, seed)
        columns.append((np.full(len(best.places), number), *best[:4]))
        group_sizes.update(products.photo_group[best.places].tolist())
        capped |= best.capped
        missing -= len(best.places)
        if missing == 0 or (best.low and number > 0):
            break
    ring, places, rows, scores, cheapest = (np.concatenate(column) for column in zip(*columns, strict=True))
    if widening.margin is not None:
        rank = np.argsort(widening.margin * ring - scores, kind="stable")
        ring, places, rows, scores, cheapest = (column[rank] for column in (ring, places, rows, scores, cheapest))
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
) -> _RingResults:
    """The k best products of one ring that may be shown; `before` counts the results of each photo group so far.

    Over-fetch 2k, then four times as many as long as rules, floor and cap leave fewer than k.
    """
    products = index.products
    floor = -np.inf if widening.floor is None else widening.floor
    of_ring: Shown | None = None
    fetch = 2 * k
    while True:
        if fetch * _LARGE < sum(high - low for low, high in ranges):
            pieces = [Range(low, high) for low, high in ranges]
            places, rows, scores = (column[0] for column in index.nearest(query, fetch, pieces))
            exhausted = scores[-1] < floor
            show = shown(products, places, rules, seed)
            places, rows, scores, cheapest = (column[show.allowed] for column in (places, rows, scores, show.cheapest))
            exhausted &= len(scores) > 0
        else:
            every = np.concatenate([np.arange(0), *(np.arange(low, high) for low, high in ranges)])
            of_ring = of_ring or shown(products, every, rules, seed)
            places, rows, scores = (
                column[0] for column in index.nearest(query, fetch, _pieces(ranges, ~of_ring.allowed))
            )
            exhausted = len(scores) < fetch or scores[-1] < floor
            cheapest = of_ring.cheapest[np.searchsorted(every, places)]
        above = int((scores >= floor).sum())
        chosen, capped = under_cap(products.photo_group[places[:above]].tolist(), k, rules.component_cap, before)
        if len(chosen) == k or exhausted:
            low = above == 0 < len(scores)
            return _RingResults(places[chosen], rows[chosen], scores[chosen], cheapest[chosen], capped, low)
        fetch *= 4


def _pieces(ranges: Sequence[tuple[int, int]], excluded: np.ndarray) -> list[Range]:
    """The ranges with their part of `excluded` bool, which concatenates the products of all ranges."""
    ends = np.cumsum([high - low for low, high in ranges])
    return [Range(low, high, excluded[end - (high - low) : end]) for (low, high), end in zip(ranges, ends, strict=True)]


def _without(ranges: Iterable[tuple[int, int]], held: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The parts of `ranges` outside `held`; both are disjoint and in ascending order."""
    for low, high in ranges:
        for first, end in held:
            if end <= low or high <= first:
                continue
            if low < first:
                yield low, first
            low = max(low, end)
        if low < high:
            yield low, high

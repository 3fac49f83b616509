"""Exact search over ranges of products: float32 matrix products choose candidates, float64 sums decide.

A product's score is that of its best photo. What is a candidate is bounded by the rounding of float32, so the
answer is the exact one, and it is the same whatever else is asked beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from shoplens.search.storage import Vectors

_SCORES_AT_ONCE = 1 << 19
"""float32 scores of a block: they stay in the processor's cache between the product and the selection."""
_ROWS_AT_ONCE = 1 << 14
_QUERIES_AT_ONCE = 256
_NUMBERS_AT_ONCE = 1 << 15
_FOLD = 8
_KEPT = 8
_EPSILON, _TINY = float(np.finfo(np.float32).eps), float(np.finfo(np.float32).tiny)
_LOWEST = np.float32(-3e38)
"""Below every score, and finite however much rounding is taken from it."""


class Range(NamedTuple):
    """The products `low`..`high` (exclusive) but those whose place in `excluded` bool [high - low] is true."""

    low: int
    high: int
    excluded: np.ndarray | None = None


class Found(NamedTuple):
    """The best products of each query, best first: their places, their best photos' rows, float64 scores, all [m, k]."""

    products: np.ndarray
    rows: np.ndarray
    scores: np.ndarray


class _Candidates(NamedTuple):
    query: np.ndarray
    product: np.ndarray
    score: np.ndarray


def best(
    vectors: Vectors,
    start: np.ndarray,
    longest: float,
    queries: np.ndarray,
    k: int,
    ranges: Sequence[Range],
    order: np.ndarray | None = None,
) -> Found:
    """The k products of `ranges` with the greatest inner products, for each query; all of them where fewer exist.

    start    int64 [products + 1]: the photos of product p are the rows start[p]..start[p + 1], at least one
    longest  no vector is longer; times the length of a query it is below 1e38
    queries  float32 [m, d], finite
    ranges   disjoint, in ascending order
    order    int64 [products]: equal scores stand in this order; of the products where it is left out
    """
    if len(queries) <= _QUERIES_AT_ONCE:
        return _best(vectors, start, longest, queries, k, ranges, order)
    found = [
        _best(vectors, start, longest, queries[first : first + _QUERIES_AT_ONCE], k, ranges, order)
        for first in range(0, len(queries), _QUERIES_AT_ONCE)
    ]
    return Found(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _best(
    vectors: Vectors,
    start: np.ndarray,
    longest: float,
    queries: np.ndarray,
    k: int,
    ranges: Sequence[Range],
    order: np.ndarray | None,
) -> Found:
    m, dimension = queries.shape
    wide = queries.astype(np.float64)
    # Twice the bound of a float32 inner product's error, in whatever order it is summed (Higham 2002, 3.1), and
    # what is lost where sums of such numbers become float32 and where products are below its least.
    reach = 2 * (dimension + 4) * (_EPSILON * longest * np.sqrt(np.vecdot(wide, wide)) + _TINY)
    reach = reach.astype(np.float32)
    blocks = list(_blocks(ranges, start, m))
    if m == 1 and len(blocks) == 1:
        product = _near(vectors, start, queries, k, blocks[0], reach[0])
        return _decided(vectors, start, wide, np.zeros_like(product), product, k, order)
    reached = np.full(m, _LOWEST, dtype=np.float32)
    parts: list[_Candidates] = []
    for block in blocks:
        scores = _scores(vectors, start, queries, block)
        reached = np.maximum(reached, _reached_by(scores, k))
        parts.append(_at_least(scores, reached - reach, block.low))
        if len(parts) > 1 and sum(len(part.score) for part in parts) > _KEPT * m * k:
            parts, reached = _tightened(parts, k, reached, reach)
    if len(parts) > 1:
        parts, _ = _tightened(parts, k, reached, reach)
    if not parts:
        nothing = np.empty((m, 0), dtype=np.int64)
        return Found(nothing, nothing, np.empty((m, 0)))
    query, product, _ = parts[0]
    return _decided(vectors, start, wide, query, product, k, order)


def among(
    vectors: Vectors,
    start: np.ndarray,
    queries: np.ndarray,
    k: int,
    products: np.ndarray,
    order: np.ndarray | None = None,
) -> Found:
    """As `best`, of each query's own `products` int64 [m, c], -1 for none."""
    query, at = np.nonzero(products >= 0)
    product = products[query, at]
    if len(vectors) > len(start) - 1:
        query, product = np.divmod(np.unique(query * len(start) + product), len(start))
    return _decided(vectors, start, queries.astype(np.float64), query, product, k, order)


def _decided(
    vectors: Vectors,
    start: np.ndarray,
    wide: np.ndarray,
    query: np.ndarray,
    product: np.ndarray,
    k: int,
    order: np.ndarray | None,
) -> Found:
    """The best k of each query's candidates; as many of every query."""
    m = len(wide)
    rows, exact = _exact(vectors, start, wide, query, product)
    tied = product if order is None else order[product]
    if m == 1:
        chosen = np.lexsort((tied, -exact))[None, :k]
    else:
        by_query = np.argsort(query, kind="stable") if order is None else np.lexsort((tied, query))
        table, first = _side_by_side(query[by_query], -exact[by_query], m)
        count = min(k, int(np.diff(first).min()))
        chosen = by_query[first[:-1, None] + np.argsort(table, axis=1, kind="stable")[:, :count]]
    return Found(product[chosen], rows[chosen], exact[chosen])


def _blocks(ranges: Sequence[Range], start: np.ndarray, m: int) -> Iterator[Range]:
    """The ranges, cut where a piece would have more photos than are scored at once; a product stays whole."""
    room = max(1, min(_ROWS_AT_ONCE, _SCORES_AT_ONCE // m))
    for low, high, excluded in ranges:
        at = low
        while at < high:
            end = high
            if start[high] - start[at] > room:
                end = max(at + 1, int(np.searchsorted(start, start[at] + room, side="right")) - 1)
            yield Range(at, end, None if excluded is None else excluded[at - low : end - low])
            at = end


def _scores(vectors: Vectors, start: np.ndarray, queries: np.ndarray, block: Range) -> np.ndarray:
    """float32 [m, products of the block], -inf where excluded."""
    low, high, excluded = block
    first, last = int(start[low]), int(start[high])
    scores = queries @ vectors.block(first, last).T
    if last - first > high - low:
        scores = np.maximum.reduceat(scores, start[low:high] - first, axis=1)
    if excluded is not None:
        np.copyto(scores, -np.inf, where=excluded)
    return scores


def _near(
    vectors: Vectors, start: np.ndarray, query: np.ndarray, k: int, block: Range, reach: np.float32
) -> np.ndarray:
    """The products of a block that are at most `reach` below the k-th best for one query, in few steps."""
    scores = _scores(vectors, start, query, block)[0]
    least = _LOWEST
    if (n := len(scores)) > k:
        least = max(np.partition(scores, n - k)[n - k] - reach, _LOWEST)
    return (scores >= least).nonzero()[0] + block.low


def _reached_by(scores: np.ndarray, k: int) -> np.ndarray:
    """float32 [m]: what at least k of a query's scores reach, `_LOWEST` or less where there are fewer.

    Of many scores the k-th greatest maximum of 8k groups: somewhat below the k-th greatest score, found sooner.
    """
    m, n = scores.shape
    if n < k:
        return np.full(m, _LOWEST, dtype=np.float32)
    width = _FOLD * k
    if n >= 2 * width:
        scores = scores[:, : n // width * width].reshape(m, -1, width).max(axis=1)
        n = width
    return np.partition(scores, n - k, axis=1)[:, n - k]


def _at_least(scores: np.ndarray, least: np.ndarray, low: int) -> _Candidates:
    """The products that score at least that; none that is excluded, since `least` is finite."""
    (flat,) = (scores >= least[:, None]).ravel().nonzero()
    query, place = np.divmod(flat, scores.shape[1])
    return _Candidates(query, place + low, scores.ravel().take(flat))


def _tightened(
    parts: Sequence[_Candidates], k: int, reached: np.ndarray, reach: np.ndarray
) -> tuple[list[_Candidates], np.ndarray]:
    """One part: the candidates at most `reach` [m] below their query's k-th best; and that k-th best [m], or `reached`."""
    query, product, score = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    near = np.flatnonzero(score >= (reached - reach)[query])
    query, product, score = query[near], product[near], score[near]
    by_query = np.argsort(query, kind="stable")
    table, _ = _side_by_side(query[by_query], -score[by_query], len(reached))
    reached = np.maximum(reached, _reached_by(-table, k))
    near = np.flatnonzero(score >= (reached - reach)[query])
    return [_Candidates(query[near], product[near], score[near])], reached


def _side_by_side(query: np.ndarray, values: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """[m, most values of a query]: each query's in a row, infinite behind them; and where each begins [m + 1].

    `query` [c] is in ascending order.
    """
    first = np.searchsorted(query, np.arange(m + 1))
    table = np.full((m, int(np.diff(first).max())), np.inf, dtype=values.dtype)
    table[query, np.arange(len(query)) - first[query]] = values
    return table, first


def _exact(
    vectors: Vectors, start: np.ndarray, wide: np.ndarray, query: np.ndarray, product: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Row and float64 score of each candidate's best photo, the first of equal ones."""
    if len(vectors) == len(start) - 1:
        return product, _sums(vectors, wide, query, product)
    first = start[product]
    photos = start[product + 1] - first
    begin = np.cumsum(photos) - photos
    rows = np.arange(int(photos.sum())) + np.repeat(first - begin, photos)
    scores = _sums(vectors, wide, np.repeat(query, photos), rows)
    greatest = np.maximum.reduceat(scores, begin)
    hits = np.flatnonzero(scores == np.repeat(greatest, photos))
    return rows[hits[np.searchsorted(hits, begin)]], greatest


def _sums(vectors: Vectors, wide: np.ndarray, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """float64 inner products of queries and rows, each summed by itself."""
    step = max(1, _NUMBERS_AT_ONCE // wide.shape[1])
    sums = []
    for at in range(0, len(rows), step):
        asked = wide if len(wide) == 1 else wide.take(query[at : at + step], axis=0)
        sums.append(np.vecdot(vectors.take(rows[at : at + step]).astype(np.float64), asked))
    return sums[0] if len(sums) == 1 else np.concatenate([np.empty(0), *sums])

"""Exact search over ranges of products: float32 matrix products choose candidates, float64 sums decide.

A product's score is that of its best photo. What is a candidate is bounded by the rounding of float32, so the
answer is the exact one, and it is the same whatever else is asked beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from shoplens.retrieval.storage import Vectors

_SCORES_AT_ONCE = 1 << 18
"""float32 scores of a block: they stay in the processor's cache between the product and the selection."""
_ROWS_AT_ONCE = 1 << 14
_QUERIES_AT_ONCE = 256
_NUMBERS_AT_ONCE = 1 << 20
_FOLD = 8
_KEPT = 8


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
    longest  no vector is longer
    queries  float32 [m, d], finite
    ranges   disjoint
    order    int64 [products]: equal scores stand in this order; of the products where it is left out
    """
    found = [
        _best(vectors, start, longest, queries[first : first + _QUERIES_AT_ONCE], k, ranges, order)
        for first in range(0, len(queries), _QUERIES_AT_ONCE)
    ]
    if len(found) == 1:
        return found[0]
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
    # Twice the bound of a float32 inner product's error, in whatever order it is summed (Higham 2002, 3.1).
    rounding = dimension * np.finfo(np.float32).eps * longest * np.sqrt((wide * wide).sum(axis=1))
    reached = np.full(m, -np.inf)
    parts = [_Candidates(*np.empty((2, 0), dtype=np.int64), np.empty(0, dtype=np.float32))]
    for block in _blocks(ranges, start, m):
        scores = _scores(vectors, start, queries, block)
        reached = np.maximum(reached, _reached_by(scores, k))
        parts.append(_at_least(scores, reached - 2 * rounding, block.low))
        if sum(len(part.score) for part in parts) > _KEPT * m * k:
            candidates, reached = _tightened(parts, k, reached, 2 * rounding)
            parts = [candidates]
    if len(parts) > 2:
        parts = [_tightened(parts, k, reached, 2 * rounding)[0]]
    query, product, _ = parts[-1]
    rows, exact = _exact(vectors, start, wide, query, product)
    ranked = np.lexsort((product if order is None else order[product], -exact, query))
    first = np.searchsorted(query[ranked], np.arange(m + 1))
    chosen = ranked[first[:-1, None] + np.arange(min(k, int(np.diff(first).min())))]
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


def _reached_by(scores: np.ndarray, k: int) -> np.ndarray:
    """[m]: what at least k of a query's scores reach, -inf where there are fewer.

    Of many scores the k-th greatest maximum of 8k groups: somewhat below the k-th greatest score, found sooner.
    """
    m, n = scores.shape
    if n < k:
        return np.full(m, -np.inf)
    width = _FOLD * k
    if n >= 2 * width:
        scores = scores[:, : n // width * width].reshape(m, -1, width).max(axis=1)
        n = width
    return np.partition(scores, n - k, axis=1)[:, n - k]


def _at_least(scores: np.ndarray, least: np.ndarray, low: int) -> _Candidates:
    """The products that score at least that; none that is excluded."""
    # Rounded down to float32, so that the comparison does not widen every score.
    floor = np.nextafter(least.astype(np.float32), np.float32(-np.inf))
    floor = np.maximum(floor, np.finfo(np.float32).min)
    flat = np.flatnonzero(scores >= floor[:, None])
    query, place = np.divmod(flat, scores.shape[1])
    return _Candidates(query, place + low, scores.ravel()[flat])


def _tightened(
    parts: Sequence[_Candidates], k: int, reached: np.ndarray, reach: np.ndarray
) -> tuple[_Candidates, np.ndarray]:
    """The candidates at most `reach` [m] below their query's k-th best, and that k-th best where it is above `reached`."""
    query, product, score = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    ranked = np.lexsort((-score, query))
    query, product, score = query[ranked], product[ranked], score[ranked]
    first = np.searchsorted(query, np.arange(len(reached) + 1))
    full = np.flatnonzero(np.diff(first) >= k)
    reached = reached.copy()
    reached[full] = np.maximum(reached[full], score[first[full] + k - 1])
    kept = np.flatnonzero(score >= (reached - reach)[query])
    return _Candidates(query[kept], product[kept], score[kept]), reached


def _exact(
    vectors: Vectors, start: np.ndarray, wide: np.ndarray, query: np.ndarray, product: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Row and float64 score of each candidate's best photo, the first of equal ones."""
    first = start[product]
    photos = start[product + 1] - first
    if photos.max(initial=1) == 1:
        return first, _sums(vectors, wide, query, first)
    begin = np.cumsum(photos) - photos
    rows = np.arange(int(photos.sum())) + np.repeat(first - begin, photos)
    scores = _sums(vectors, wide, np.repeat(query, photos), rows)
    greatest = np.maximum.reduceat(scores, begin)
    hits = np.flatnonzero(scores == np.repeat(greatest, photos))
    return rows[hits[np.searchsorted(hits, begin)]], greatest


def _sums(vectors: Vectors, wide: np.ndarray, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """float64 inner products of queries and rows, each summed by itself."""
    step = max(1, _NUMBERS_AT_ONCE // wide.shape[1])
    sums = [
        (vectors.take(rows[at : at + step]).astype(np.float64) * wide[query[at : at + step]]).sum(axis=1)
        for at in range(0, len(rows), step)
    ]
    return sums[0] if len(sums) == 1 else np.concatenate([np.empty(0), *sums])

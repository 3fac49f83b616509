"""Exact top-k search over ranges of products.

float32 matrix products choose candidates, float64 sums rank them. A product scores as its best photo does. The bound on
candidates covers float32 rounding, so the answer is exact and does not depend on the other queries of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from shoplens.search.storage import Vectors

_SCORES_AT_ONCE = 1 << 19
"""float32 scores of a block. They stay in the processor's cache from the matrix product to the selection."""
_ROWS_AT_ONCE = 1 << 14
_QUERIES_AT_ONCE = 256
_NUMBERS_AT_ONCE = 1 << 15
_FOLD = 8
"""Groups for each of the k results when many scores are searched for a lower bound of the k-th best."""
_KEPT = 8
"""Candidates for each of the k results before the candidates of all blocks are pruned together."""
_EPSILON, _TINY = float(np.finfo(np.float32).eps), float(np.finfo(np.float32).tiny)
_LOWEST = np.float32(-3e38)
"""Below every score. It stays finite when the rounding bound is subtracted."""


class Gallery(NamedTuple):
    """The vectors that a search ranks, grouped by product.

    vectors  [photos, d]
    start    int64 [products + 1]: the photos of product p are the rows start[p] to start[p + 1], at least one
    longest  the greatest length of a vector; times the length of a query it must stay below 1e38
    order    int64 [products]: products of equal score stand in this order; None: in the order of the products
    """

    vectors: Vectors
    start: np.ndarray
    longest: float
    order: np.ndarray | None = None

    @property
    def one_photo_each(self) -> bool:
        return len(self.vectors) == len(self.start) - 1


class Range(NamedTuple):
    """The products from `low` to `high` (exclusive), without those that `excluded` bool [high - low] marks."""

    low: int
    high: int
    excluded: np.ndarray | None = None


class TopK(NamedTuple):
    """The k best products of m queries, best first: products, rows of their best photos, float64 scores, all [m, k]."""

    products: np.ndarray
    rows: np.ndarray
    scores: np.ndarray


class _Candidates(NamedTuple):
    query: np.ndarray
    product: np.ndarray
    score: np.ndarray


def best(gallery: Gallery, queries: np.ndarray, k: int, ranges: Sequence[Range]) -> TopK:
    """The k products of `ranges` with the greatest inner products, for each query; all products if there are fewer.

    queries  float32 [m, d], finite
    ranges   disjoint, in ascending order
    """
    if len(queries) <= _QUERIES_AT_ONCE:
        return _best(gallery, queries, k, ranges)
    batches = [
        _best(gallery, queries[first : first + _QUERIES_AT_ONCE], k, ranges)
        for first in range(0, len(queries), _QUERIES_AT_ONCE)
    ]
    return TopK(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))


def _best(gallery: Gallery, queries: np.ndarray, k: int, ranges: Sequence[Range]) -> TopK:
    m, dimension = queries.shape
    wide = queries.astype(np.float64)
    # Twice the error bound of a float32 inner product in any order of summation (Higham 2002, 3.1), plus the loss
    # where such sums become float32 and where products fall below the least float32.
    rounding = 2 * (dimension + 4) * (_EPSILON * gallery.longest * np.sqrt(np.vecdot(wide, wide)) + _TINY)
    rounding = rounding.astype(np.float32)
    blocks = list(_blocks(ranges, gallery.start, m))
    if m == 1 and len(blocks) == 1:
        product = _candidates_of_one_query(gallery, queries, k, blocks[0], rounding[0])
        return _ranked(gallery, wide, np.zeros_like(product), product, k)
    bound = np.full(m, _LOWEST, dtype=np.float32)
    parts: list[_Candidates] = []
    for block in blocks:
        scores = _scores(gallery, queries, block)
        bound = np.maximum(bound, _lower_bound(scores, k))
        parts.append(_at_least(scores, bound - rounding, block.low))
        if len(parts) > 1 and sum(len(part.score) for part in parts) > _KEPT * m * k:
            parts, bound = _pruned(parts, k, bound, rounding)
    if len(parts) > 1:
        parts, _ = _pruned(parts, k, bound, rounding)
    if not parts:
        nothing = np.empty((m, 0), dtype=np.int64)
        return TopK(nothing, nothing, np.empty((m, 0)))
    query, product, _ = parts[0]
    return _ranked(gallery, wide, query, product, k)


def among(gallery: Gallery, queries: np.ndarray, k: int, products: np.ndarray) -> TopK:
    """Like `best`, over each query's own candidates `products` int64 [m, c], -1 where there are fewer.

    A product that has several photos may stand several times in a row.
    """
    if not gallery.one_photo_each:
        products = np.sort(products, axis=1)
        repeated = products[:, 1:] == products[:, :-1]
        products[:, 1:][repeated] = -1
    query, column = np.nonzero(products >= 0)
    return _ranked(gallery, queries.astype(np.float64), query, products[query, column], k)


def _ranked(gallery: Gallery, wide: np.ndarray, query: np.ndarray, product: np.ndarray, k: int) -> TopK:
    """The k best candidates of each query, or as many as the query with the fewest candidates has."""
    m, order = len(wide), gallery.order
    rows, exact = _exact(gallery, wide, query, product)
    tied = product if order is None else order[product]
    if m == 1:
        chosen = np.lexsort((tied, -exact))[None, :k]
    else:
        by_query = np.argsort(query, kind="stable") if order is None else np.lexsort((tied, query))
        table, first = _one_row_a_query(query[by_query], -exact[by_query], m)
        count = min(k, int(np.diff(first).min()))
        chosen = by_query[first[:-1, None] + np.argsort(table, axis=1, kind="stable")[:, :count]]
    return TopK(product[chosen], rows[chosen], exact[chosen])


def _blocks(ranges: Sequence[Range], start: np.ndarray, m: int) -> Iterator[Range]:
    """The ranges, cut into blocks of at most `_SCORES_AT_ONCE` scores. All photos of a product stay in one block."""
    room = max(1, min(_ROWS_AT_ONCE, _SCORES_AT_ONCE // m))
    for low, high, excluded in ranges:
        at = low
        while at < high:
            end = high
            if start[high] - start[at] > room:
                end = max(at + 1, int(np.searchsorted(start, start[at] + room, side="right")) - 1)
            yield Range(at, end, None if excluded is None else excluded[at - low : end - low])
            at = end


def _scores(gallery: Gallery, queries: np.ndarray, block: Range) -> np.ndarray:
    """float32 [m, products of the block], -inf where excluded."""
    low, high, excluded = block
    first, last = int(gallery.start[low]), int(gallery.start[high])
    scores = queries @ gallery.vectors.block(first, last).T
    if last - first > high - low:
        scores = np.maximum.reduceat(scores, gallery.start[low:high] - first, axis=1)
    if excluded is not None:
        np.copyto(scores, -np.inf, where=excluded)
    return scores


def _candidates_of_one_query(
    gallery: Gallery, query: np.ndarray, k: int, block: Range, rounding: np.float32
) -> np.ndarray:
    """The products of a block that score at most `rounding` below the k-th best."""
    scores = _scores(gallery, query, block)[0]
    least = _LOWEST
    if (n := len(scores)) > k:
        least = max(np.partition(scores, n - k)[n - k] - rounding, _LOWEST)
    return (scores >= least).nonzero()[0] + block.low


def _lower_bound(scores: np.ndarray, k: int) -> np.ndarray:
    """float32 [m]: a lower bound of each query's k-th best score; `_LOWEST` or less if there are fewer than k.

    With many scores it is the k-th greatest maximum of 8k groups: faster than the k-th greatest score, and a little lower.
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
    """The products that score at least `least` [m]. Since `least` is finite, excluded products do not."""
    (flat,) = (scores >= least[:, None]).ravel().nonzero()
    query, column = np.divmod(flat, scores.shape[1])
    return _Candidates(query, column + low, scores.ravel().take(flat))


def _pruned(
    parts: Sequence[_Candidates], k: int, bound: np.ndarray, rounding: np.ndarray
) -> tuple[list[_Candidates], np.ndarray]:
    """The candidates at most `rounding` [m] below their query's k-th best, as one part; and the raised `bound` [m]."""
    query, product, score = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    near = np.flatnonzero(score >= (bound - rounding)[query])
    query, product, score = query[near], product[near], score[near]
    by_query = np.argsort(query, kind="stable")
    table, _ = _one_row_a_query(query[by_query], -score[by_query], len(bound))
    bound = np.maximum(bound, _lower_bound(-table, k))
    near = np.flatnonzero(score >= (bound - rounding)[query])
    return [_Candidates(query[near], product[near], score[near])], bound


def _one_row_a_query(query: np.ndarray, values: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """The values [c] as a table [m, most values of a query], padded with inf; and the first value of each query [m + 1].

    `query` [c] is in ascending order.
    """
    first = np.searchsorted(query, np.arange(m + 1))
    table = np.full((m, int(np.diff(first).max())), np.inf, dtype=values.dtype)
    table[query, np.arange(len(query)) - first[query]] = values
    return table, first


def _exact(gallery: Gallery, wide: np.ndarray, query: np.ndarray, product: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and float64 score of each candidate's best photo; the first photo on a tie."""
    vectors, start = gallery.vectors, gallery.start
    if gallery.one_photo_each:
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
    """float64 inner products of queries and rows. Each is summed by itself, so its bits depend on nothing else."""
    step = max(1, _NUMBERS_AT_ONCE // wide.shape[1])
    sums = []
    for at in range(0, len(rows), step):
        queries = wide if len(wide) == 1 else wide.take(query[at : at + step], axis=0)
        sums.append(np.vecdot(vectors.take(rows[at : at + step]).astype(np.float64), queries))
    return sums[0] if len(sums) == 1 else np.concatenate([np.empty(0), *sums])

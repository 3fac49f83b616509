"""Exact top-k search over ranges of products.

Products of one-byte codes choose candidates (`codes`), float32 products choose among them, float64 sums rank the rest. A
product scores as its best photo does. The bounds on candidates cover the error of codes and of float32, so the answer is
exact and does not depend on the other queries of a batch. Without codes float32 matrix products choose the candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from shoplens.search.codes import CodedQueries, Codes, workspace
from shoplens.search.storage import Vectors

_SCORES_AT_ONCE = 1 << 19
"""float32 scores of a block. They stay in the processor's cache from the matrix product to the selection."""
_ROWS_AT_ONCE = 1 << 14
_QUERIES_AT_ONCE = 256
_NUMBERS_AT_ONCE = 1 << 17
_FOLD = 8
"""Groups for each of the k results when many scores are searched for a lower bound of the k-th best."""
_KEPT = 8
"""Candidates for each of the k results before the candidates of all blocks are pruned together."""
_FEW, _FEW_OF_MANY = 3000, 16_000
"""Fewer products are searched without codes, by one query and by many: the candidates that codes leave cost more then."""
_TELLING, _TELLING_ONE = 8, 2
"""Codes tell products apart if they leave at most one in so many: of many queries, and of one."""
_EPSILON, _TINY = float(np.finfo(np.float32).eps), float(np.finfo(np.float32).tiny)
_LOWEST = np.float32(-3e38)
"""Below every score. It stays finite when the rounding bound is subtracted."""
_GREATEST = np.finfo(np.float32).max


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
    search = _Search(gallery, queries, k)
    blocks = list(_blocks(ranges, gallery.start, len(queries)))
    if len(queries) == 1 and len(blocks) == 1:
        product = search.candidates_of_one(blocks[0])
        return _ranked(gallery, search.wide, np.zeros_like(product), product, k)
    part = search.candidates(blocks)
    return _ranked(gallery, search.wide, part.query, part.product, k)


class _Search:
    """Finds the candidates of queries float32 [m, d]: the products whose float32 score may be among the k best.

    Two float32 scores of a product, summed in any order, differ by `rounding` [m] at most.
    """

    def __init__(self, gallery: Gallery, queries: np.ndarray, k: int) -> None:
        self.gallery, self.queries, self.k = gallery, queries, k
        self.wide = wide = queries.astype(np.float64)
        # Twice the error bound of a float32 inner product in any order of summation (Higham 2002, 3.1), plus the loss
        # where such sums become float32 and where products fall below the least float32.
        self.lengths = np.sqrt(np.vecdot(wide, wide))
        rounding = 2 * (queries.shape[1] + 4) * (_EPSILON * gallery.longest * self.lengths + _TINY)
        self.rounding = rounding.astype(np.float32)

    @cached_property
    def coded(self) -> CodedQueries | None:
        codes = self.gallery.vectors.codes
        if not isinstance(codes, Codes) or not codes.usable:
            return None
        return CodedQueries(codes, self.wide, self.lengths)

    def candidates(self, blocks: Sequence[Range]) -> _Candidates:
        """Those of all blocks, in the order of queries."""
        m = len(self.queries)
        bound = np.full(m, _LOWEST, dtype=np.float32)
        part = _Candidates(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
        few = sum(high - low for low, high, _ in blocks) < _FEW_OF_MANY
        for number, block in enumerate(blocks):
            more, bound = (None if few else self._by_codes(block, bound)) or self._by_floats(block, bound)
            if len(blocks) == 1:
                return more
            part = _Candidates(*(np.concatenate(columns) for columns in zip(part, more, strict=True)))
            if len(part.score) > _KEPT * m * self.k or number == len(blocks) - 1:
                part, bound = self._pruned(part, bound)
        return part

    def candidates_of_one(self, block: Range) -> np.ndarray:
        """The candidates of the only query in a block."""
        n, k = block.high - block.low, self.k
        rounding = float(self.rounding[0])
        if n >= max(_FEW, k) and self.coded is not None:
            scores, error = self._coded_scores(self.coded, block)
            (near,) = (scores[0] >= _below(_lower_bound(scores, k) - 2 * error)).nonzero()
            if len(near) * _TELLING_ONE <= n:
                product = near + block.low
                scores = _exact(self.gallery, self.queries, np.zeros_like(product), product)[1]
                if (found := len(product)) > k:
                    product = product[scores >= np.partition(scores, found - k)[found - k] - rounding]
                return product
        scores = self._scores(block)[0]
        least = _LOWEST
        if n > k:
            least = max(np.partition(scores, n - k)[n - k] - rounding, _LOWEST)
        return (scores >= least).nonzero()[0] + block.low

    def _by_floats(self, block: Range, bound: np.ndarray) -> tuple[_Candidates, np.ndarray]:
        """The candidates of a block; and `bound`, raised.

        `bound` float32 [m] is at most the float32 score of each query's k-th best product so far.
        """
        scores = self._scores(block)
        bound = np.maximum(bound, _lower_bound(scores, self.k))
        flat, query, column = _at_least(scores, bound - self.rounding)
        return _Candidates(query, column + block.low, scores.ravel().take(flat)), bound

    def _by_codes(self, block: Range, bound: np.ndarray) -> tuple[_Candidates, np.ndarray] | None:
        """The same, by codes; None if codes cannot tell the products of the block apart, or there are none."""
        if self.coded is None:
            return None
        m, k = len(bound), self.k
        scores, error = self._coded_scores(self.coded, block)
        least = self.coded.at_most(bound - self.rounding) - error
        many = np.arange(m)
        if bound.min() > _LOWEST:
            reached = np.greater_equal(scores, _below(least)[:, None], out=workspace(np.bool_, scores.shape))
            (many,) = (np.count_nonzero(reached, axis=1) > _FOLD * k).nonzero()
        if len(many):
            some = scores if len(many) == m else scores[many]
            kth = np.full(m, float(_LOWEST))
            kth[many] = np.maximum(_lower_bound(some, k) - error[many], _LOWEST)
            least = np.maximum(least, kth - error)
            bound = np.maximum(bound, _below(self.coded.inner_products(kth) - self.rounding))
        _, query, column = _at_least(scores, _below(least))
        if len(query) * _TELLING > scores.size:
            return None
        product = column + block.low
        exact = _exact(self.gallery, self.queries, query, product)[1]
        near = exact >= (bound - self.rounding).take(query)
        return _Candidates(query[near], product[near], exact[near]), bound

    def _scores(self, block: Range) -> np.ndarray:
        """float32 [m, products of the block], -inf where excluded."""
        first, last = int(self.gallery.start[block.low]), int(self.gallery.start[block.high])
        vectors = self.gallery.vectors.block(first, last)
        if len(self.queries) == 1:
            return self._of_products(self.queries @ vectors.T, block)
        scores = workspace(np.float32, (len(self.queries), last - first))
        return self._of_products(np.matmul(self.queries, vectors.T, out=scores), block)

    def _coded_scores(self, coded: CodedQueries, block: Range) -> tuple[np.ndarray, np.ndarray]:
        """The same from codes, in their unit, and their error [m]."""
        scores, error = coded.scores(int(self.gallery.start[block.low]), int(self.gallery.start[block.high]))
        return self._of_products(scores, block), error

    def _of_products(self, scores: np.ndarray, block: Range) -> np.ndarray:
        low, high, excluded = block
        if scores.shape[1] > high - low:
            start = self.gallery.start[low:high]
            scores = np.maximum.reduceat(scores, start - start[0], axis=1)
        if excluded is not None:
            np.copyto(scores, -np.inf, where=excluded)
        return scores

    def _pruned(self, part: _Candidates, bound: np.ndarray) -> tuple[_Candidates, np.ndarray]:
        """The candidates at most `rounding` below their query's k-th best, in the order of queries; and the raised bound."""
        near = np.flatnonzero(part.score >= (bound - self.rounding).take(part.query))
        near = near[np.argsort(part.query[near], kind="stable")]
        query, product, score = (column.take(near) for column in part)
        table, _ = _one_row_a_query(query, -score, len(bound))
        bound = np.maximum(bound, _lower_bound(-table, self.k))
        near = np.flatnonzero(score >= (bound - self.rounding).take(query))
        return _Candidates(query[near], product[near], score[near]), bound


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
    """The k best candidates of each query, or as many as the query with the fewest candidates has.

    `query` is in ascending order.
    """
    m, order = len(wide), gallery.order
    rows, exact = _exact(gallery, wide, query, product)
    tied = product if order is None else order[product]
    if m == 1:
        chosen = np.lexsort((tied, -exact))[None, :k]
    else:
        by_query = np.arange(len(query)) if order is None else np.lexsort((tied, query))
        table, first = _one_row_a_query(query, -exact[by_query], m)
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


def _at_least(scores: np.ndarray, least: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places, rows and columns of the scores [m, n] of at least `least` [m].

    Since `least` is finite, excluded products are none of them.
    """
    reached = workspace(np.bool_, scores.shape)
    np.greater_equal(scores, least[:, None], out=reached)
    (flat,) = reached.ravel().nonzero()
    return flat, *np.divmod(flat, scores.shape[1])


def _below(scores: np.ndarray) -> np.ndarray:
    """Scores [m] as float32 that are less, and finite."""
    return np.nextafter(np.maximum(scores, _LOWEST).astype(np.float32), -_GREATEST)


def _one_row_a_query(query: np.ndarray, values: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray]:
    """The values [c] as a table [m, most values of a query], padded with inf; and the first value of each query [m + 1].

    `query` [c] is in ascending order.
    """
    first = np.searchsorted(query, np.arange(m + 1))
    table = np.full((m, int(np.diff(first).max())), np.inf, dtype=values.dtype)
    table[query, np.arange(len(query)) - first[query]] = values
    return table, first


def _exact(
    gallery: Gallery, queries: np.ndarray, query: np.ndarray, product: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Row and score of each candidate's best photo, in the precision of `queries` [m, d]; the first photo on a tie."""
    vectors, start = gallery.vectors, gallery.start
    if gallery.one_photo_each:
        return product, _sums(vectors, queries, query, product)
    first = start[product]
    photos = start[product + 1] - first
    begin = np.cumsum(photos) - photos
    rows = np.arange(int(photos.sum())) + np.repeat(first - begin, photos)
    scores = _sums(vectors, queries, np.repeat(query, photos), rows)
    greatest = np.maximum.reduceat(scores, begin)
    hits = np.flatnonzero(scores == np.repeat(greatest, photos))
    return rows[hits[np.searchsorted(hits, begin)]], greatest


def _sums(vectors: Vectors, queries: np.ndarray, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Inner products of queries and rows in the precision of `queries`; `query` is in ascending order.

    Each is summed by itself, so its bits depend on nothing else.
    """
    m, dimension = queries.shape
    step = max(1, _NUMBERS_AT_ONCE // dimension)
    if queries.dtype == np.float32 and vectors.plain is not None:
        return _sums_in_place(vectors.plain, queries, query, rows)
    if m == 1 and len(rows) <= step:
        return np.vecdot(_read(vectors, rows, queries.dtype), queries)
    first = np.searchsorted(query, np.arange(m + 1))
    most = int(np.diff(first).max())
    sums = []
    if 1 < most * m <= 2 * len(rows) and most <= step:
        at = query, np.arange(len(rows)) - first[query]
        table = np.zeros((m, most), dtype=np.int64)
        table[at] = rows
        step //= most
        for some in range(0, m, step):
            read = _read(vectors, table[some : some + step].ravel(), queries.dtype).reshape(-1, most, dimension)
            sums.append(np.vecdot(read, queries[some : some + step, None]))
        return np.concatenate(sums)[at]
    for some in range(0, len(rows), step):
        with_ = queries if m == 1 else queries.take(query[some : some + step], axis=0)
        sums.append(np.vecdot(_read(vectors, rows[some : some + step], queries.dtype), with_))
    return np.concatenate([np.empty(0, queries.dtype), *sums])


def _read(vectors: Vectors, rows: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """[r, d]; the next call in the same thread overwrites it."""
    if vectors.plain is None:
        return vectors.take(rows).astype(dtype, copy=False)
    shape = len(rows), vectors.shape[1]
    read = workspace(np.float32, shape, "read")
    vectors.plain.take(rows, axis=0, out=read, mode="clip")
    if dtype == np.float32:
        return read
    wide = workspace(np.float64, shape, "read")
    np.copyto(wide, read)
    return wide


def _sums_in_place(vectors: np.ndarray, queries: np.ndarray, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """float32 [c]: inner products of queries and rows, without a copy of either."""
    import faiss

    sums = np.empty(len(rows), dtype=np.float32)
    queries, query, rows = (np.ascontiguousarray(column) for column in (queries, query, rows))
    pointers = [faiss.swig_ptr(array) for array in (queries, query, vectors, rows, sums)]
    faiss.pairwise_indexed_inner_product(vectors.shape[1], len(rows), *pointers)
    return sums

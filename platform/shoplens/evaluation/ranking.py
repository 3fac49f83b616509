"""Ranking of a gallery for queries, in blocks, so that queries x gallery is never in memory at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from shoplens.errors import ShoplensError
from shoplens.evaluation.metrics import TIE, average_precision, map_at_r, wrong_before

SCORES_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Retrieval:
    """Queries, the gallery they search, and the right answers.

    Gallery item j is right for query i if `right[query_key[i], j]`. Item j is left out of i's gallery if
    `left_out[query_owner[i], j]`, right or wrong. If `query_category` is given, wrong items of other categories than the
    query's are left out too. Every query has a right item that is not left out. `query_row` and `gallery_row` are the
    rows of the photo, text or product behind each query and item. `group` is the query's bootstrap group. Scores closer
    than `tie` count as equal.
    """

    queries: np.ndarray
    query_row: np.ndarray
    query_key: np.ndarray
    group: np.ndarray
    gallery: np.ndarray
    gallery_row: np.ndarray
    right: sparse.csr_array
    query_owner: np.ndarray | None = None
    left_out: sparse.csr_array | None = None
    query_category: np.ndarray | None = None
    gallery_category: np.ndarray | None = None
    n_without_answer: int = 0
    tie: float = TIE

    def __post_init__(self) -> None:
        """Raises ShoplensError if a vector is not finite: a comparison with nan would favour the model."""
        for vectors in (self.queries, self.gallery):
            if not np.isfinite(vectors).all():
                raise ShoplensError("the model gives vectors that are not finite: its training diverged")

    def __len__(self) -> int:
        return len(self.queries)


@dataclass(frozen=True)
class Ranks:
    """For each query: number of wrong items before the first right one, AP, AP@R, number of right items, gallery size."""

    first: np.ndarray
    average_precision: np.ndarray
    map_at_r: np.ndarray
    n_right: np.ndarray
    n_gallery: np.ndarray


def rank(task: Retrieval) -> Ranks:
    """Scores every query against the gallery by inner product. A tie counts against the model (see `metrics`)."""
    m = len(task)
    ranks = Ranks(np.zeros(m, np.int64), np.zeros(m), np.zeros(m), np.zeros(m, np.int64), np.zeros(m, np.int64))
    for rows, scores, right, left_out in _blocks(task, np.arange(m)):
        wrong = np.sort(np.where(right | left_out, -np.inf, scores), axis=1)
        for i, row in enumerate(rows):
            before = wrong_before(scores[i, right[i]], wrong[i], task.tie)
            ranks.first[row] = before[0]
            ranks.average_precision[row] = average_precision(before)
            ranks.map_at_r[row] = map_at_r(before)
            ranks.n_right[row] = len(before)
        ranks.n_gallery[rows] = scores.shape[1] - left_out.sum(axis=1)
    return ranks


@dataclass(frozen=True)
class Answers:
    """The top-k of one query, best first, and its best right item with the rank of that item, from 1."""

    query: int
    items: np.ndarray
    scores: np.ndarray
    right: np.ndarray
    best_right: int
    best_right_rank: int


def nearest(task: Retrieval, queries: np.ndarray, k: int) -> list[Answers]:
    """The top-k of the chosen queries, in the order that `rank` uses. Items are places in `task.gallery`."""
    answers = []
    for rows, scores, right, left_out in _blocks(task, np.asarray(queries, dtype=np.int64)):
        scores = np.where(left_out, -np.inf, scores)
        order = np.argsort(np.where(right, task.tie, 0) - scores, axis=1, kind="stable")
        for i, row in enumerate(rows):
            items = order[i, : min(k, int((~left_out[i]).sum()))]
            place = int(np.argmax(right[i, order[i]]))
            best = int(order[i, place])
            answers.append(Answers(int(row), items, scores[i, items], right[i, items], best, place + 1))
    return answers


def members(code: np.ndarray, n_codes: int) -> sparse.csr_array:
    """[n_codes, len(code)]: the items of each code."""
    items = np.arange(len(code))
    return sparse.csr_array((np.ones(len(code), np.int32), (code, items)), shape=(n_codes, len(code)))


def _blocks(task: Retrieval, queries: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yields (query rows [b], scores [b, n], right [b, n], left out [b, n]) over all chosen queries."""
    n = len(task.gallery)
    step = max(1, SCORES_AT_ONCE // max(1, n))
    for start in range(0, len(queries), step):
        rows = queries[start : start + step]
        right = task.right[task.query_key[rows]].toarray().astype(bool)
        left_out = np.zeros_like(right)
        if task.left_out is not None and task.query_owner is not None:
            left_out = task.left_out[task.query_owner[rows]].toarray().astype(bool)
        if task.query_category is not None and task.gallery_category is not None:
            left_out |= ~right & (task.query_category[rows, None] != task.gallery_category[None, :])
        yield rows, task.queries[rows] @ task.gallery.T, right & ~left_out, left_out

"""Similarity of two categories: by their photos, by sessions that click both, and by the tree.

    s(a, b) = alpha cos(centroid a, centroid b) + beta coclicks(a, b) + gamma closeness(a, b)

It orders the rings of a search (`rings`): a close sibling comes before a far one, and a cousin may come before both.
A category's number is its place in the depth-first order of the tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from scipy import sparse

from shoplens.config import Config
from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError
from shoplens.schema import CategoryTree
from shoplens.search.storage import blocks

_ROWS_AT_ONCE = 256
_CATEGORIES_IN_A_SESSION = 50


class Weights(Config):
    """Weights of the three terms of the similarity."""

    alpha: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="Weight of the cosine between the centroids of the categories."
    )
    beta: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="Weight of the co-clicks, the share of sessions that click both."
    )
    gamma: float = Field(
        1.0, ge=0, allow_inf_nan=False, description="Weight of the closeness in the tree (Wu and Palmer)."
    )


class RingsConfig(Weights):
    """Settings of the learned ring order."""

    nearest: int = Field(
        20, ge=0, description="Most similar leaf categories that a search visits before the ancestors."
    )


class Clicks(NamedTuple):
    """`session` and `category` int64 [clicks]: one clicked category of one session each."""

    session: np.ndarray
    category: np.ndarray


def similar_categories(
    vectors: np.ndarray, category: np.ndarray, tree: CategoryTree, clicks: Clicks, config: RingsConfig = RingsConfig()
) -> dict[str, list[str]]:
    """For each category of the tree the ids of its most similar leaves, nearest first.

    vectors   float32 [n, d] of photos
    category  int64 [n]: each photo's category, -1 for none

    Leaves without photos and descendants of the category are excluded.
    """
    nodes = list(tree)
    table = ancestors([node.path for node in nodes])
    centers = centroids(vectors, category, tree)
    leaves = np.array([not node.children for node in nodes], dtype=bool) & centers.any(axis=1)
    together = coclicks(*with_ancestors(clicks, table), len(nodes))
    order = nearest(centers, together, table, config.nearest, config, leaves)[:, 1:].tolist()
    return {node.id: [nodes[other].id for other in row if other >= 0] for node, row in zip(nodes, order, strict=True)}


def clicks_of(dataset: Dataset) -> Clicks:
    """The clicked categories of a dataset's log, each category once a session.

    A session is one user on one day. A click counts for the product's own category. Sessions of more than 50 categories
    are left out: they come from robots or from users that share an id.
    """
    log = dataset.table("interactions", ["time", "user_id", "product_id", "kind"])
    log = log.filter(pc.equal(log["kind"], "click")).combine_chunks()
    clicked = dataset.products["category_id"].take(pc.index_in(log["product_id"], dataset.products["product_id"]))
    category = categories_of(clicked, dataset.categories)
    day = pc.utf8_slice_codeunits(log["time"], 0, 10)
    names = pc.binary_join_element_wise(log["user_id"], day, "\n").combine_chunks()
    session = names.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    n = len(dataset.categories)
    session, category = np.divmod(np.unique(session[category >= 0] * n + category[category >= 0]), max(1, n))
    kept = np.bincount(session, minlength=1)[session] <= _CATEGORIES_IN_A_SESSION
    return Clicks(session[kept], category[kept])


def categories_of(ids: pa.ChunkedArray, tree: CategoryTree) -> np.ndarray:
    """int64 [n]: the number of each category id, -1 for null."""
    numbers = pc.index_in(ids, value_set=pa.array([node.id for node in tree], pa.string()))
    return numbers.fill_null(-1).to_numpy().astype(np.int64)


def centroids(vectors: np.ndarray, category: np.ndarray, tree: CategoryTree) -> np.ndarray:
    """float64 [c, d]: the mean of all photos in each category's subtree, at unit length; zero if there are none.

    vectors [n, d], category int64 [n] as in `similar_categories`
    """
    sums = np.zeros((len(tree) + 1, vectors.shape[1]))
    for rows in blocks(*vectors.shape):
        of_row = category[rows]
        member = sparse.csr_array(
            (np.ones(len(of_row)), (of_row + 1, np.arange(len(of_row)))), (len(sums), len(of_row))
        )
        sums += member @ vectors[rows].astype(np.float64)
    running = np.cumsum(np.concatenate([np.zeros_like(sums[:1]), sums[1:]]), axis=0)
    ends = np.array([(node.order, node.last + 1) for node in tree], dtype=np.int64).reshape(-1, 2)
    subtree = running[ends[:, 1]] - running[ends[:, 0]]
    return subtree / np.maximum(np.linalg.norm(subtree, axis=1, keepdims=True), 1e-12)


def with_ancestors(clicks: Clicks, ancestors: np.ndarray) -> Clicks:
    """The clicks, repeated for every ancestor of the clicked category. `ancestors` int64 [c, deepest] of the whole tree."""
    above = ancestors[clicks.category]
    return Clicks(np.repeat(clicks.session, (above >= 0).sum(axis=1)), above[above >= 0])


def coclicks(session: np.ndarray, category: np.ndarray, n_categories: int) -> sparse.csr_array:
    """[c, c]: sessions that click both categories, over the geometric mean of the sessions that click each.

    session, category   int64 [clicks]; a category counts once a session

    This is Ochiai's coefficient, the cosine of two columns of the session-by-category table. A clicked category has 1
    with itself; a category that nobody clicked has 0.
    """
    _, row = np.unique(session, return_inverse=True)
    shape = (int(row.max(initial=-1)) + 1, n_categories)
    clicked = sparse.csr_array((np.ones(len(row)), (row, category)), shape=shape)
    clicked.data[:] = 1
    together = (clicked.T @ clicked).tocsr()
    scale = sparse.diags_array(1 / np.sqrt(np.maximum(together.diagonal(), 1)))
    return (scale @ together @ scale).tocsr()


def ancestors(paths: Sequence[Sequence[str]]) -> np.ndarray:
    """int64 [c, deepest]: for each path the numbers of its categories from the root down, padded with -1.

    These numbers only tell the categories of this table apart.
    """
    numbers: dict[tuple[str, ...], int] = {}
    table = np.full((len(paths), max(map(len, paths), default=0)), -1, dtype=np.int64)
    for place, path in enumerate(paths):
        for level in range(len(path)):
            table[place, level] = numbers.setdefault(tuple(path[: level + 1]), len(numbers))
    return table


def closeness(ancestors: np.ndarray, rows: slice = slice(None)) -> np.ndarray:
    """[r, c]: twice the depth of the lowest common ancestor over the sum of both depths (Wu and Palmer 1994).

    `ancestors` int64 [c, deepest] comes from the function of that name. A category has 1 with itself, 0 across roots.
    """
    depth = (ancestors >= 0).sum(axis=1)
    mine = ancestors[rows]
    common = np.zeros((len(mine), len(ancestors)))
    for level in range(ancestors.shape[1]):
        common += (mine[:, level, None] == ancestors[:, level]) & (mine[:, level, None] >= 0)
    return 2 * common / np.maximum(depth[rows, None] + depth, 1)


def similarity(
    centroids: np.ndarray,
    coclicks: sparse.csr_array,
    ancestors: np.ndarray,
    weights: Weights = Weights(),
    rows: slice = slice(None),
) -> np.ndarray:
    """s(a, b) of the module docstring, float64 [r, c], of the categories `rows` with all.

    centroids [c, d] of unit length, coclicks [c, c], ancestors [c, deepest]. Raises ShoplensError if they are of
    different categories.
    """
    if not len(centroids) == coclicks.shape[0] == coclicks.shape[1] == len(ancestors):
        raise ShoplensError(
            f"{len(centroids)} centroids, co-clicks of {coclicks.shape[0]} and paths of {len(ancestors)} categories: "
            "give each for the same categories"
        )
    return (
        weights.alpha * centroids[rows] @ centroids.T
        + weights.beta * coclicks[rows].toarray()
        + weights.gamma * closeness(ancestors, rows)
    )


def nearest(
    centroids: np.ndarray,
    coclicks: sparse.csr_array,
    ancestors: np.ndarray,
    limit: int,
    weights: Weights = Weights(),
    among: np.ndarray | None = None,
) -> np.ndarray:
    """int64 [c, 1 + limit]: each category itself, then its `limit` most similar ones, best first; ties by number.

    `among` bool [c] masks allowed candidates (default: all). Descendants are excluded; missing entries are -1. The
    similarity is computed 256 rows at a time.
    """
    n = len(centroids)
    depth = (ancestors >= 0).sum(axis=1)
    nearest_rows = []
    for first in range(0, n, _ROWS_AT_ONCE):
        rows = slice(first, min(first + _ROWS_AT_ONCE, n))
        scores = similarity(centroids, coclicks, ancestors, weights, rows)
        itself = np.arange(len(scores)), np.arange(n)[rows]
        level = depth[rows] - 1
        scores[ancestors.T[level] == ancestors[rows][itself[0], level][:, None]] = -np.inf
        if among is not None:
            scores[:, ~among] = -np.inf
        scores[itself] = np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, : 1 + limit]
        nearest_rows.append(np.where(np.take_along_axis(scores, order, axis=1) == -np.inf, -1, order))
    return np.concatenate([np.empty((0, min(n, 1 + limit)), dtype=np.int64), *nearest_rows])

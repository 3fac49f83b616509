"""How near one category is to another: by their photos, by who clicks both, and by the tree.

    s(a, b) = alpha cos(centroid a, centroid b) + beta coclicks(a, b) + gamma closeness(a, b)

It makes the order of the rings (`rings`) in which a close sibling comes before a far one, and a cousin may come
before either.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field
from scipy import sparse

from shoplens.config import Config
from shoplens.errors import ShoplensError
from shoplens.retrieval.index import Index
from shoplens.retrieval.storage import blocks

_ROWS_AT_ONCE = 256


class Weights(Config):
    """`alpha` of the centroids' cosine, `beta` of the co-clicks, `gamma` of the closeness in the tree."""

    alpha: float = Field(1.0, ge=0, allow_inf_nan=False)
    beta: float = Field(1.0, ge=0, allow_inf_nan=False)
    gamma: float = Field(1.0, ge=0, allow_inf_nan=False)


def centroids(index: Index, categories: Sequence[str]) -> np.ndarray:
    """float64 [c, d]: the mean of the photos of each category and all below it, at unit length; zero where it has none.

    Raises UnknownCategory.
    """
    sums = np.zeros((len(categories), index.dim))
    start, gone = index.products.start, index.products.gone
    for number, category in enumerate(categories):
        for low, high in index.slices(category):
            first, end = start[[low, high]].tolist()
            kept = np.ones(end - first, dtype=bool)
            if gone is not None:
                kept = np.repeat(~gone[low:high], np.diff(start[low : high + 1]))
            for rows in blocks(end - first, index.dim):
                photos = index.vectors.block(first + rows.start, first + rows.stop)
                sums[number] += photos.sum(axis=0, dtype=np.float64, where=kept[rows, None])
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)


def coclicks(session: np.ndarray, category: np.ndarray, n_categories: int) -> sparse.csr_array:
    """[c, c]: the sessions in which both categories were clicked, over the geometric mean of those of each.

    session, category   int64 [clicks]; how often one session clicks a category does not count

    Ochiai's coefficient, the cosine of two columns of the session-by-category table: 1 of a category that was clicked
    with itself, 0 of one that was never clicked.
    """
    _, row = np.unique(session, return_inverse=True)
    shape = (int(row.max(initial=-1)) + 1, n_categories)
    clicked = sparse.csr_array((np.ones(len(row)), (row, category)), shape=shape)
    clicked.data[:] = 1
    together = (clicked.T @ clicked).tocsr()
    scale = sparse.diags_array(1 / np.sqrt(np.maximum(together.diagonal(), 1)))
    return (scale @ together @ scale).tocsr()


def ancestors(paths: Sequence[Sequence[str]]) -> np.ndarray:
    """int64 [c, deepest]: a number for each category on the way from the root to each of `paths`, -1 behind its end."""
    numbers: dict[tuple[str, ...], int] = {}
    table = np.full((len(paths), max(map(len, paths), default=0)), -1, dtype=np.int64)
    for place, path in enumerate(paths):
        for level in range(len(path)):
            table[place, level] = numbers.setdefault(tuple(path[: level + 1]), len(numbers))
    return table


def closeness(ancestors: np.ndarray, rows: slice = slice(None)) -> np.ndarray:
    """[r, c]: twice the depth of the lowest common ancestor over the depths of both (Wu and Palmer 1994).

    `ancestors` int64 [c, deepest] as the function of that name makes it. 1 of a category with itself, 0 across roots.
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
    """s(a, b) as above, float64 [r, c], of the categories `rows` with all.

    centroids [c, d] of unit length, coclicks [c, c], ancestors [c, deepest]
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
) -> np.ndarray:
    """int64 [c, 1 + limit]: each category itself, then the `limit` most similar ones, best first; equal ones by number.

    All others where there are fewer. Some hundred rows of the similarity are held at a time.
    """
    n = len(centroids)
    found = []
    for first in range(0, n, _ROWS_AT_ONCE):
        rows = slice(first, min(first + _ROWS_AT_ONCE, n))
        scores = similarity(centroids, coclicks, ancestors, weights, rows)
        scores[np.arange(len(scores)), np.arange(n)[rows]] = np.inf
        found.append(np.argsort(-scores, axis=1, kind="stable")[:, : 1 + limit])
    return np.concatenate([np.empty((0, min(n, 1 + limit)), dtype=np.int64), *found])

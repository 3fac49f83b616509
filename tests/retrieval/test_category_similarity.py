"""Category similarity against its formula, written out pair by pair, and as an order of rings."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from shoplens.errors import ShoplensError
from shoplens.retrieval import category_similarity as module
from shoplens.retrieval.category_similarity import (
    Weights,
    ancestors,
    centroids,
    closeness,
    coclicks,
    nearest,
    similarity,
)
from shoplens.retrieval.rings import Widening, search
from shoplens.retrieval.rules import Rules
from tests.retrieval.shops import PATHS, TREE, Shop


def test_coclicks_are_cosines_of_the_sessions_of_two_categories() -> None:
    rng = np.random.default_rng(0)
    session, category = rng.integers(30, size=200) * 7, rng.integers(9, size=200)
    found = coclicks(session, category, 10).toarray()
    clicked = [set(session[category == c].tolist()) for c in range(10)]
    for a in range(10):
        for b in range(10):
            both = math.sqrt(len(clicked[a]) * len(clicked[b]))
            assert found[a, b] == pytest.approx(len(clicked[a] & clicked[b]) / both if both else 0)
    assert not found[9].any()
    assert not coclicks(np.empty(0, np.int64), np.empty(0, np.int64), 3).toarray().any()


def test_closeness_is_that_of_wu_and_palmer() -> None:
    """The same name under another parent is another category."""
    paths = [("a",), ("a", "b"), ("a", "b", "c"), ("a", "d"), ("e",), ("e", "b")]
    expected = [
        [1, 2 / 3, 1 / 2, 2 / 3, 0, 0],
        [2 / 3, 1, 4 / 5, 1 / 2, 0, 0],
        [1 / 2, 4 / 5, 1, 2 / 5, 0, 0],
        [2 / 3, 1 / 2, 2 / 5, 1, 0, 0],
        [0, 0, 0, 0, 1, 2 / 3],
        [0, 0, 0, 0, 2 / 3, 1],
    ]
    np.testing.assert_allclose(closeness(ancestors(paths)), expected)


def test_centroids_are_unit_means_of_all_photos_below(tmp_path: Path) -> None:
    shop = Shop(1, 40, 90)
    index = shop.build(tmp_path / "index")
    names = ["/".join(path) for path in PATHS]
    for name, found in zip(names, centroids(index, names), strict=True):
        below = [
            vector
            for row, vector in zip(shop.rows, shop.vectors, strict=True)
            if ((row["category_id"] or "") + "/").startswith(name + "/")
        ]
        total = np.sum(below, axis=0, dtype=np.float64)
        np.testing.assert_allclose(found, total / np.linalg.norm(total))
    empty = Shop(2, 1, 1).build(tmp_path / "empty")
    assert sum(centroids(empty, names).any(axis=1)) < len(names)


@pytest.mark.parametrize("limit", [0, 2, 50])
def test_nearest_is_an_argsort_of_the_formula(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    n = 17
    vectors = rng.integers(-1, 2, size=(n, 2)) / 1.0
    counts = sparse.random_array((n, n), density=0.2, rng=rng).tocsr()
    paths = [tuple(rng.choice(list("ab"), size=rng.integers(1, 4))) for _ in range(n)]
    weights = Weights(alpha=0.5, beta=2, gamma=0.25)
    table = ancestors(paths)
    expected = 0.5 * vectors @ vectors.T + 2 * counts.toarray() + 0.25 * closeness(table)
    np.testing.assert_allclose(similarity(vectors, counts, table, weights), expected)
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 5)
    order = nearest(vectors, counts, table, limit, weights)
    assert order.shape == (n, min(n, 1 + limit))
    for category in range(n):
        others = sorted(set(range(n)) - {category}, key=lambda other: (-expected[category, other], other))
        assert order[category].tolist() == [category, *others][: 1 + limit]


def test_a_learned_order_makes_the_rings(tmp_path: Path) -> None:
    """Who clicks a/d clicks e/f, so e/f is searched before the sibling a/b/c."""
    index = Shop(4, 60, 90).build(tmp_path / "index")
    leaves = ["a/b/c", "a/d", "e/f"]
    clicks = coclicks(np.array([0, 0, 1, 1, 2]), np.array([1, 2, 1, 2, 0]), 3)
    table = ancestors([TREE[leaf].path for leaf in leaves])
    order = nearest(centroids(index, leaves), clicks, table, 2, Weights(alpha=0, beta=1, gamma=0.1))
    assert order[1].tolist() == [1, 2, 0]
    rings = [leaves[place] for place in order[1]]
    shows_all = Rules(in_stock=False, cheapest=False)
    results = search(index, np.ones(3, np.float32), 1000, rings, rules=shows_all, widening=Widening(rings=2)).results
    category = dict(zip(index.items["product_id"].to_pylist(), index.items["category_id"].to_pylist(), strict=True))
    assert [category[result.product_id] for result in results] == [rings[result.ring] for result in results]
    assert {result.ring for result in results} == {0, 1, 2}


def test_arrays_of_different_categories_are_refused() -> None:
    with pytest.raises(ShoplensError, match="2 centroids, co-clicks of 3"):
        similarity(np.eye(2), sparse.csr_array((3, 3)), np.zeros((2, 1), np.int64))

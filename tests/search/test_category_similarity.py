"""Category similarity against its formula, written out pair by pair, and as an order of rings."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from shoplens.datasets.staging import Staging
from shoplens.errors import ShoplensError
from shoplens.schema import CategoryTree
from shoplens.search import category_similarity as module
from shoplens.search import storage
from shoplens.search.category_similarity import (
    Clicks,
    RingsConfig,
    Weights,
    ancestors,
    categories_of,
    centroids,
    clicks_of,
    closeness,
    coclicks,
    nearest,
    similar_categories,
    similarity,
    with_ancestors,
)
from shoplens.search.rings import Widening, search
from shoplens.search.rules import Rules
from tests.search.shops import TREE, Shop


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


NAMES = [node.id for node in TREE]


def filed(shop: Shop) -> np.ndarray:
    return categories_of(pa.chunked_array([shop.items["category_id"]]), TREE)


def test_centroids_are_unit_means_of_all_photos_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_NUMBERS_AT_ONCE", 30)
    shop = Shop(1, 40, 90)
    for name, found in zip(NAMES, centroids(shop.vectors, filed(shop), TREE), strict=True):
        below = [
            vector
            for row, vector in zip(shop.rows, shop.vectors, strict=True)
            if ((row["category_id"] or "") + "/").startswith(name + "/")
        ]
        total = np.sum(below, axis=0, dtype=np.float64)
        np.testing.assert_allclose(found, total / np.linalg.norm(total))
    alone = centroids(np.ones((1, 3), np.float32), np.array([3]), TREE)
    np.testing.assert_allclose(alone[[0, 3]], 3**-0.5)
    assert not alone[[1, 2, 4, 5]].any()
    assert not centroids(np.ones((1, 3), np.float32), np.array([-1]), TREE).any()


@pytest.mark.parametrize("limit", [0, 2, 50])
def test_nearest_is_an_argsort_of_the_formula(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    words = ["".join(rng.choice(list("ab"), size=rng.integers(1, 5))) for _ in range(30)]
    paths = [tuple(word) for word in dict.fromkeys(words)]
    n = len(paths)
    vectors = rng.integers(-1, 2, size=(n, 2)) / 1.0
    counts = sparse.random_array((n, n), density=0.2, rng=rng).tocsr()
    weights = Weights(alpha=0.5, beta=2, gamma=0.25)
    table = ancestors(paths)
    expected = 0.5 * vectors @ vectors.T + 2 * counts.toarray() + 0.25 * closeness(table)
    np.testing.assert_allclose(similarity(vectors, counts, table, weights), expected)
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 5)
    among = rng.random(n) < 0.7
    order = nearest(vectors, counts, table, limit, weights)
    chosen = nearest(vectors, counts, table, limit, weights, among)
    assert order.shape == chosen.shape == (n, min(n, 1 + limit))
    for category, path in enumerate(paths):
        others = sorted(range(n), key=lambda other: (-expected[category, other], other))
        others = [other for other in others if paths[other][: len(path)] != path]
        for found, kept in ((order, others), (chosen, [other for other in others if among[other]])):
            padded = [category, *kept, *[-1] * n]
            assert found[category].tolist() == padded[: order.shape[1]]


def test_a_learned_order_makes_the_rings(tmp_path: Path) -> None:
    """Who clicks a/d clicks e/f, so e/f is searched before the sibling a/b/c."""
    shop = Shop(4, 60, 90)
    d, f, c = (NAMES.index(name) for name in ("a/d", "e/f", "a/b/c"))
    clicks = Clicks(np.array([0, 0, 1, 1, 2]), np.array([d, f, d, f, c]))
    learned = similar_categories(shop.vectors, filed(shop), TREE, clicks, RingsConfig(alpha=0, beta=1, gamma=0.1))
    assert learned == {
        "a": ["e/f"],
        "a/b": ["a/d", "e/f"],
        "a/b/c": ["a/d", "e/f"],
        "a/d": ["e/f", "a/b/c"],
        "e": ["a/d", "a/b/c"],
        "e/f": ["a/d", "a/b/c"],
    }
    index = shop.build(tmp_path / "index", similar_categories=learned)
    shows_all = Rules(in_stock=False, cheapest=False)
    order = index.ring_order("a/d")
    assert order == ["a/d", "e/f", "a/b/c", "a"]
    results = search(index, np.ones(3, np.float32), 1000, order, rules=shows_all, widening=Widening(rings=2)).results
    category = dict(zip(index.items["product_id"].to_pylist(), index.items["category_id"].to_pylist(), strict=True))
    assert [category[result.product_id] for result in results] == [order[result.ring] for result in results]
    assert {result.ring for result in results} == {0, 1, 2}


def test_what_there_is_little_of_is_learned_from_too() -> None:
    """One photo in one leaf, or in none at all, and nobody who clicks."""
    nobody = Clicks(np.empty(0, np.int64), np.empty(0, np.int64))
    one = similar_categories(np.ones((1, 3), np.float32), np.array([NAMES.index("a/d")]), TREE, nobody)
    assert one == {name: [] if name in ("a", "a/d") else ["a/d"] for name in NAMES}
    inner = similar_categories(np.ones((2, 3), np.float32), np.array([NAMES.index("a"), -1]), TREE, nobody)
    assert inner == {name: [] for name in NAMES}
    none = similar_categories(np.ones((1, 3), np.float32), np.array([0]), TREE, nobody, RingsConfig(nearest=0))
    assert none == inner
    assert similar_categories(np.ones((1, 3), np.float32), np.array([-1]), CategoryTree(), nobody) == {}


def test_a_click_is_one_of_all_that_the_category_lies_in() -> None:
    table = ancestors([node.path for node in TREE])
    clicks = with_ancestors(Clicks(np.array([7, 8]), np.array([2, 4])), table)
    assert list(zip(clicks.session.tolist(), clicks.category.tolist(), strict=True)) == [(7, 0), (7, 1), (7, 2), (8, 4)]


def test_a_session_is_what_a_user_clicks_on_one_day(tmp_path: Path) -> None:
    """A robot clicks on all of 60 categories; p60 has no category."""
    products = [
        {"product_id": f"p{p}", "title": "t", "category_id": f"c{p:02}", "category_path": [f"c{p:02}"]}
        for p in range(60)
    ] + [{"product_id": "p60", "title": "t", "category_path": []}]
    images = [{"image_id": row["product_id"], "product_id": row["product_id"], "split": "train"} for row in products]
    events = [
        ("2025-04-01T10:00", "u", "p3", "click"),
        ("2025-04-01T23:00", "u", "p5", "click"),
        ("2025-04-01T23:00", "u", "p5", "click"),
        ("2025-04-01T10:00", "u", "p6", "impression"),
        ("2025-04-01T10:00", "u", "p60", "click"),
        ("2025-04-02T10:00", "u", "p5", "click"),
        ("2025-04-01T10:00", "v", "p7", "click"),
        ("2025-04-01T10:00", "v", "gone", "click"),
        *(("2025-04-03T10:00", "w", f"p{p}", "click") for p in range(60)),
    ]
    interactions = [dict(zip(("time", "user_id", "product_id", "kind"), event, strict=True)) for event in events]
    staging = Staging(str(tmp_path / "shop"), {})
    staging.begin()
    staging.write_chunk("0", {"products": products, "images": images, "interactions": interactions})
    dataset = staging.finish("shop", {})
    clicks = clicks_of(dataset)
    of = {one: set(clicks.category[clicks.session == one].tolist()) for one in np.unique(clicks.session).tolist()}
    assert sorted(map(sorted, of.values())) == [[3, 5], [5], [7]]
    assert len(clicks.session) == 4


def test_arrays_of_different_categories_are_refused() -> None:
    with pytest.raises(ShoplensError, match="2 centroids, co-clicks of 3"):
        similarity(np.eye(2), sparse.csr_array((3, 3)), np.zeros((2, 1), np.int64))

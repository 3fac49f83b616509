"""Exact search over ranges of products where float32 cannot tell them apart, and in an order of their own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoplens.search import scan
from shoplens.search.scan import Gallery, Range, best
from shoplens.search.storage import Stored, Vectors


@pytest.mark.parametrize("at_once", [64, 1 << 19])
def test_scores_that_float32_confuses_are_told_apart(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of vectors whose scores differ by less than a float32 product's rounding."""
    monkeypatch.setattr(scan, "_SCORES_AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    query = rng.normal(size=(5, 64)).astype(np.float32)
    vectors = rng.normal(size=64).astype(np.float32) * (1 + rng.integers(-2, 3, size=(3000, 64)) * np.float32(2**-23))
    vectors = np.concatenate([vectors, vectors[:100]]).astype(np.float32)
    found = best(Gallery(Vectors(Stored(vectors)), np.arange(3101), 20.0), query, 50, [Range(0, 3100)])
    exact = (vectors[None].astype(np.longdouble) * query[:, None]).sum(axis=2)
    np.testing.assert_array_equal(found.rows, np.argsort(-exact, axis=1, kind="stable")[:, :50])
    scores = np.take_along_axis(exact, found.rows, axis=1).astype(np.float64)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-14)
    assert len(np.unique(scores[0])) > 30 and scores[0, 0] - scores[0, -1] < 1e-5


def test_products_below_the_least_float32_are_told_apart() -> None:
    rng = np.random.default_rng(1)
    vectors, query = (rng.normal(size=(n, 64)).astype(np.float32) * np.float32(2.0**-74) for n in (3000, 50))
    found = best(Gallery(Vectors(Stored(vectors)), np.arange(3001), 20 * 2.0**-74), query, 50, [Range(0, 3000)])
    exact = query.astype(np.float64) @ vectors.T.astype(np.float64)
    np.testing.assert_array_equal(found.rows, np.argsort(-exact, axis=1)[:, :50])


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 60),
    m=st.integers(1, 6),
    k=st.integers(1, 70),
    photos=st.integers(1, 4),
    ordered=st.booleans(),
    at_once=st.sampled_from([1, 30, 1 << 19]),
)
def test_ranges_exclusions_and_order(
    seed: int, n: int, m: int, k: int, photos: int, ordered: bool, at_once: int
) -> None:
    rng = np.random.default_rng(seed)
    start = np.append(0, np.cumsum(rng.integers(1, photos + 1, size=n)))
    vectors = rng.integers(-2, 3, size=(start[-1], 3)).astype(np.float32)
    queries = rng.integers(-2, 3, size=(m, 3)).astype(np.float32)
    order = rng.permutation(n) if ordered else None
    cuts = np.sort(rng.integers(0, n + 1, size=4))
    barred = rng.random(n) < 0.3
    ranges = [Range(cuts[0], cuts[1], barred[cuts[0] : cuts[1]]), Range(cuts[2], cuts[3])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "_SCORES_AT_ONCE", at_once)
        found = best(Gallery(Vectors(Stored(vectors)), start, 9.0, order), queries, k, ranges)
    asked = [p for p in range(cuts[0], cuts[1]) if not barred[p]] + list(range(cuts[2], cuts[3]))
    assert found.products.shape == found.rows.shape == found.scores.shape == (m, min(k, len(asked)))
    for query, products, rows, scores in zip(queries, *found, strict=True):
        score = {p: (vectors[start[p] : start[p + 1]] @ query).max() for p in asked}
        place = np.arange(n) if order is None else order
        assert products.tolist() == sorted(asked, key=lambda p: (-score[p], place[p]))[:k]
        assert scores.tolist() == [score[p] for p in products]
        assert rows.tolist() == [start[p] + np.argmax(vectors[start[p] : start[p + 1]] @ query) for p in products]

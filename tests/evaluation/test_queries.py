"""Short queries on a split, against precision and nDCG counted by hand and by scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from shoplens.curation.short_queries import ANY, ShortQueries
from shoplens.evaluation.embedded import EmbeddedSplit
from shoplens.evaluation.queries import search


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_precision_and_ndcg_of_random_scores() -> None:
    rng = np.random.default_rng(3)
    n, dim = 60, 6
    facts = np.stack([rng.integers(0, 4, n), rng.integers(0, 5, n)], 1)
    split = EmbeddedSplit(
        unit(rng.normal(size=(n, dim))), np.arange(n), np.arange(n), ["t"] * n, unit(np.ones((n, dim))), np.arange(n)
    )
    texts = ("mugs", "머그", "red mugs", "빨간 머그", "rare", "red")
    asks = np.array([[0, ANY], [0, ANY], [0, 2], [0, 2], [9, ANY], [ANY, 2]])
    vectors = dict(zip(texts, unit(rng.normal(size=(6, dim))), strict=True))

    def encode(said: Sequence[str]) -> np.ndarray:
        return np.stack([vectors[text] for text in said])

    found = search(split, facts, ShortQueries(texts, asks), 1, encode)
    said = ["mugs", "머그"]
    if ((facts == [0, 2]).all(1)).sum() >= 3:
        said += ["red mugs", "빨간 머그"]
    assert len(found.outcomes["search/precision@10"]) == len(said), (
        "neither a query for nothing there, nor one without a category"
    )
    for place, text in enumerate(said):
        ask = asks[texts.index(text)]
        right = ((ask == ANY) | (facts == ask)).all(1)
        scores = split.images @ vectors[text]
        top = np.argsort(-scores)[:10]
        assert found.outcomes["search/precision@10"][place] == right[top].sum() / min(10, right.sum())
        expected = ndcg_score([right.astype(float)], [scores], k=10)
        assert found.outcomes["search/ndcg@10"][place] == pytest.approx(expected, rel=1e-6)
    assert found.outcomes["search/precision@10/ko/1"].tolist() == [found.outcomes["search/precision@10"][1]]
    groups = found.groups["search/precision@10"]
    assert groups[0] == groups[1], "two words for one thing are one group"


def test_chance_is_the_mean_precision_of_random_orders() -> None:
    rng = np.random.default_rng(0)
    facts = np.array([[0]] * 5 + [[1]] * 45)
    hits = [(facts[rng.permutation(50)[:10], 0] == 0).sum() / 5 for _ in range(4000)]
    split = EmbeddedSplit(
        unit(rng.normal(size=(50, 3))), np.arange(50), np.arange(50), ["t"] * 50, unit(np.ones((50, 3))), np.arange(50)
    )
    found = search(split, facts, ShortQueries(("a",), np.array([[0]])), 1, lambda texts: unit(np.ones((1, 3))))
    assert found.chance["search/precision@10"] == pytest.approx(np.mean(hits), abs=0.02)

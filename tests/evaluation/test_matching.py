from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from shoplens.evaluation import matching
from shoplens.evaluation.embedded import EmbeddedSplit
from shoplens.evaluation.matching import Pairs, best_threshold, draw_catalogs, match, pair_average_precision, pair_f1
from shoplens.evaluation.metrics import TIE
from shoplens.evaluation.ranking import rank
from tests.evaluation.splits import random_split

splits = st.builds(
    random_split,
    seed=st.integers(0, 2**16),
    n_products=st.integers(2, 14),
    n_photos=st.integers(2, 25),
    n_catalogs=st.integers(1, 6),
)


def _catalogs(split: EmbeddedSplit) -> list[object]:
    return [int(c) if c >= 0 else f"own {i}" for i, c in enumerate(split.catalog)]


@settings(max_examples=60, deadline=None)
@given(split=splits, modality=st.sampled_from(["image", "text", "fused"]))
def test_pairs_are_those_of_a_plain_loop(split: EmbeddedSplit, modality: str) -> None:
    catalogs = _catalogs(split)
    vectors, rows = split.vectors(modality), split.rows(modality)  # type: ignore[arg-type]
    listings = {c: {p for p in split.product.tolist() if catalogs[p] == c} for c in catalogs}
    expected = []
    for i, j in combinations(range(len(rows)), 2):
        p, q = int(rows[i]), int(rows[j])
        if p == q and (modality == "fused" or len(listings[catalogs[p]]) > 1):
            continue
        same_category = split.category is not None and split.category[p] == split.category[q] >= 0
        expected.append((float(vectors[i] @ vectors[j]), catalogs[p] == catalogs[q], bool(same_category)))
    found = matching.pairs(split, modality)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.score, [score for score, _, _ in expected], atol=1e-6)
    assert found.same.tolist() == [same for _, same, _ in expected]
    assert found.same_category.tolist() == [hard for _, _, hard in expected]


@settings(max_examples=40, deadline=None)
@given(split=splits, modality=st.sampled_from(["image", "text"]))
def test_hard_recall_searches_the_category_alone(split: EmbeddedSplit, modality: str) -> None:
    found = match(split).outcomes.get(f"matching/{modality}/hard_recall@1")
    task = matching.matching(split, modality)  # type: ignore[arg-type]
    assert split.category is not None
    category, hits = split.category[split.rows(modality)], []  # type: ignore[arg-type]
    scores = task.queries @ task.gallery.T
    for i in range(len(task)):
        assert task.left_out is not None and task.query_owner is not None
        owned = task.left_out[[task.query_owner[i]]].toarray()[0] > 0
        right = (task.right[[task.query_key[i]]].toarray()[0] > 0) & ~owned
        wrong = ~right & ~owned & (category == category[task.query_row[i]])
        if category[task.query_row[i]] >= 0 and wrong.any():
            hits.append(float(scores[i, right].max() > scores[i, wrong].max() + TIE))
    assert (found is None and not hits) or (found is not None and found.tolist() == hits)


@settings(max_examples=60, deadline=None)
@given(split=splits, modality=st.sampled_from(["image", "text", "fused"]))
def test_map_at_r_is_the_definition(split: EmbeddedSplit, modality: str) -> None:
    """1/R times the sum over places i = 1..R of the precision there where the item is right."""
    task = matching.matching(split, modality)  # type: ignore[arg-type]
    ranks = rank(task)
    scores = task.queries @ task.gallery.T
    for i in range(len(task)):
        assert task.left_out is not None and task.query_owner is not None
        owned = task.left_out[[task.query_owner[i]]].toarray()[0] > 0
        right = (task.right[[task.query_key[i]]].toarray()[0] > 0)[~owned]
        order = [r for _, r in sorted(zip(np.round(-scores[i][~owned], 6), right, strict=True))]
        r = int(right.sum())
        expected = sum(np.mean(order[: k + 1]) for k in range(r) if order[k]) / r
        assert ranks.map_at_r[i] == pytest.approx(expected)
        assert ranks.map_at_r[i] <= ranks.average_precision[i] + 1e-12


def _pairs(seed: int, n_catalogs: int, each: int, apart: float = 1.0) -> tuple[Pairs, np.ndarray]:
    rng = np.random.default_rng(seed)
    catalog = np.repeat(np.arange(n_catalogs), each)
    a, b = np.triu_indices(len(catalog), k=1)
    same = catalog[a] == catalog[b]
    score = rng.normal(size=len(a)) + apart * same
    score += 1e-4 * np.argsort(np.argsort(score))  # none within the width of a tie
    return Pairs(score, same, catalog[a], catalog[b], np.ones(len(a), bool)), np.arange(n_catalogs)


@pytest.mark.parametrize("seed", range(4))
def test_pair_metrics_are_sklearns(seed: int) -> None:
    pairs, group = _pairs(seed, 30, 3)
    statistic = pair_average_precision(pairs, group)
    assert statistic.value == pytest.approx(average_precision_score(pairs.same, pairs.score))
    assert pair_f1(pairs, 0.8, group).value == pytest.approx(f1_score(pairs.same, pairs.score >= 0.8))


def _expanded(pairs: Pairs, drawn: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores and truth where every drawn catalog is a product of its own; draws of one do not meet."""
    scores, same = [], []
    rng = np.random.default_rng(seed)
    for score, is_same, a, b in zip(pairs.score, pairs.same, pairs.a, pairs.b, strict=True):
        times = int(drawn[a] if is_same else drawn[a] * drawn[b])
        scores += list(score + 1e-7 * rng.random(times))
        same += [is_same] * times
    return np.array(scores), np.array(same)


@pytest.mark.parametrize("runs", [128, 30])
def test_a_draw_of_catalogs_is_the_metric_of_the_drawn_catalogs(runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the few pairs that draws of one catalog cannot form, which the others stand in for."""
    monkeypatch.setattr(matching, "_RUNS", runs)
    pairs, group = _pairs(7, 60, 2, apart=3.0)
    drawn = np.random.default_rng(1).multinomial(60, np.full(60, 1 / 60), size=5).astype(float)
    precision = pair_average_precision(pairs, group).under(drawn)
    f1 = pair_f1(pairs, 2.0, group).under(drawn)
    for i, weights in enumerate(drawn):
        score, same = _expanded(pairs, weights)
        assert precision[i] == pytest.approx(average_precision_score(same, score), abs=0.03)
        assert f1[i] == pytest.approx(f1_score(same, score >= 2.0), abs=0.02)
    assert np.ptp(precision) > 0.05, "the draws differ by more than the tolerance"


@settings(max_examples=40, deadline=None)
@given(scored=st.lists(st.tuples(st.integers(-5, 5).map(lambda i: i / 5), st.booleans()), min_size=2, max_size=20))
def test_the_best_threshold_is_the_best_of_all(scored: list[tuple[float, bool]]) -> None:
    score, same = (np.array(part) for part in zip(*scored, strict=True))
    threshold = best_threshold(score, same)
    if not same.any():
        assert np.isnan(threshold)
        return
    every = [f1_score(same, score >= cut) for cut in np.unique(score)]
    assert f1_score(same, score >= threshold) == pytest.approx(max(every))


def test_f1_needs_a_development_split_with_a_pair() -> None:
    split = random_split(3, 20, 40, 6)
    alone = random_split(4, 10, 10, 5)
    alone = EmbeddedSplit(**{**vars(alone), "catalog": np.arange(10), "product": np.arange(10)})
    assert not any("pair_f1" in name for name in match(split).statistics)
    assert not any("pair_f1" in name for name in match(split, alone).statistics)
    assert "matching/text/pair_f1" in match(split, random_split(5, 20, 40, 6)).statistics


def test_drawn_catalogs_are_whole() -> None:
    catalog = np.random.default_rng(0).integers(40, size=300)
    kept = draw_catalogs(catalog, 100)
    assert 70 < kept.sum() <= 100
    assert not set(catalog[kept]) & set(catalog[~kept])
    assert draw_catalogs(catalog, 300).all()
    assert draw_catalogs(np.zeros(5, int), 3).all(), "one catalog is never cut"

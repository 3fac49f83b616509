"""Ranking figures against golden values, closed forms of chance, and every order of what is tied."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from shoplens.evaluation.report import render
from shoplens.evaluation.topics import CandidateList, match_topics, rank_candidates, ranking_figures

GOLDEN = np.array(
    [[0.2, 0.5, 0.1, 0.4, 0.3], [0.9, 0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.9, 0.3, 0.4], [0.3, 0.35, 0.1, 0.2, 0]]
)
BEST_FIRST = np.array([5.0, 4, 3, 2, 1])


def mean(figures: list[dict[str, float]], name: str) -> float:
    return float(np.mean([each[name] for each in figures]))


def test_golden_figures() -> None:
    figures = [ranking_figures(scores, BEST_FIRST) for scores in GOLDEN]
    assert mean(figures, "mrr") == pytest.approx(0.4875)
    assert mean(figures, "top1_top1") == pytest.approx(0.25)
    assert mean(figures, "top3_top1") == pytest.approx(1.0)
    ranks = [1 + (scores > scores[0]).sum() for scores in GOLDEN]
    assert mean(figures, "best_in_3") == pytest.approx(np.mean([rank <= 3 for rank in ranks]))


@pytest.mark.parametrize(("n", "mrr"), [(50, 0.08998), (20, 0.1799)])
def test_no_opinion_is_chance(n: int, mrr: float) -> None:
    figures = ranking_figures(np.zeros(n), np.arange(n, dtype=float))
    assert figures["mrr"] == pytest.approx(mrr, abs=5e-5)
    for top in (1, 3, 5):
        assert figures[f"top{top}_top1"] == pytest.approx(top / n)
        assert figures[f"best_in_{top}"] == pytest.approx(top / n)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(2, 6))
def test_ties_stand_in_every_order(data: st.DataObject, n: int) -> None:
    """The mean over all orders of the list, ties broken by place."""
    values = st.lists(st.integers(0, 3), min_size=n, max_size=n)
    scores, liked = (np.array(data.draw(values), dtype=float) for _ in range(2))
    expected = ranking_figures(scores, liked)
    seen: dict[str, list[float]] = {name: [] for name in expected if "ndcg" not in name}
    for order in permutations(range(n)):
        place = np.empty(n, int)
        ranked = sorted(order, key=lambda i: -scores[i])
        place[ranked] = np.arange(1, n + 1)
        true_rank = np.empty(n, int)
        true_rank[sorted(order, key=lambda i: -liked[i])] = np.arange(1, n + 1)
        best = np.flatnonzero(liked == liked.max())
        seen["mrr"].append(float(np.mean(1 / place[best])))
        for top in (1, 3, 5):
            seen[f"best_in_{top}"].append(float(np.mean(place[best] <= top)))
            firsts = np.flatnonzero(scores == scores.max())
            seen[f"top{top}_top1"].append(float(np.mean(true_rank[firsts] <= top)))
    for name, values_seen in seen.items():
        assert expected[name] == pytest.approx(np.mean(values_seen)), name


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 40))
def test_ndcg_as_scikit_learn_has_it(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    scores, liked = rng.integers(0, 8, n).astype(float), rng.integers(0, 4, n).astype(float)
    if not liked.any():
        return
    figures = ranking_figures(scores, liked)
    for k in (5, 10):
        assert figures[f"ndcg@{k}"] == pytest.approx(ndcg_score([liked], [scores], k=k))


def test_lists_are_told_by_category_and_beside_chance() -> None:
    lists = [CandidateList(row, np.arange(5), BEST_FIRST) for row in range(4)]
    found = rank_candidates(list(GOLDEN), lists, ["a", "a", "b", "b"])
    assert found.outcomes["ranking/mrr"].mean() == pytest.approx(0.4875)
    assert found.chance["ranking/mrr"] == pytest.approx(sum(1 / i for i in range(1, 6)) / 5)
    assert found.about["ranking_by_category"]["a"]["topics"] == 2
    evaluation = found.evaluation()
    assert evaluation.headline == ["ranking/ndcg@10"]
    assert all(metric.title and metric.task_title for metric in evaluation.metrics.values())
    page = render(evaluation)
    assert "Top1-Top1" in page and "Ranking by category of the topic" in page and "ranking_by_category" not in page


def test_topics_and_photos_find_each_other() -> None:
    rng = np.random.default_rng(0)
    photos = rng.normal(size=(12, 8))
    photos /= np.linalg.norm(photos, axis=1, keepdims=True)
    lists = [CandidateList(7, np.array([0, 1, 2]), np.zeros(3)), CandidateList(9, np.array([2, 3]), np.zeros(2))]
    topics = np.stack([photos[1], photos[5]])
    found = match_topics(topics, photos, lists)
    scores = topics @ photos.T
    first = [int((row > row[one.items].max()).sum()) for row, one in zip(scores, lists, strict=True)]
    np.testing.assert_allclose(found.outcomes["topic_to_image/mrr"], [1 / (1 + f) for f in first])
    assert found.outcomes["topic_to_image/recall@1"].tolist() == [1.0, 0.0]
    assert len(found.outcomes["image_to_topic/mrr"]) == 4
    assert found.evaluation().headline == ["topic_to_image/mrr"]
    assert found.groups["image_to_topic/mrr"].tolist() == [7, 7, 7, 9]
    right = [scores[0, i] > scores[1, i] for i in (0, 1)] + [True, scores[1, 3] > scores[0, 3]]
    np.testing.assert_array_equal(found.outcomes["image_to_topic/recall@1"], right)

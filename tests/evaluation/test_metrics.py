from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from shoplens.evaluation.metrics import (
    TIE,
    average_precision,
    chance_average_precision,
    chance_recall,
    recall_at,
    wrong_before,
)

scores = st.lists(st.integers(-20, 20).map(lambda i: i / 20), min_size=1, max_size=15)


@given(right=scores, wrong=scores)
def test_average_precision_is_sklearns_with_ties_broken_against_the_model(
    right: list[float], wrong: list[float]
) -> None:
    before = wrong_before(np.array(right), np.sort(wrong))
    truth = [1] * len(right) + [0] * len(wrong)
    right_apart = np.array(right) + 1e-9 * np.arange(len(right))
    expected = average_precision_score(truth, np.concatenate([right_apart, np.array(wrong) + 1e-4]))
    assert average_precision(before) == pytest.approx(expected)


@given(right=scores, wrong=scores, k=st.integers(1, 12))
def test_recall_is_that_of_the_worst_order_of_ties(right: list[float], wrong: list[float], k: int) -> None:
    before = wrong_before(np.array(right), np.sort(wrong))
    ranking = sorted([(-s, 1) for s in right] + [(-s, 0) for s in wrong])
    assert recall_at(k, before[:1])[0] == float(any(is_right for _, is_right in ranking[:k]))


def test_scores_within_the_tie_width_are_ties() -> None:
    wrong = np.sort(np.array([0.5, 0.3], dtype=np.float32))
    assert wrong_before(np.array([0.5 + TIE / 4], dtype=np.float32), wrong)[0] == 1
    assert wrong_before(np.array([0.5 + TIE * 4], dtype=np.float32), wrong)[0] == 0


@pytest.mark.parametrize(("n", "r"), [(1, 1), (4, 1), (5, 2), (6, 3), (6, 6)])
def test_chance_is_the_mean_over_every_order(n: int, r: int) -> None:
    orders = set(permutations([1] * r + [0] * (n - r)))
    aps = [average_precision_score(order, -np.arange(n)) for order in orders]
    assert chance_average_precision(np.array([r]), np.array([n]))[0] == pytest.approx(np.mean(aps))
    for k in (1, 2, 3, 10):
        hits = [any(order[:k]) for order in orders]
        assert chance_recall(k, np.array([r]), np.array([n]))[0] == pytest.approx(np.mean(hits))

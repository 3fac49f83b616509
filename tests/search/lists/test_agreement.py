"""Match rate and rank-biased overlap against their definitions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoplens.errors import ShoplensError
from shoplens.search.lists.agreement import agreement, overlap, rank_biased_overlap
from tests.search.lists.random_lists import AT, Shop, listed, shops

LISTS = np.array([[1, 2, -1], [0, -1, -1]])


def naive_rbo(a: list[int], b: list[int], p: float) -> float:
    """The endless sum over depths, agreement beyond the lists as Webber et al. 2010 extrapolate it."""
    short, long = sorted([a, b], key=len)
    total = 0.0
    for depth in range(1, 600):
        common = len(set(short[:depth]) & set(long[:depth]))
        if depth > len(short):
            at_short = len(set(short) & set(long[: len(short)]))
            seen = min(depth, len(long))
            common_seen = len(set(short) & set(long[:seen]))
            agree = (common_seen + (at_short * (seen - len(short)) / len(short) if short else 0)) / seen
        else:
            agree = common / depth
        total += (1 - p) * p ** (depth - 1) * agree
    return total


@settings(max_examples=80, deadline=None)
@given(shop=shops(), p=st.floats(0.3, 0.95))
def test_match_and_rank_biased_overlap(shop: Shop, p: float) -> None:
    found = agreement(shop.lists, shop.others, shop.n_items, at=AT, persistence=p)
    common, rbo = overlap(shop.lists, shop.others), rank_biased_overlap(shop.lists, shop.others, p)
    for row, (a, b) in enumerate(zip(map(listed, shop.lists), map(listed, shop.others), strict=True)):
        assert common[row].tolist() == [len(set(a[:d]) & set(b[:d])) for d in range(1, 8)]
        for k in AT:
            assert found.outcomes[f"agreement/match@{k}"][row] == pytest.approx(len(set(a[:k]) & set(b[:k])) / k)
        if a or b:
            assert rbo[row] == pytest.approx(naive_rbo(a, b, p), abs=1e-9)
        else:
            assert np.isnan(rbo[row])
    assert found.about["rbo"]["both_empty"] == np.isnan(rbo).sum()
    np.testing.assert_array_equal(found.outcomes["agreement/rbo"], rbo[~np.isnan(rbo)])
    np.testing.assert_allclose(rbo, rank_biased_overlap(shop.others, shop.lists, p), atol=1e-12)


def test_equal_and_disjoint_lists() -> None:
    lists = np.array([[4, 2, 0, 1], [3, 1, -1, -1], [0, 1, 2, 3]])
    others = np.array([[4, 2, 0, 1], [3, 1, -1, -1], [4, 5, 6, -1]])
    np.testing.assert_allclose(rank_biased_overlap(lists, others), [1, 1, 0], atol=1e-12)
    found = agreement(lists, others, 7, at=[2, 4]).evaluation()
    assert found.metrics["agreement/match@2"].value == pytest.approx(2 / 3)
    assert found.metrics["agreement/match@4"].value == pytest.approx((1 + 0.5) / 3), (
        "over K, also where lists are short"
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: agreement(LISTS, LISTS[:1], 5, at=[1]), "2 lists against 1"),
        (lambda: agreement(LISTS, LISTS[:, :2], 5, at=[3]), "lists of 2 places"),
        (lambda: rank_biased_overlap(LISTS, LISTS, 1.0), "between 0 and 1"),
    ],
)
def test_what_is_wrong_is_said(wrong: Callable[[], object], said: str) -> None:
    with pytest.raises(ShoplensError, match=said):
        wrong()

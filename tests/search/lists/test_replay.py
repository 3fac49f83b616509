"""Metrics of clicks against loops over single events, on random lists with ties."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shoplens.errors import ShoplensError
from shoplens.search.lists.agreement import agreement
from shoplens.search.lists.replay import Clicks, places_of, replay, rows_valid_at
from shoplens.statistics.bootstrap import draw
from tests.search.lists.random_lists import AT, Shop, listed, shops

LISTS = np.array([[1, 2, -1], [0, -1, -1]])
ONE = np.array([0])


def naive_hits(clicks: Clicks, lists: np.ndarray, k: int) -> tuple[list[float], list[float]]:
    hits, reciprocals = [], []
    for seed, item in zip(clicks.seed, clicks.clicked, strict=True):
        first = listed(lists[seed])[:k]
        hits.append(float(item in first))
        reciprocals.append(1 / (1 + first.index(item)) if item in first else 0.0)
    return hits, reciprocals


@settings(max_examples=60, deadline=None)
@given(shop=shops())
def test_hits_and_reciprocal_ranks(shop: Shop) -> None:
    found = replay(shop.clicks, shop.lists, shop.n_items, at=AT)
    for k in AT:
        hits, reciprocals = naive_hits(shop.clicks, shop.lists, k)
        np.testing.assert_array_equal(found.outcomes[f"clicks/hit@{k}"], hits)
        np.testing.assert_allclose(found.outcomes[f"clicks/mrr@{k}"], reciprocals)
        np.testing.assert_array_equal(found.groups[f"clicks/hit@{k}"], shop.clicks.user)
        of_seed: dict[int, list[float]] = {}
        for seed, hit in zip(shop.clicks.seed.tolist(), hits, strict=True):
            of_seed.setdefault(seed, []).append(hit)
        macro = found.statistics[f"clicks/hit@{k}_by_seed"]
        assert macro.value == pytest.approx(np.mean([np.mean(one) for one in of_seed.values()]))
        assert macro.n == len(of_seed)


@settings(max_examples=30, deadline=None)
@given(shop=shops(), seed=st.integers(0, 99))
def test_macro_hits_under_a_draw_are_those_of_users_taken_as_often(shop: Shop, seed: int) -> None:
    macro = replay(shop.clicks, shop.lists, shop.n_items, at=[3]).statistics["clicks/hit@3_by_seed"]
    users = np.unique(shop.clicks.user)
    drawn = np.random.default_rng(seed).multinomial(len(users), np.full(len(users), 1 / len(users)), size=5)
    for times, value in zip(drawn, macro.under(drawn.astype(float)), strict=True):
        taken = np.repeat(np.arange(len(shop.clicks.seed)), times[np.searchsorted(users, shop.clicks.user)])
        again = Clicks(shop.clicks.seed[taken], shop.clicks.clicked[taken], shop.clicks.user[taken])
        assert value == pytest.approx(
            replay(again, shop.lists, shop.n_items, at=[3]).statistics["clicks/hit@3_by_seed"].value
        )


@settings(max_examples=60, deadline=None)
@given(shop=shops(), ties=st.booleans(), buckets=st.integers(1, 5))
def test_parts_by_popularity(shop: Shop, ties: bool, buckets: int) -> None:
    popularity = np.arange(len(shop.lists))[::-1] // (2 if ties else 1)
    found = replay(shop.clicks, shop.lists, shop.n_items, at=[6], popularity=popularity, buckets=buckets)
    asked = sorted(set(shop.clicks.seed.tolist()), key=lambda seed: popularity[seed])
    of_popularity: dict[int, int] = {}
    for place, seed in enumerate(asked):
        of_popularity.setdefault(int(popularity[seed]), place * buckets // len(asked) + 1)
    hits, _ = naive_hits(shop.clicks, shop.lists, 6)
    expected: dict[str, list[float]] = {}
    for seed, hit in zip(shop.clicks.seed, hits, strict=True):
        part = of_popularity[int(popularity[seed])]
        expected.setdefault(f"clicks/popularity_{part}/hit@6", []).append(hit)
    told = {name: values.tolist() for name, values in found.outcomes.items() if "popularity" in name}
    assert told == expected
    assert sum(part["events"] for part in found.about["popularity"].values()) == len(hits)
    assert sum(part["seeds"] for part in found.about["popularity"].values()) == len(asked)


def test_chance_is_that_of_random_lists() -> None:
    rng = np.random.default_rng(0)
    n_items, n_seeds = 30, 4000
    lists, others = (rng.permuted(np.tile(np.arange(n_items), (n_seeds, 1)), axis=1)[:, :6] for _ in range(2))
    lists[::2, 4:] = -1
    clicks = Clicks(np.arange(n_seeds), rng.integers(n_items, size=n_seeds), np.arange(n_seeds))
    metrics = replay(clicks, lists, n_items, at=AT).evaluation().metrics
    metrics |= agreement(lists, others, n_items, at=AT).evaluation().metrics
    for kind in ("clicks/hit", "clicks/mrr", "agreement/match"):
        for k in AT:
            one = metrics[f"{kind}@{k}"]
            spread = (one.high - one.low) / (2 * stats.norm.ppf(0.975))
            assert one.chance is not None
            assert abs(one.value - one.chance) < 4 * spread, kind


def test_intervals_of_clicks_are_by_user() -> None:
    """Users who always or never click what is listed: forty events of ten users are ten draws, not forty."""
    lists = np.array([[0, 1]])
    user = np.repeat(np.arange(10), 40)
    clicks = Clicks(np.zeros(400, int), np.where(user < 5, 0, 9), user)
    found = replay(clicks, lists, 10, at=[2])
    metric = found.evaluation().metrics["clicks/hit@2"]
    assert metric.high - metric.low > 4 * 2 * 1.96 * 0.5 / np.sqrt(400)
    assert np.std(draw(found.statistics["clicks/hit@2_by_seed"])) > 4 * 0.5 / np.sqrt(400)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), n_lists=st.integers(0, 12), n_events=st.integers(0, 12))
def test_replay_uses_the_list_that_was_valid_then(seed: int, n_lists: int, n_events: int) -> None:
    rng = np.random.default_rng(seed)
    day = np.datetime64("2019-11-24")
    moments = rng.permutation(40)[:n_lists]
    list_seed, list_time = rng.integers(3, size=n_lists), day + moments
    event_seed, time = rng.integers(4, size=n_events), day + rng.integers(-2, 42, n_events)
    rows = rows_valid_at(event_seed, time, list_seed, list_time)
    for one, when, row in zip(event_seed, time, rows, strict=True):
        before = [i for i in range(n_lists) if list_seed[i] == one and list_time[i] <= when]
        assert row == max(before, key=lambda i: list_time[i], default=-1)


def test_a_click_before_the_first_list_is_a_miss() -> None:
    lists = np.array([[1, 2], [2, 3]])
    clicks = Clicks(np.zeros(3, int), np.array([2, 2, 1]), np.arange(3), row=np.array([-1, 1, 0]))
    assert places_of(clicks, lists).tolist() == [0, 1, 1]
    found = replay(clicks, lists, 4, at=[2])
    assert found.about["clicks"] == {"events": 3, "seeds": 1, "without_list": 1}
    assert found.outcomes["clicks/hit@2"].tolist() == [0, 1, 1]


def test_no_click_no_figure() -> None:
    none = np.zeros(0, int)
    assert not replay(Clicks(none, none, none), np.array([[1, 2]]), 4, at=[2]).evaluation().metrics


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Clicks(ONE, np.array([1, 2]), ONE), "one of each an event"),
        (lambda: Clicks(ONE, np.array([-1]), ONE), "codes from 0"),
        (lambda: Clicks(ONE, np.array([0.5]), ONE), "codes from 0"),
        (lambda: replay(Clicks(np.array([2]), ONE, ONE), LISTS, 5, at=[1]), "names list 2"),
        (lambda: replay(Clicks(ONE, ONE, ONE), LISTS, 2, at=[1]), "items are 0 to 1"),
        (lambda: replay(Clicks(ONE, ONE, ONE), LISTS, 5, at=[4]), "choose from 1 to 3"),
        (lambda: replay(Clicks(ONE, ONE, ONE), LISTS, 5, at=[]), "choose from 1 to 3"),
        (lambda: replay(Clicks(np.array([1]), ONE, ONE), LISTS, 5, at=[1], popularity=ONE), "popularity is known of 1"),
        (lambda: replay(Clicks(ONE, ONE, ONE), LISTS, 5, at=[1], buckets=0), "1 or more"),
    ],
)
def test_what_is_wrong_is_said(wrong: Callable[[], object], said: str) -> None:
    with pytest.raises(ShoplensError, match=said):
        wrong()

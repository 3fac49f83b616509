"""List metrics against loops over single events and lists, on random data with ties, short and empty lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shoplens.errors import ShoplensError
from shoplens.search.lists.agreement import agreement, overlap, rank_biased_overlap
from shoplens.search.lists.contents import centrality_ratio, contents, gini
from shoplens.search.lists.replay import Clicks, places_of, replay, rows_valid_at
from shoplens.statistics.bootstrap import draw

AT = (1, 3, 6)
NAMES = ("full", "duplicates", "itself", "duplicates_catalog", "itself_catalog", "leakage_leaf")


class Shop(NamedTuple):
    lists: np.ndarray
    others: np.ndarray
    clicks: Clicks
    n_items: int
    seed_item: np.ndarray
    category: np.ndarray
    product: np.ndarray


def some_lists(rng: np.random.Generator, n_seeds: int, n_items: int, width: int) -> np.ndarray:
    """Short, empty and full lists, in which items repeat."""
    lists = rng.integers(n_items, size=(n_seeds, width))
    return np.where(np.arange(width) < rng.integers(width + 1, size=n_seeds)[:, None], lists, -1)


@st.composite
def shops(draw: st.DrawFn) -> Shop:
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    n_seeds, n_items, n_events = draw(st.integers(1, 8)), draw(st.integers(1, 12)), draw(st.integers(1, 40))
    user = rng.integers(-3, 4, n_events)
    clicks = Clicks(rng.integers(n_seeds, size=n_events), rng.integers(n_items + 2, size=n_events), user)
    return Shop(
        some_lists(rng, n_seeds, n_items, 6),
        some_lists(rng, n_seeds, n_items, 7),
        clicks,
        n_items,
        rng.integers(n_items, size=n_seeds),
        rng.integers(-1, 3, size=n_items),
        rng.integers(4, size=n_items),
    )


def listed(row: np.ndarray) -> list[int]:
    return [int(item) for item in row if item >= 0]


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


@settings(max_examples=60, deadline=None)
@given(shop=shops())
def test_contents_of_lists(shop: Shop) -> None:
    found = contents(
        shop.lists,
        shop.n_items,
        seed_item=shop.seed_item,
        categories={"leaf": shop.category},
        products={"catalog": shop.product},
        at=AT,
        most=[2],
    )
    for k in AT:
        expected: dict[str, list[float]] = {name: [] for name in NAMES}
        for row, seed in zip(shop.lists, shop.seed_item, strict=True):
            first = listed(row)[:k]
            expected["full"].append(float(len(first) == k))
            products = [int(shop.product[item]) for item in first]
            wanted = shop.category[seed]
            known = [shop.category[item] for item in first if shop.category[item] >= 0 and wanted >= 0]
            if first:
                for name, held, own in (("", first, int(seed)), ("_catalog", products, int(shop.product[seed]))):
                    repeats = sum(one in held[:i] for i, one in enumerate(held))
                    expected[f"duplicates{name}"].append(repeats / len(first))
                    expected[f"itself{name}"].append(held.count(own) / len(first))
            if known:
                expected["leakage_leaf"].append(sum(one != wanted for one in known) / len(known))
        for name, values in expected.items():
            np.testing.assert_allclose(found.outcomes[f"lists/{name}@{k}"], values, err_msg=name)
        counts = [sum(listed(row)[:k].count(item) for row in shop.lists) for item in range(shop.n_items)]
        assert found.statistics[f"catalog/coverage@{k}"].value == pytest.approx(np.mean(np.array(counts) > 0))
        if sum(counts) and shop.n_items >= 2:
            top = sum(sorted(counts)[-2:]) / sum(counts)
            assert found.statistics[f"catalog/centrality@{k}_top2"].value == pytest.approx(top)
            assert found.about["centrality"][f"centrality@{k}_top2"] == {
                "k": 2, "K": k, "seeds": len(shop.lists), "places": sum(counts), "catalog": shop.n_items,
                "floor": 2 / shop.n_items,
            }  # fmt: skip


@given(counts=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any), k=st.integers(1, 12))
def test_centrality_and_gini_by_definition(counts: list[int], k: int) -> None:
    assert centrality_ratio(np.array(counts), k) == pytest.approx(sum(sorted(counts)[::-1][:k]) / sum(counts))
    assert centrality_ratio(np.array(counts), k) >= min(k / len(counts), 1) - 1e-12, "the floor"
    differences = np.abs(np.subtract.outer(counts, counts)).mean()
    assert gini(np.array(counts)) == pytest.approx(differences / (2 * np.mean(counts)))


def test_lists_without_an_item_say_nothing_of_the_catalog() -> None:
    empty = np.full((3, 4), -1)
    found = contents(empty, 5, at=[4])
    evaluation = found.evaluation()
    assert evaluation.metrics["lists/full@4"].value == 0
    assert evaluation.metrics["catalog/coverage@4"].value == 0
    assert not any("gini" in name or "duplicates" in name for name in evaluation.metrics)
    assert np.isnan(gini(np.zeros(3, int))) and np.isnan(centrality_ratio(np.zeros(3, int), 1))


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


LISTS = np.array([[1, 2, -1], [0, -1, -1]])
ONE = np.array([0])


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
        (lambda: contents(np.array([[1, -1, 2]]), 5, at=[1]), "goes on after -1"),
        (lambda: contents(LISTS.astype(float), 5, at=[1]), "integer item codes"),
        (lambda: contents(LISTS, 5, categories={"leaf": np.zeros(5, int)}, at=[1]), "give seed_item"),
        (lambda: contents(LISTS, 5, products={"catalog": np.zeros(4, int)}, at=[1]), "5 codes are needed"),
        (lambda: contents(LISTS, 5, seed_item=np.array([0, 5]), at=[1]), "outside the 5"),
        (lambda: agreement(LISTS, LISTS[:1], 5, at=[1]), "2 lists against 1"),
        (lambda: agreement(LISTS, LISTS[:, :2], 5, at=[3]), "lists of 2 places"),
        (lambda: rank_biased_overlap(LISTS, LISTS, 1.0), "between 0 and 1"),
    ],
)
def test_what_is_wrong_is_said(wrong: Callable[[], object], said: str) -> None:
    with pytest.raises(ShoplensError, match=said):
        wrong()

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from shoplens.statistics.bootstrap import (
    Statistic,
    between_scale,
    draw,
    interval,
    interval_of_draws,
    mean_of,
    paired_difference,
    ratio,
    ratio_intervals,
)


def _shop(rng: np.random.Generator, n_groups: int, effect: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two models' outcomes of queries that share their group's difficulty; true means 0.5 + effect and 0.5."""
    sizes = rng.integers(1, 12, n_groups)
    groups = np.repeat(np.arange(n_groups), sizes)
    ease = rng.uniform(0.1, 0.9, n_groups)[groups]
    a = rng.random(len(groups)) < ease + effect
    b = rng.random(len(groups)) < ease
    return a.astype(float), b.astype(float), groups


def test_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    runs, hits, naive_hits = 400, 0, 0
    for seed in range(runs):
        a, _, groups = _shop(rng, 80)
        low, high = interval(a, groups, seed, resamples=400)
        hits += low <= 0.5 <= high
        half = 1.96 * a.std(ddof=1) / math.sqrt(len(a))
        naive_hits += abs(a.mean() - 0.5) <= half
    assert 0.90 <= hits / runs <= 0.98
    assert naive_hits / runs < hits / runs - 0.05, "queries of one group are not independent"


@pytest.mark.parametrize("n_groups", [2, 3, 5, 8, 12])
def test_few_groups_have_intervals_as_wide_as_students(n_groups: int) -> None:
    """For normal groups of one size, Student's interval of their means is exact."""
    rng = np.random.default_rng(n_groups)
    values = 10 * rng.normal(size=(250, n_groups))
    found = np.array([interval(row, np.arange(n_groups), seed, resamples=1000) for seed, row in enumerate(values)])
    half = stats.sem(values, axis=1) * stats.t.ppf(0.975, n_groups - 1)
    covered = (found[:, 0] <= 0) & (found[:, 1] >= 0)
    assert 0.91 <= covered.mean() <= 0.99
    assert np.median((found[:, 1] - found[:, 0]) / (2 * half)) == pytest.approx(1.06, abs=0.07)


def test_intervals_of_shares_are_shares() -> None:
    assert interval(np.array([0.0, 1.0]), np.arange(2)) == (0, 1)
    assert paired_difference(np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.arange(2)) == (0, -1, 1)


def test_paired_difference_covers_and_is_narrower_than_unpaired() -> None:
    rng = np.random.default_rng(1)
    runs, hits = 300, 0
    for seed in range(runs):
        a, b, groups = _shop(rng, 80, effect=0.1)
        difference, low, high = paired_difference(a, b, groups, seed, resamples=400)
        assert low <= difference <= high
        assert difference == pytest.approx(a.mean() - b.mean())
        hits += low <= 0.1 <= high
    assert 0.90 <= hits / runs <= 0.985
    low_a, high_a = interval(a, groups)
    low_b, high_b = interval(b, groups)
    assert high - low < 0.9 * ((high_a - low_a) ** 2 + (high_b - low_b) ** 2) ** 0.5


def test_single_queries_agree_with_scipy() -> None:
    values = np.random.default_rng(2).exponential(size=300)
    low, high = interval(values, np.arange(300), resamples=20_000)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=3).confidence_interval
    assert low == pytest.approx(theirs.low, abs=0.005)
    assert high == pytest.approx(theirs.high, abs=0.005)


def test_same_seed_same_interval_whatever_the_group_codes() -> None:
    a, _, groups = _shop(np.random.default_rng(3), 30)
    assert interval(a, groups, 5) == interval(a, groups * 1000 - 7, 5)
    assert interval(a, groups, 5) != interval(a, groups, 6)


def test_one_group_says_nothing() -> None:
    low, high = interval(np.array([1.0, 0.0]), np.zeros(2, int))
    assert math.isnan(low) and math.isnan(high)


def test_ratio_intervals_of_a_mean_are_its_interval() -> None:
    a, _, groups = _shop(np.random.default_rng(3), 30)
    assert ratio_intervals(a, np.ones(len(a)), groups * 3 - 5, 7)[0] == pytest.approx(interval(a, groups, 7))


def test_studentised_interval_by_its_definition() -> None:
    """Draws of our own, the standard error of each from its residuals."""
    rng = np.random.default_rng(4)
    n_groups = 25
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 9, n_groups))
    a, b = rng.exponential(size=len(groups)) ** 2, rng.uniform(0.5, 2, len(groups))
    above, below = np.bincount(groups, a), np.bincount(groups, b)

    def ratio_and_error(rows: np.ndarray) -> tuple[float, float]:
        value = above[rows].sum() / below[rows].sum()
        return value, math.sqrt(((above[rows] - value * below[rows]) ** 2).sum()) / below[rows].sum()

    value, error = ratio_and_error(np.arange(n_groups))
    redrawn = [ratio_and_error(rng.integers(n_groups, size=n_groups)) for _ in range(20_000)]
    t = [(one - value) / its_error for one, its_error in redrawn]
    expected = [value - np.quantile(t, 0.975) * error, value - np.quantile(t, 0.025) * error]
    ours = ratio_intervals(a, b, groups, resamples=20_000)[1]
    assert ours == pytest.approx(expected, abs=0.04 * (expected[1] - expected[0]))


def test_what_draws_cannot_tell_has_no_end() -> None:
    one_click = np.eye(1, 40)[0]
    percentile, (low, high) = ratio_intervals(one_click, np.ones(40), np.arange(40))
    assert percentile[0] == 0
    assert low < 1 / 40 and high == math.inf, "a third of the draws have no click, and no idea of how far they are off"
    assert ratio_intervals(np.full(5, 0.1), np.ones(5), np.arange(5))[1] == pytest.approx((0.1, 0.1))
    assert np.isnan(ratio_intervals(one_click, np.ones(40), np.zeros(40))).all()


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="groups of shape"):
        interval(np.ones(3), np.zeros(2, int))
    with pytest.raises(ValueError, match="no outcome"):
        interval(np.ones(0), np.zeros(0, int))


def test_a_draw_holds_as_many_pairs_between_groups_as_the_data() -> None:
    drawn = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), size=50).astype(float)
    a, b = np.triu_indices(12, k=1)
    np.testing.assert_allclose((drawn[:, a] * drawn[:, b]).sum(axis=1) * between_scale(drawn), 12 * 11 / 2)
    assert between_scale(np.array([[2.0, 0.0], [1.0, 1.0]])).tolist() == [1, 1]


def test_a_mean_as_a_statistic_has_the_interval_of_the_mean() -> None:
    a, _, groups = _shop(np.random.default_rng(3), 60)
    statistic = ratio(a, np.ones(len(a)), groups, np.arange(60))
    assert statistic.value == pytest.approx(a.mean())
    low, high = interval_of_draws(draw(statistic, resamples=4000), 60)
    assert (low, high) == pytest.approx(interval(a, groups), abs=0.01)
    doubled = mean_of([statistic, statistic])
    assert (doubled.value, doubled.n) == (pytest.approx(a.mean()), 2 * len(a))
    np.testing.assert_allclose(draw(doubled), draw(statistic))


def test_draws_lie_around_the_value_within_its_range() -> None:
    def biased(drawn: np.ndarray) -> np.ndarray:
        return 0.7 + 0.1 * drawn[:, 0]

    near_one = draw(Statistic(0.99, 5, np.arange(5), biased))
    assert near_one.max() <= 1
    assert draw(Statistic(0.5, 5, np.arange(5), biased)).mean() == pytest.approx(0.5)
    assert np.isnan(draw(Statistic(0.5, 5, np.zeros(5, int), biased))).all(), "one group says nothing"


def test_what_half_of_the_draws_leave_undefined_has_no_interval() -> None:
    assert np.isnan(interval_of_draws(np.array([np.nan, np.nan, 0.5, 0.6]), 9)).all()
    assert interval_of_draws(np.array([np.nan, 0.5, 0.5, 0.5]), 9) == (0.5, 0.5)


def test_a_figure_that_is_no_share_keeps_its_own_range() -> None:
    group = np.arange(30)
    distances = np.random.default_rng(0).uniform(5, 30, 30)
    mean = ratio(distances, np.ones(30), group, group)
    unlimited = draw(Statistic(mean.value, 30, group, mean.under, (0, np.inf)))
    low, high = interval_of_draws(unlimited, 30)
    assert low < mean.value < high < 30 and unlimited.mean() == pytest.approx(mean.value)
    assert (draw(mean) == 1).all(), "a share ends at 1"

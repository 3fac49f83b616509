"""Effects against scipy, least squares and bootstrap; error rates and power against simulated experiments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from shoplens.errors import ShoplensError
from shoplens.experiments.analysis import (
    Estimate,
    estimate,
    fixed,
    moments,
    power,
    sample_ratio,
    sequential,
    users_needed,
)


def shoppers(rng: np.random.Generator, *shape: int, lift: float = 0.0) -> np.ndarray:
    """Clicks and impressions of users, during and before the experiment: [..., 4]. Users differ in both."""
    browsing, taste = rng.gamma(2, 4, shape), rng.beta(3, 12, shape)
    columns = []
    for clicks_well in (taste * (1 + lift), taste):
        impressions = 1 + rng.poisson(browsing)
        columns += [rng.binomial(impressions, clicks_well), impressions]
    return np.stack(columns, axis=-1).astype(np.float64)


def compare(treatment: np.ndarray, control: np.ndarray, k: int = 4) -> Estimate:
    return estimate(moments(treatment[..., :k]), moments(control[..., :k]))


def test_a_mean_per_user_has_welchs_standard_error() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.lognormal(size=900), rng.lognormal(0.1, size=1300)
    found = compare(*(np.stack([x, np.ones_like(x)], axis=-1) for x in (a, b)), k=2)
    theirs = stats.ttest_ind(a, b, equal_var=False)
    assert found.difference == pytest.approx(a.mean() - b.mean())
    assert found.difference / found.standard_error == pytest.approx(theirs.statistic)
    assert fixed(found).p == pytest.approx(theirs.pvalue, rel=0.02), "ours is normal, theirs is Student's t"
    assert (fixed(found).low, fixed(found).high) == pytest.approx(tuple(theirs.confidence_interval()), rel=0.01)


def test_a_ratio_has_the_bootstraps_standard_error_and_not_that_of_impressions() -> None:
    rng = np.random.default_rng(1)
    arms = [shoppers(rng, 800), shoppers(rng, 1200, lift=0.1)]
    found = compare(*arms, k=2)
    ratios = []
    for arm in arms:
        drawn = rng.integers(len(arm), size=(3000, len(arm)))
        ratios.append(arm[drawn, 0].sum(axis=1) / arm[drawn, 1].sum(axis=1))
    assert found.standard_error == pytest.approx(np.std(ratios[0] - ratios[1]), rel=0.05)
    rates = [arm[:, 0].sum() / arm[:, 1].sum() for arm in arms]
    naive = np.sqrt(sum(p * (1 - p) / arm[:, 1].sum() for p, arm in zip(rates, arms, strict=True)))
    assert found.standard_error > 1.2 * naive, "impressions of one user are correlated"
    assert (found.treatment, found.control) == pytest.approx(tuple(rates))


def test_cuped_is_least_squares_with_an_intercept_for_each_arm() -> None:
    """For a mean and equal variances, the adjusted difference is the arm's coefficient, with a smaller error."""
    rng = np.random.default_rng(2)
    n = 4000
    before = rng.gamma(2, 1, (2 * n, 1))
    arm = np.repeat([1.0, 0.0], n)
    value = 2 * before[:, 0] + rng.normal(size=2 * n) + 0.1 * arm
    values = np.stack([value, np.ones(2 * n), before[:, 0], np.ones(2 * n)], axis=-1)
    found, plain = compare(values[:n], values[n:]), compare(values[:n], values[n:], k=2)
    design = np.stack([arm, 1 - arm, before[:, 0]], axis=-1)
    coefficient, *_ = np.linalg.lstsq(design, value, rcond=None)
    of_coefficients = np.linalg.inv(design.T @ design) * (value - design @ coefficient).var()
    error = np.sqrt(np.array([1, -1, 0]) @ of_coefficients @ np.array([1, -1, 0]))
    assert found.difference == pytest.approx(coefficient[0] - coefficient[1], abs=1e-4)
    assert found.standard_error == pytest.approx(error, rel=0.01)
    assert found.standard_error**2 < 0.3 * plain.standard_error**2
    assert found.treatment + found.control == pytest.approx(2 * value.mean()), "the overall mean does not change"


def test_covariates_that_say_nothing_or_the_same_change_nothing() -> None:
    rng = np.random.default_rng(3)
    arms = [shoppers(rng, 500) for _ in range(2)]
    once = compare(*(arm[:, :3] for arm in arms), k=3)
    twice = compare(*(np.concatenate([arm[:, :3], 1e6 * arm[:, 2:3], np.ones((500, 1))], axis=1) for arm in arms), k=5)
    assert twice.difference == pytest.approx(once.difference)
    np.testing.assert_allclose(twice.covariance, once.covariance, rtol=1e-6)
    none = compare(*(np.concatenate([arm[:, :2], np.full((500, 1), 7.0)], axis=1) for arm in arms), k=3)
    np.testing.assert_allclose(none.covariance, compare(*arms, k=2).covariance)


def test_many_experiments_at_once_are_each_by_itself() -> None:
    rng = np.random.default_rng(4)
    treatment, control = shoppers(rng, 3, 2, 200), shoppers(rng, 3, 2, 150)
    together = compare(treatment, control)
    many = sequential(together, 0.05)
    for at in np.ndindex(3, 2):
        alone = compare(treatment[at], control[at])
        one = sequential(alone, 0.05)
        for name in ("low", "high", "lift_low", "lift_high", "p"):
            assert getattr(many, name)[at] == pytest.approx(float(getattr(one, name)))
        np.testing.assert_allclose(together.covariance[at], alone.covariance)


@given(st.floats(-0.3, 0.3), st.floats(0.001, 0.2), st.floats(0.001, 0.2), st.floats(-0.9, 0.9), st.floats(0.5, 0.999))
def test_the_intervals_of_lift_and_difference_agree_on_no_effect(
    lift: float, s_t: float, s_c: float, r: float, level: float
) -> None:
    """Fieller's ends are the lifts at the given number of errors. The interval is infinite or holds the lift."""
    covariance = np.array([[s_t**2, r * s_t * s_c], [r * s_t * s_c, s_c**2]])
    found = Estimate(np.array(1 + lift), np.array(1.0), covariance, np.array(100.0), np.array(100.0))
    for one in (fixed(found, level), sequential(found, 0.02, level)):
        if abs(one.p - (1 - level)) < 1e-9:
            continue
        assert (one.p < 1 - level) == (not one.low <= 0 <= one.high)
        if not np.isfinite(one.lift_high):
            continue
        assert one.lift_low <= lift + 1e-9
        assert one.lift_high >= lift - 1e-9
        assert (one.low > 0, one.high < 0) == (one.lift_low > 0, one.lift_high < 0)
        times = (one.high - found.difference) / found.standard_error
        for end in (1 + one.lift_low, 1 + one.lift_high):
            error = np.sqrt(s_t**2 - 2 * end * r * s_t * s_c + end**2 * s_c**2)
            assert abs(1 + lift - end) == pytest.approx(times * error, rel=1e-6)


def test_the_confidence_sequence_is_the_papers() -> None:
    """mean +- s sqrt(2 (t rho^2 + 1) / (t^2 rho^2) log(sqrt(t rho^2 + 1) / alpha)), computed for one case."""
    t, s, rho, alpha = 10_000, 2.0, 0.03, 0.1
    half = s * np.sqrt(2 * (t * rho**2 + 1) / (t**2 * rho**2) * np.log(np.sqrt(t * rho**2 + 1) / alpha))
    covariance = np.array([[s**2 / t, 0], [0, 0]])
    found = Estimate(np.array(4.07), np.array(4.0), covariance, np.array(t), np.array(t))
    one = sequential(found, rho * s / 4.0, 1 - alpha)
    assert (one.low, one.high) == pytest.approx((0.07 - half, 0.07 + half))
    assert sequential(found, rho * s / 4.0, 1 - one.p).low == pytest.approx(0, abs=1e-12), "p is the least alpha"
    nothing = Estimate(np.array(4.001), np.array(4.0), covariance, np.array(t), np.array(t))
    assert sequential(nothing, rho * s / 4.0).p == 1


def test_a_random_walk_leaves_the_sequence_in_at_most_five_per_cent_at_any_time() -> None:
    """Brownian motion from 0.01 to 1e6 times the planned information uses nearly all of alpha."""
    rng = np.random.default_rng(5)
    known = np.geomspace(1e-2, 1e6, 600)
    left = 0
    for _ in range(4):
        steps = rng.normal(size=(1000, len(known))) * np.sqrt(np.diff(known, prepend=0))
        effect = np.cumsum(steps, axis=1) / known
        covariance = np.zeros((1000, len(known), 2, 2))
        covariance[..., 0, 0] = 1 / known
        found = Estimate(1e6 + effect, np.full(effect.shape, 1e6), covariance, np.array(1.0), np.array(1.0))
        one = sequential(found, 1e-6)
        left += int(((one.low > 0) | (one.high < 0)).any(axis=1).sum())
    assert 0.025 <= left / 4000 <= 0.055


@pytest.mark.parametrize("k", [2, 4])
def test_without_an_effect_one_experiment_in_twenty_rejects(k: int) -> None:
    rng = np.random.default_rng(6)
    p = np.concatenate([fixed(compare(shoppers(rng, 250, 400), shoppers(rng, 250, 300), k)).p for _ in range(8)])
    assert stats.binomtest(int((p < 0.05).sum()), len(p), 0.05).pvalue > 1e-3
    assert stats.kstest(p, "uniform").pvalue > 1e-3


def test_a_drop_by_the_margin_passes_as_non_inferior_one_time_in_twenty() -> None:
    rng = np.random.default_rng(7)
    arms = [(shoppers(rng, 200, 500, lift=-0.1), shoppers(rng, 200, 500)) for _ in range(8)]
    p = np.concatenate([compare(*arm).non_inferiority(0.1) for arm in arms])
    assert stats.binomtest(int((p < 0.05).sum()), len(p), 0.05).pvalue > 1e-3
    assert np.concatenate([compare(*arm).non_inferiority(0.4) for arm in arms]).max() < 0.01
    one = compare(*(part[0] for part in arms[0]))
    low = fixed(one, 0.9).lift_low
    assert one.non_inferiority(-low) == pytest.approx(0.05), "equal to the lower end of the interval"


def test_peeking_breaks_the_fixed_interval_and_not_the_sequential_one() -> None:
    rng = np.random.default_rng(8)
    experiments, looks, block = 400, 20, 40
    arms = [shoppers(rng, experiments, looks * block) for _ in range(2)]
    seen = [compare(*(arm[:, : block * look] for arm in arms), k=2) for look in range(4, looks + 1)]
    by_fixed = np.any([fixed(one).p < 0.05 for one in seen], axis=0).mean()
    by_sequence = np.any([sequential(one, 0.1).p < 0.05 for one in seen], axis=0).mean()
    assert by_fixed > 0.12
    assert by_sequence <= 0.05


@pytest.mark.parametrize(("looks", "share"), [("one", 0.5), ("one", 0.2), ("any", 0.5)])
def test_a_planted_lift_is_found_with_the_power_that_was_planned(looks: str, share: float) -> None:
    rng = np.random.default_rng(9)
    lift = 0.1
    spread = float(compare(shoppers(rng, 100_000), shoppers(rng, 100_000)).spread)
    users = users_needed(lift, spread, 0.7, share=share, looks=looks)  # type: ignore[arg-type]
    treated = round(share * users)
    found = 0
    for _ in range(8):
        one = compare(shoppers(rng, 100, treated, lift=lift), shoppers(rng, 100, users - treated))
        p = fixed(one).p if looks == "one" else sequential(one, lift).p
        found += int(((p < 0.05) & (one.difference > 0)).sum())
    assert found / 800 == pytest.approx(0.7, abs=0.05)


def test_power_is_the_textbooks_for_two_proportions() -> None:
    """20 % against 22 % at a power of 80 %: n = (1.96 + 0.8416)^2 (p q + p' q') / 0.02^2 per arm."""
    spread = np.sqrt(0.2 * 0.8) / 0.2
    textbook = 2 * (1.959964 + 0.8416212) ** 2 * (0.2 * 0.8 + 0.22 * 0.78) / 0.02**2
    assert users_needed(0.1, spread) == pytest.approx(textbook, rel=0.02)
    for looks in ("one", "any"):
        users = users_needed(-0.02, 1.3, 0.9, share=0.1, looks=looks)  # type: ignore[arg-type]
        assert power(users, -0.02, 1.3, share=0.1, looks=looks) == pytest.approx(0.9, abs=1e-4)  # type: ignore[arg-type]
    assert power(1, 0.001, 10) == pytest.approx(0.05, abs=1e-6)
    assert users_needed(0.02, 1, looks="any") > 1.5 * users_needed(0.02, 1)


def test_the_sample_ratio_is_scipys_chi_square() -> None:
    found = sample_ratio(np.array([5120, 4880, 0]), np.array([2, 2, 0]))
    assert found.p == pytest.approx(stats.chisquare([5120, 4880]).pvalue)
    assert not found.alarm()
    three = sample_ratio(np.array([[500, 300, 200], [500, 400, 100]]), np.array([0.5, 0.3, 0.2]))
    np.testing.assert_allclose(three.p, [1, stats.chisquare([500, 400, 100], [500, 300, 200]).pvalue])
    assert three.alarm().tolist() == [False, True]
    assert sample_ratio(np.array([10, 10, 1]), np.array([1, 1, 0])).p == 0
    for counted, shares in (([0, 0], [1, 1]), ([1, 1], [0, 0]), ([1, 1], [2, -1])):
        with pytest.raises(ShoplensError, match="a sample ratio needs users"):
            sample_ratio(np.array(counted), np.array(shares))


def test_what_is_not_defined_is_not_bounded() -> None:
    nothing = np.zeros((50, 2))
    some = np.ones((50, 2))
    empty = compare(some, np.stack([nothing[:, 0], some[:, 1]], axis=-1), k=2)
    assert np.isnan(empty.lift)
    assert (fixed(empty).lift_low, fixed(empty).lift_high) == (-np.inf, np.inf)
    undefined = compare(some, nothing, k=2)
    assert np.isnan(undefined.difference)
    assert (fixed(undefined).lift_low, fixed(undefined).lift_high) == (-np.inf, np.inf)
    with pytest.raises(ShoplensError, match="fewer than two"):
        moments(np.ones((1, 2)))


@pytest.mark.parametrize("bad", [{"lift": 0.0}, {"lift": -1.0}, {"spread": 0.0}, {"spread": float("nan")}])
def test_what_cannot_be_planned_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ShoplensError, match="cannot plan"):
        users_needed(**{"lift": 0.02, "spread": 1.0, **bad})
    with pytest.raises(ShoplensError, match="cannot plan"):
        power(1000, **{"lift": 0.02, "spread": 1.0, **bad})
    with pytest.raises(ShoplensError, match="cannot be planned"):
        users_needed(0.02, 1.0, 0.01)
    with pytest.raises(ShoplensError, match="cannot plan"):
        users_needed(0.02, 1.0, share=1.0)

"""Off-policy estimators against the value that a small world, enumerated, has in truth; intervals by how often they hold it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoplens.errors import ShoplensError
from shoplens.search.lists.off_policy import (
    Estimate,
    Log,
    cross_fitted,
    direct,
    doubly_robust,
    expected_reward,
    folds,
    inverse_propensity,
    require_support,
    self_normalised,
)


class World(NamedTuple):
    """Two places, four items; each probability [places, items]; a click has the probability `liked`."""

    place: np.ndarray
    logging: np.ndarray
    target: np.ndarray
    liked: np.ndarray

    @property
    def value(self) -> float:
        return float(self.place @ (self.target * self.liked).sum(axis=1))

    def every_impression(self) -> Iterator[tuple[float, int, int, float]]:
        """Probability, place, item and click of all that one impression can be."""
        for (place, item), shown in np.ndenumerate(self.logging):
            for click in (0.0, 1.0):
                likely = self.liked[place, item] if click else 1 - self.liked[place, item]
                yield self.place[place] * shown * likely, place, item, click


WORLD = World(
    np.array([0.6, 0.4]),
    np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]]),
    np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]]),
    np.array([[0.2, 0.3, 0.5, 0.4], [0.6, 0.2, 0.3, 0.5]]),
)
WRONG_MODEL = np.array([[0.9, 0.1, -0.3, 0.2], [0.0, 2.0, 0.4, 0.1]])


def expectation(world: World, estimate: Callable[[Log, int, int], Estimate], propensity: np.ndarray) -> float:
    """The mean of an estimate from one impression over all that can be, each by its probability."""
    return sum(
        likely
        * estimate(
            Log(np.array([click]), propensity[place, [item]], world.target[place, [item]]), place, item
        ).value
        for likely, place, item, click in world.every_impression()
    )  # fmt: skip


def robust(model: np.ndarray, clip: float | None = None) -> Callable[[Log, int, int], Estimate]:
    def estimate(log: Log, place: int, item: int) -> Estimate:
        expected = expected_reward(WORLD.target[[place]], model[[place]])
        return doubly_robust(log, model[place, [item]], expected, clip=clip)

    return estimate


def test_inverse_propensity_is_unbiased() -> None:
    mean = expectation(WORLD, lambda log, *_: inverse_propensity(log), WORLD.logging)
    assert mean == pytest.approx(WORLD.value, abs=1e-12)


def test_doubly_robust_is_unbiased_if_either_propensities_or_model_are_right() -> None:
    wrong_propensity = WORLD.logging[:, ::-1]
    assert expectation(WORLD, robust(WRONG_MODEL), WORLD.logging) == pytest.approx(WORLD.value, abs=1e-12)
    assert expectation(WORLD, robust(WORLD.liked), wrong_propensity) == pytest.approx(WORLD.value, abs=1e-12)
    assert abs(expectation(WORLD, robust(WRONG_MODEL), wrong_propensity) - WORLD.value) > 0.1


@pytest.mark.parametrize("clip", [0.5, 1.0, 2.0, 3.9])
def test_clipping_lowers_the_value_by_no_more_than_what_it_cuts(clip: float) -> None:
    lost = 1 - float(WORLD.place @ np.minimum(WORLD.target, clip * WORLD.logging).sum(axis=1))
    clipped = expectation(WORLD, lambda log, *_: inverse_propensity(log, clip=clip), WORLD.logging)
    assert WORLD.value - lost <= clipped < WORLD.value
    corrected = expectation(WORLD, robust(WRONG_MODEL, clip), WORLD.logging)
    assert 0 < abs(corrected - WORLD.value) <= lost * np.abs([WORLD.liked, 1 - WORLD.liked] - WRONG_MODEL).max()


class Drawn(NamedTuple):
    log: Log
    place: np.ndarray
    item: np.ndarray


def draw_log(world: World, n: int, seed: int, *, users: int | None = None) -> Drawn:
    """n impressions; with `users`, each of 1 to 11 rows, half of them click hardly ever and the others twice as often."""
    rng = np.random.default_rng(seed)
    user = None if users is None else np.repeat(np.arange(users), rng.integers(1, 12, users))
    n = n if user is None else len(user)
    place = rng.choice(len(world.place), n, p=world.place)
    item = (rng.random(n)[:, None] > np.cumsum(world.logging[place], axis=1)).sum(axis=1).clip(0, 3)
    ease = np.ones(n) if user is None or users is None else rng.choice([0.4, 1.6], users)[user]
    click = (rng.random(n) < world.liked[place, item] * ease).astype(float)
    return Drawn(Log(click, world.logging[place, item], world.target[place, item], user), place, item)


def estimates(drawn: Drawn, target: np.ndarray, seed: int) -> dict[str, Estimate]:
    """Every estimator that holds with true propensities; the reward model is the mean of each item at each place."""
    log, place, item = drawn

    def learn(learnt_from: np.ndarray, asked: np.ndarray) -> np.ndarray:
        shown, clicks = np.zeros((2, *target.shape))
        np.add.at(shown, (place[learnt_from], item[learnt_from]), 1)
        np.add.at(clicks, (place[learnt_from], item[learnt_from]), log.reward[learnt_from])
        return ((clicks + 1) / (shown + 3))[place[asked]]

    predicted = cross_fitted(learn, folds(len(place), 3, log.user, seed=seed))
    at_logged = predicted[np.arange(len(place)), item]
    return {
        "ips": inverse_propensity(log, seed=seed),
        "snips": self_normalised(log, seed=seed),
        "dr": doubly_robust(log, at_logged, expected_reward(target[place], predicted), seed=seed),
    }


def test_all_come_to_the_truth_as_the_log_grows() -> None:
    for name, one in estimates(draw_log(WORLD, 12_000, 0), WORLD.target, 0).items():
        spread = (one.interval[1] - one.interval[0]) / (2 * 1.96)
        assert spread < 0.01, name
        assert abs(one.value - WORLD.value) < 4 * spread, name


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    runs = 200
    held: dict[str, int] = {}
    for seed in range(runs):
        drawn = draw_log(WORLD, 0, seed, users=80)
        found = estimates(drawn, WORLD.target, seed)
        found["by impression"] = inverse_propensity(replace(drawn.log, user=None), seed=seed)
        for name, one in found.items():
            for kind, (low, high) in (("percentile", one.interval), ("studentised", one.studentised)):
                held[f"{name}, {kind}"] = held.get(f"{name}, {kind}", 0) + (low <= WORLD.value <= high)
    for name in ("ips", "snips", "dr"):
        for kind in ("percentile", "studentised"):
            assert 0.90 <= held[f"{name}, {kind}"] / runs <= 0.99, (name, kind, held)
    assert held["by impression, percentile"] < held["ips, percentile"] - 0.03 * runs, (
        "a user's rows are not independent"
    )


@pytest.mark.slow
def test_studentised_intervals_hold_the_truth_where_few_weights_decide() -> None:
    """An item shown once in a hundred that the policy shows ten times as often: the normal interval is too short."""
    logging, target = np.array([0.3, 0.3, 0.3, 0.09, 0.01]), np.array([0.2, 0.2, 0.2, 0.3, 0.1])
    liked = np.array([0.5, 1, 1, 1.5, 2]) * 0.05
    runs, held, normal_held = 200, {"ips": 0, "snips": 0}, 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        item = rng.choice(5, 400, p=logging)
        log = Log((rng.random(400) < liked[item]).astype(float), logging[item], target[item])
        for name, estimator in (("ips", inverse_propensity), ("snips", self_normalised)):
            low, high = estimator(log, seed=seed).studentised
            held[name] += low <= target @ liked <= high
        earned = log.weight * log.reward
        normal_held += abs(earned.mean() - target @ liked) <= 1.96 * earned.std() / math.sqrt(400)
    assert 0.90 <= held["ips"] / runs <= 0.99
    assert 0.90 <= held["snips"] / runs <= 0.99
    assert normal_held < held["ips"] - 0.03 * runs


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 50))
def test_figures_of_a_log_by_loops(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    log = Log(rng.normal(size=n), rng.uniform(0.01, 1, n), rng.uniform(0, 1, n), rng.integers(3, size=n))
    weights = [b / p for b, p in zip(log.probability.tolist(), log.propensity.tolist(), strict=True)]
    clip = float(np.median(weights))
    for limit in (None, clip):
        used = [min(w, limit or math.inf) for w in weights]
        earned = sum(w * r for w, r in zip(used, log.reward, strict=True))
        plain, normalised = inverse_propensity(log, clip=limit), self_normalised(log, clip=limit)
        assert plain.value == pytest.approx(earned / n)
        assert normalised.value == pytest.approx(earned / sum(used))
        for one in (plain, normalised):
            assert one.n == n
            assert one.effective == pytest.approx(sum(used) ** 2 / sum(w * w for w in used))
            assert one.largest_weight == pytest.approx(max(used))
            assert one.mean_weight == pytest.approx(sum(weights) / n)
            assert one.cut == pytest.approx(0 if limit is None else max(0, 1 - sum(used) / n))


def test_what_every_impression_earns_is_the_self_normalised_value_whatever_the_weights() -> None:
    rng = np.random.default_rng(0)
    log = Log(np.full(50, 0.3), rng.uniform(1e-6, 1, 50), rng.uniform(0, 1, 50))
    one = self_normalised(log)
    assert one.value == pytest.approx(0.3)
    assert (*one.interval, *one.studentised) == pytest.approx((0.3,) * 4)


def test_a_policy_in_its_own_log_is_worth_what_it_earned() -> None:
    rng = np.random.default_rng(0)
    click, shown = (rng.random(300) < 0.2).astype(float), rng.uniform(0.1, 0.9, 300)
    for one in (inverse_propensity(Log(click, shown, shown)), self_normalised(Log(click, shown, shown)), direct(click)):
        assert one.value == pytest.approx(click.mean())
        assert (one.effective, one.largest_weight, one.mean_weight, one.cut) == (300, 1, 1, 0)


def test_a_user_alone_says_nothing_of_others() -> None:
    log = Log(np.ones(5), np.full(5, 0.5), np.full(5, 0.5), np.zeros(5, int))
    assert np.isnan([*inverse_propensity(log).interval, *inverse_propensity(log).studentised]).all()


def test_a_model_never_predicts_what_it_learnt_from() -> None:
    user = np.random.default_rng(0).integers(20, size=200)
    fold = folds(200, 5, user)
    assert sorted(np.unique(fold)) == [0, 1, 2, 3, 4]
    for one in np.unique(user):
        assert len(np.unique(fold[user == one])) == 1, "a user's rows are in one fold"

    def learn(learnt_from: np.ndarray, asked: np.ndarray) -> np.ndarray:
        assert not set(user[learnt_from]) & set(user[asked])
        assert sorted([*learnt_from, *asked]) == list(range(200))
        return np.stack([asked, asked + 0.5], axis=1)

    np.testing.assert_array_equal(cross_fitted(learn, fold), np.arange(200)[:, None] + [0, 0.5])


HALF = np.full(2, 0.5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Log(HALF, np.array([0.5, 0.0]), HALF), r"outside \(0, 1\].* 0.0 in row 1"),
        (lambda: Log(HALF, np.array([1.5, 0.5]), HALF), r"outside \(0, 1\]"),
        (lambda: Log(HALF, np.array([0.5, np.nan]), HALF), "propensity holds values that are no number"),
        (lambda: Log(np.array([np.inf, 0]), HALF, HALF), "reward holds"),
        (lambda: Log(HALF, HALF, np.array([0.5, 1.5])), r"must lie in \[0, 1\]"),
        (lambda: Log(HALF, HALF, np.zeros(2)), "shows nothing of what was logged"),
        (lambda: Log(HALF, HALF[:1], HALF), "propensity is of shape"),
        (lambda: Log(HALF, HALF, HALF, np.arange(3)), "user is of shape"),
        (lambda: Log(*[np.zeros(0)] * 3), "log is empty"),
        (lambda: inverse_propensity(Log(HALF, HALF, HALF), clip=0.0), "clipped at 0.0"),
        (lambda: doubly_robust(Log(HALF, HALF, HALF), HALF[:1], HALF), "predicted is of shape"),
        (lambda: doubly_robust(Log(HALF, HALF, HALF), HALF, HALF * np.nan), "expected holds"),
        (lambda: direct(np.zeros(0)), "at least one row"),
        (lambda: expected_reward(np.full((2, 2), 0.4), np.zeros((2, 2))), "sum to 1"),
        (lambda: expected_reward(np.full((2, 2), 0.5), np.zeros((2, 3))), r"must be \[rows, items\]"),
        (lambda: require_support(np.array([0.25, 0.75]), np.array([1.0, 0.0])), "up to 0.75"),
        (lambda: require_support(HALF, np.full((1, 2), 0.5)), "make them alike"),
        (lambda: folds(4, 3, np.array([0, 0, 1, 1])), "2 users or rows cannot be split in 3"),
        (lambda: cross_fitted(lambda rows, asked: asked, np.zeros(3, int)), "two folds"),
    ],
)
def test_what_is_wrong_is_said(wrong: Callable[[], object], said: str) -> None:
    with pytest.raises(ShoplensError, match=said):
        wrong()


def test_support_that_is_there_is_not_refused() -> None:
    require_support(np.array([[0.0, 1.0]]), np.array([[0.0, 1.0]]))

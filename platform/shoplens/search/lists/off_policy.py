"""Off-policy evaluation: the value an impression of one policy, estimated from the log of another.

A log holds the propensity of each shown item. Each impression gets the weight `probability / propensity`, so items that
the evaluated policy shows more often than the logging policy count more. A list is logged as one impression a position:
each row is an item at a place with its propensity there, and the value is that of one place (the item-position model of
Li et al. 2018, "Offline evaluation of ranking policies with click models").

| estimator | unbiased if | fails if |
| --- | --- | --- |
| `direct` | the reward model is right | it is not; its interval does not show that |
| `inverse_propensity` | propensities are true | weights are large |
| `self_normalised` | propensities are true, n large | weights are large, less so |
| `doubly_robust` | propensities are true, or the model is | both are wrong, or weights are large where the model errs |

No bootstrap can resample a weight that is not in the log. If a dozen rewarded impressions or fewer decide the value, or
`effective` is a few dozen, both intervals cover the truth less often than 95 %.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shoplens.errors import ShoplensError
from shoplens.statistics.bootstrap import ratio_intervals


@dataclass(frozen=True)
class Log:
    """The log of a policy, one entry an impression [n].

    reward        float: click, purchase, revenue
    propensity    in (0, 1]: probability with which the logging policy showed the item at its place
    probability   in [0, 1]: probability with which the evaluated policy shows it there
    user          any integers; default: impressions are independent

    Raises ShoplensError for arrays of unequal length, values outside these ranges, an empty log, and a log without a single
    impression that the evaluated policy would show.
    """

    reward: np.ndarray
    propensity: np.ndarray
    probability: np.ndarray
    user: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.reward)
        _same_length(n, propensity=self.propensity, probability=self.probability, user=self.user)
        _finite(reward=self.reward, propensity=self.propensity, probability=self.probability)
        if not n:
            raise ShoplensError("the log is empty: give at least one impression")
        bad = (self.propensity <= 0) | (self.propensity > 1)
        if bad.any():
            raise ShoplensError(
                f"{int(bad.sum())} propensities are outside (0, 1], the first {self.propensity[bad][0]} in row "
                f"{int(bad.argmax())}: give the probability with which the logging policy showed that very item"
            )
        if (self.probability < 0).any() or (self.probability > 1).any():
            raise ShoplensError("probabilities of the evaluated policy must lie in [0, 1]")
        if not self.probability.any():
            raise ShoplensError("the evaluated policy shows nothing of what was logged: use a log that holds its items")

    @property
    def weight(self) -> np.ndarray:
        """probability / propensity, float64 [n]. Its expected mean is 1 if propensities are true."""
        return np.asarray(self.probability, np.float64) / self.propensity


@dataclass(frozen=True)
class Estimate:
    """The value an impression with its intervals, and diagnostics of the weights.

    interval       95 %, by the bootstrap (`interval_of_draws`) over users, or over impressions if users are not known
    studentised    95 %, bootstrap-t over the same draws; prefer it if a few weights decide
    n              impressions
    effective      (sum of weights)^2 / sum of squared weights (Kish 1965): impressions of equal weight with this variance
    mean_weight    before clipping; far from 1: propensities are wrong or the log is too small
    cut            share of the evaluated policy's impressions that clipping removes, 1 - mean(clipped weight). With
                   rewards from 0 to 1 the clipped value is too low by at most that (Bottou et al. 2013). Doubly robust is
                   off, to either side, by at most that times the model's largest error.
    """

    value: float
    interval: tuple[float, float]
    studentised: tuple[float, float]
    n: int
    effective: float
    largest_weight: float
    mean_weight: float = 1.0
    cut: float = 0.0


def direct(expected: np.ndarray, user: np.ndarray | None = None, *, seed: int = 0) -> Estimate:
    """Direct method: the mean of the reward model's `expected` [n] (`expected_reward`) for the evaluated policy.

    The interval covers the choice of contexts, not errors of the model. So it is too narrow unless the model is refitted in
    every draw. Raises ShoplensError if there is no context.
    """
    _same_length(len(expected), user=user)
    _finite(expected=expected)
    if not len(expected):
        raise ShoplensError("no context to evaluate the policy in: give at least one row")
    return _estimate(expected, np.ones(len(expected)), np.ones(len(expected)), user, seed)


def inverse_propensity(log: Log, *, clip: float | None = None, seed: int = 0) -> Estimate:
    """IPS: mean(weight * reward) (Horvitz & Thompson 1952). `clip` is the largest weight allowed.

    Clipping trades variance for a bias towards 0, bounded by `Estimate.cut`. A limit that grows as n**0.5 makes both vanish
    as the log grows (Ionides 2008, "Truncated importance sampling").
    """
    weight = _clipped(log, clip)
    return _estimate(weight * log.reward, np.ones(len(weight)), weight, log.user, seed, log)


def self_normalised(log: Log, *, clip: float | None = None, seed: int = 0) -> Estimate:
    """SNIPS: sum(weight * reward) / sum(weight) (Swaminathan & Joachims 2015).

    The value stays within the range of the rewards; its bias is O(1 / n).
    """
    weight = _clipped(log, clip)
    return _estimate(weight * log.reward, weight, weight, log.user, seed, log)


def doubly_robust(
    log: Log, predicted: np.ndarray, expected: np.ndarray, *, clip: float | None = None, seed: int = 0
) -> Estimate:
    """DR: mean(expected + weight * (reward - predicted)) (Dudík et al. 2014).

    predicted   [n]: the reward model's value of the shown item
    expected    [n]: its value of the evaluated policy in the same context (`expected_reward`)

    The model must not be trained on the rows it predicts (`cross_fitted`); otherwise the residuals are too small.
    """
    _same_length(len(log.reward), predicted=predicted, expected=expected)
    _finite(predicted=predicted, expected=expected)
    weight = _clipped(log, clip)
    corrected = expected + weight * (log.reward - predicted)
    return _estimate(corrected, np.ones(len(weight)), weight, log.user, seed, log)


def expected_reward(policy: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """sum_a policy(a) * predicted(a), float64 [n]: probabilities and predicted rewards of all items, both [n, items].

    Raises ShoplensError if shapes differ or a row of `policy` is no distribution.
    """
    if policy.shape != predicted.shape or policy.ndim != 2:
        raise ShoplensError(
            f"the policy is of shape {policy.shape}, predictions of {predicted.shape}: both must be [rows, items]"
        )
    if (policy < 0).any() or not np.allclose(policy.sum(axis=1), 1, atol=1e-6):
        raise ShoplensError("every row of the policy must be probabilities that sum to 1")
    return np.einsum("na,na->n", policy, predicted, dtype=np.float64)


def require_support(policy: np.ndarray, logging: np.ndarray) -> None:
    """Raises ShoplensError if `policy` shows items that `logging` never shows, both probabilities [..., items].

    A log holds nothing about such items, and every estimator here but `direct` would count their value as 0.
    """
    if policy.shape != logging.shape:
        raise ShoplensError(
            f"the policy is of shape {policy.shape}, the logging one of {logging.shape}: make them alike"
        )
    absent = (policy > 0) & (logging <= 0)
    if absent.any():
        mass = float(np.where(absent, policy, 0).sum(axis=-1).max())
        raise ShoplensError(
            f"the evaluated policy shows items that the logging policy never does (up to {mass:.2g} of its impressions): "
            "leave them out of the policy, or log with a policy that explores them"
        )


def folds(n: int, k: int, user: np.ndarray | None = None, *, seed: int = 0) -> np.ndarray:
    """int64 [n]: random fold codes 0 to k-1; all rows of a user are in one fold.

    Raises ShoplensError if there are fewer than k users (or rows).
    """
    _same_length(n, user=user)
    of_row = np.arange(n) if user is None else np.unique(user, return_inverse=True)[1]
    n_users = int(of_row.max(initial=-1)) + 1
    if not 2 <= k <= n_users:
        raise ShoplensError(f"{n_users} users or rows cannot be split in {k} folds: choose 2 to {n_users}")
    return np.random.default_rng(seed).permutation(n_users)[of_row] % k


def cross_fitted(learn: Callable[[np.ndarray, np.ndarray], np.ndarray], fold: np.ndarray) -> np.ndarray:
    """A reward model's predictions [n, ...] of rows that it was not trained on (Chernozhukov et al. 2018).

    `learn(training, held_out)` takes row numbers, fits on `training` and predicts `held_out`: [len(held_out), ...], one
    column an item for `expected_reward`. Raises ShoplensError if there are fewer than two folds.
    """
    codes = np.unique(fold)
    if len(codes) < 2:
        raise ShoplensError("cross-fitting needs two folds or more: make them with `folds`")
    rows = [np.flatnonzero(fold == code) for code in codes]
    predicted = np.concatenate(
        [learn(np.flatnonzero(fold != code), held_out) for code, held_out in zip(codes, rows, strict=True)]
    )
    return predicted[np.argsort(np.concatenate(rows))]


def _clipped(log: Log, clip: float | None) -> np.ndarray:
    if clip is None:
        return log.weight
    if not clip > 0:
        raise ShoplensError(f"weights cannot be clipped at {clip}: give a number above 0, or none")
    return np.minimum(log.weight, clip)


def _estimate(
    numerator: np.ndarray,
    denominator: np.ndarray,
    weight: np.ndarray,
    user: np.ndarray | None,
    seed: int,
    log: Log | None = None,
) -> Estimate:
    group = np.arange(len(weight)) if user is None else user
    interval, studentised = ratio_intervals(numerator, denominator, group, seed)
    largest = float(weight.max())
    unclipped = weight if log is None else log.weight
    return Estimate(
        value=float(numerator.sum() / denominator.sum()),
        interval=interval,
        studentised=studentised,
        n=len(weight),
        effective=float(weight.sum() ** 2 / (weight**2).sum()),
        largest_weight=largest,
        mean_weight=float(unclipped.mean()),
        cut=max(0.0, 1 - float(weight.mean())) if largest < unclipped.max() else 0.0,
    )


def _same_length(n: int, **arrays: np.ndarray | None) -> None:
    for name, array in arrays.items():
        if array is not None and np.shape(array) != (n,):
            raise ShoplensError(f"{name} is of shape {np.shape(array)}, where {n} rows are: give one value a row")


def _finite(**arrays: np.ndarray) -> None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ShoplensError(f"{name} holds values that are no number: leave those rows out or mend them")

"""Effects of an experiment, with the user as the unit of analysis, because users are assigned at random.

A metric is a ratio of two sums over users, such as clicks / impressions. A mean per user has the denominator 1.
All results follow from the moments of users' values. So arms of any size cost one pass over the data, and many
experiments can be analyzed at once (leading dimensions, written ...).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import optimize, special, stats

from shoplens.errors import ShoplensError
from shoplens.statistics.bootstrap import divide

LEVEL = 0.95
Looks = Literal["one", "any"]
"""Looks at a running experiment. `one`: a single look, at a number of users set beforehand. `any`: at any time."""


@dataclass(frozen=True)
class Moments:
    """Moments of the values of an arm's users: number of users [...], means [..., k] and covariance [..., k, k]."""

    n: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray

    def first(self, k: int) -> Moments:
        """Moments of the first k values."""
        return Moments(self.n, self.mean[..., :k], self.covariance[..., :k, :k])


def moments(values: np.ndarray) -> Moments:
    """Moments of `values` [..., n, k]. Raises ShoplensError if there are fewer than two users."""
    n = values.shape[-2]
    if n < 2:
        raise ShoplensError(f"an arm has {n} user(s): moments of fewer than two are undefined, so wait for more users")
    mean = values.mean(axis=-2)
    centred = values - mean[..., None, :]
    return Moments(np.array(n), mean, np.swapaxes(centred, -1, -2) @ centred / (n - 1))


@dataclass(frozen=True)
class Estimate:
    """A metric in both arms [...], and the covariance of its two values [..., 2, 2], treatment first."""

    treatment: np.ndarray
    control: np.ndarray
    covariance: np.ndarray
    n_treatment: np.ndarray
    n_control: np.ndarray

    @property
    def difference(self) -> np.ndarray:
        """treatment - control."""
        return self.treatment - self.control

    @property
    def lift(self) -> np.ndarray:
        """treatment / control - 1."""
        return divide(self.treatment, self.control) - 1

    @property
    def standard_error(self) -> np.ndarray:
        """Standard error of the difference."""
        return self._error(np.array(1.0))

    @property
    def spread(self) -> np.ndarray:
        """Standard deviation of a user's contribution, relative to the control's metric. Power planning uses it."""
        return divide(self.standard_error / np.sqrt(1 / self.n_treatment + 1 / self.n_control), self.control)

    def _error(self, times: np.ndarray) -> np.ndarray:
        """Standard error of treatment - times * control."""
        c = self.covariance
        return np.sqrt(np.maximum(c[..., 0, 0] - 2 * times * c[..., 0, 1] + times**2 * c[..., 1, 1], 0))

    def non_inferiority(self, margin: float) -> np.ndarray:
        """One-sided p of the hypothesis "treatment is below (1 - margin) * control". A small p: the metric holds."""
        kept = np.array(1 - margin)
        return special.ndtr(-divide(self.treatment - kept * self.control, self._error(kept)))


def estimate(treatment: Moments, control: Moments) -> Estimate:
    """Estimates the ratio of the first value's sum to the second's in each arm, adjusted by the other values.

    The ratio has the variance of users' (numerator - ratio * denominator) / mean denominator (delta method: Deng,
    Knoblich & Lu, KDD 2018). The other values are covariates from before the experiment (CUPED: Deng, Xu, Kohavi &
    Walker, WSDM 2013). CUPED subtracts the part of the difference that the covariates' chance difference explains.
    Its coefficients minimise the variance. Each arm is adjusted by its part of the correction.
    """
    (ratio_t, per_t), (ratio_c, per_c) = _linear(treatment), _linear(control)
    slope = _slope(per_t + per_c)
    chance = (slope * (treatment.mean - control.mean)[..., 2:]).sum(axis=-1)
    n_t, n_c = np.asarray(treatment.n, np.float64), np.asarray(control.n, np.float64)
    part_t, part_c = n_c / (n_t + n_c), n_t / (n_t + n_c)
    with_t, with_c = ((slope * per[..., 0, 1:]).sum(axis=-1) for per in (per_t, per_c))
    explained = np.einsum("...i,...ij,...j", slope, (per_t + per_c)[..., 1:, 1:], slope)
    of_t = per_t[..., 0, 0] - 2 * part_t * with_t + part_t**2 * explained
    of_c = per_c[..., 0, 0] - 2 * part_c * with_c + part_c**2 * explained
    both = part_c * with_t + part_t * with_c - part_t * part_c * explained
    covariance = np.stack([np.stack([of_t, both], axis=-1), np.stack([both, of_c], axis=-1)], axis=-2)
    return Estimate(ratio_t - part_t * chance, ratio_c + part_c * chance, covariance, n_t, n_c)


def _slope(covariance: np.ndarray) -> np.ndarray:
    """Least squares coefficients [..., k - 1] of the first value on the others, which may be collinear."""
    of_others, with_first = covariance[..., 1:, 1:], covariance[..., 1:, 0]
    scale = np.sqrt(np.diagonal(of_others, axis1=-2, axis2=-1))
    scale = np.where(scale > 0, scale, 1)
    inverse = np.linalg.pinv(of_others / (scale[..., :, None] * scale[..., None, :]), rcond=1e-9, hermitian=True)
    return np.einsum("...ij,...j->...i", inverse, with_first / scale) / scale


def _linear(arm: Moments) -> tuple[np.ndarray, np.ndarray]:
    """An arm's ratio [...], and the covariance [..., k - 1, k - 1] of the ratio and the covariates' means."""
    ratio = divide(arm.mean[..., 0], arm.mean[..., 1])
    k = arm.mean.shape[-1]
    gradient = np.zeros((*arm.mean.shape[:-1], k - 1, k))
    gradient[..., 0, 0] = divide(np.array(1.0), arm.mean[..., 1])
    gradient[..., 0, 1] = -ratio * gradient[..., 0, 0]
    gradient[..., 1:, 2:] = np.eye(k - 2)
    return ratio, gradient @ arm.covariance @ np.swapaxes(gradient, -1, -2) / np.asarray(arm.n)[..., None, None]


@dataclass(frozen=True)
class Intervals:
    """Intervals of the difference and of the lift [...], and p of "no effect".

    Either both intervals contain 0, or neither. The lift's interval is Fieller's (1954). It is infinite if the
    control's value may be 0.
    """

    low: np.ndarray
    high: np.ndarray
    lift_low: np.ndarray
    lift_high: np.ndarray
    p: np.ndarray


def fixed(effect: Estimate, level: float = LEVEL) -> Intervals:
    """Intervals for a single look, at a number of users set beforehand."""
    z = np.abs(divide(effect.difference, effect.standard_error))
    return _intervals(effect, np.array(special.ndtri((1 + level) / 2)), 2 * special.ndtr(-z))


def sequential(effect: Estimate, planned_lift: float, level: float = LEVEL) -> Intervals:
    """Intervals for any number of looks at any time, also to decide when to stop: an asymptotic confidence sequence.

    Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central limit theory and asymptotic confidence
    sequences", Annals of Statistics 2024, the Gaussian mixture: after t observations of standard deviation s,

        mean +- s sqrt( 2 (t rho^2 + 1) / (t^2 rho^2) * log( sqrt(t rho^2 + 1) / alpha ) ).

    Here s^2 / t is the squared standard error and rho = planned lift * control / s. So t rho^2 measures information
    instead of users, since users come back. The sequence is narrowest at about the size where a fixed test has a
    power of 80 % for the planned lift. p is the least alpha whose sequence excludes 0. The guarantee is asymptotic
    and needs estimates with independent increments, as when each user counts once with all events. Start to look
    at some hundred users per arm.
    """
    error = effect.standard_error
    information = divide(planned_lift * effect.control, error) ** 2
    z = divide(effect.difference, error)
    p = np.minimum(1, np.sqrt(1 + information) * np.exp(-(z**2) * information / (2 * (1 + information))))
    return _intervals(effect, _times(information, level), p)


def _times(information: np.ndarray, level: float) -> np.ndarray:
    """Half width of the confidence sequence in standard errors, for t rho^2 = `information`."""
    return np.sqrt(divide(information + 1, information) * (np.log1p(information) - 2 * np.log(1 - level)))


def _intervals(effect: Estimate, times: np.ndarray, p: np.ndarray) -> Intervals:
    """Intervals of +- `times` standard errors. Fieller's ends are the lifts with a contrast of `times` errors."""
    half = times * effect.standard_error
    a, b, c = effect.treatment, effect.control, effect.covariance
    square = b**2 - times**2 * c[..., 1, 1]
    middle = a * b - times**2 * c[..., 0, 1]
    last = a**2 - times**2 * c[..., 0, 0]
    root = np.sqrt(np.maximum(middle**2 - square * last, 0))
    bounded = (square > 0) & (b > 0)
    low = np.where(bounded, divide(middle - root, square) - 1, -np.inf)
    high = np.where(bounded, divide(middle + root, square) - 1, np.inf)
    return Intervals(effect.difference - half, effect.difference + half, low, high, p)


@dataclass(frozen=True)
class SampleRatio:
    """Counted and expected users by arm [..., arms], and p of the hypothesis "the shares were as planned" [...]."""

    counted: np.ndarray
    expected: np.ndarray
    p: np.ndarray

    def alarm(self, threshold: float = 1e-3) -> np.ndarray:
        """Whether the experiment is broken. If assignment or logging loses users, no effect is reliable."""
        return self.p < threshold


def sample_ratio(counted: np.ndarray, shares: np.ndarray) -> SampleRatio:
    """Chi-square test of users by arm [..., arms] against the planned shares [arms], in any scale.

    If an arm of share 0 has users, p is 0.
    Raises ShoplensError if there are no users, no share is positive, or a share is negative.
    """
    counted, shares = np.asarray(counted, np.float64), np.asarray(shares, np.float64)
    total = counted.sum(axis=-1, keepdims=True)
    if not shares.sum() > 0 or (shares < 0).any() or not (total > 0).all():
        raise ShoplensError("a sample ratio needs users in each experiment, a positive share, and no negative share")
    expected = total * shares / shares.sum()
    chi2 = np.divide((counted - expected) ** 2, expected, out=np.zeros_like(counted), where=expected > 0).sum(axis=-1)
    chi2 = np.where(((expected == 0) & (counted > 0)).any(axis=-1), np.inf, chi2)
    return SampleRatio(counted, expected, stats.chi2.sf(chi2, max(1, int((shares > 0).sum()) - 1)))


def power(
    users: float, lift: float, spread: float, *, share: float = 0.5, level: float = LEVEL, looks: Looks = "one"
) -> float:
    """Power of a look at `users` (both arms together): the probability that the interval of the lift excludes 0.

    lift     true relative change, 0.02 for +2 %
    spread   `Estimate.spread`; the treatment's variance is assumed to grow with its value, as for counts
    share    the treatment's share of the users
    looks    "one": with the fixed interval; "any": with the sequential interval planned for this lift. Earlier looks
             detect some effects sooner, and slightly more effects in total

    Raises ShoplensError if an argument is out of range.
    """
    _check_plan(lift, spread, share, level)
    return _power(abs(lift) / (spread * np.sqrt(_per_user(lift, share) / users)), level, looks)


def users_needed(
    lift: float,
    spread: float,
    probability: float = 0.8,
    *,
    share: float = 0.5,
    level: float = LEVEL,
    looks: Looks = "one",
) -> int:
    """Users of both arms together at which `power` is `probability`.

    Raises ShoplensError if an argument is out of range.
    """
    _check_plan(lift, spread, share, level)
    if not (1 - level) < probability < 1 - 1e-9:
        raise ShoplensError(f"a power of {probability} cannot be planned: choose one between {1 - level:.3g} and 1")
    z = optimize.brentq(lambda z: _power(z, level, looks) - probability, 1e-3, 50)
    return int(np.ceil((z * spread / lift) ** 2 * _per_user(lift, share)))


def _power(z: float, level: float, looks: Looks) -> float:
    """Probability that the interval excludes 0 for an effect of z standard errors."""
    q = special.ndtri((1 + level) / 2) if looks == "one" else _times(np.array(z**2), level)
    return float(special.ndtr(z - q) + special.ndtr(-z - q))


def _per_user(lift: float, share: float) -> float:
    """Squared standard error of the lift for one user and a spread of 1."""
    return 1 / (1 - share) + (1 + lift) / share


def _check_plan(lift: float, spread: float, share: float, level: float) -> None:
    if not (lift > -1 and lift != 0 and spread > 0 and 0 < share < 1 and 0 < level < 1):
        raise ShoplensError(
            f"cannot plan for a lift of {lift}, a spread of {spread}, a share of {share} and a level of {level}: "
            "the lift must be above -1 and not 0, the spread positive, and share and level between 0 and 1"
        )

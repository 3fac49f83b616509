"""Effects of an experiment, with the user as the unit: what was assigned at random is what is counted.

A metric is a ratio of two sums over users, clicks / impressions, or spend / 1 where it is a mean a user. Everything
is computed from the moments of users' values, so arms of any size, and many experiments at once (leading
dimensions, written ...), cost one pass over the data.
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
"""How often a running experiment is looked at: once, at a number of users set beforehand, or whenever one likes."""


@dataclass(frozen=True)
class Moments:
    """Of the values of an arm's users: their number [...], means [..., k] and covariance [..., k, k]."""

    n: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray

    def first(self, k: int) -> Moments:
        return Moments(self.n, self.mean[..., :k], self.covariance[..., :k, :k])


def moments(values: np.ndarray) -> Moments:
    """Moments of `values` [..., n, k]. Raises ShoplensError if there are fewer than two users."""
    n = values.shape[-2]
    if n < 2:
        raise ShoplensError(f"an arm has {n} user(s); nothing can be said of fewer than two")
    mean = values.mean(axis=-2)
    centred = values - mean[..., None, :]
    return Moments(np.array(n), mean, np.swapaxes(centred, -1, -2) @ centred / (n - 1))


@dataclass(frozen=True)
class Estimate:
    """A metric in both arms [...] and the covariance of the two figures [..., 2, 2], treatment first."""

    treatment: np.ndarray
    control: np.ndarray
    covariance: np.ndarray
    n_treatment: np.ndarray
    n_control: np.ndarray

    @property
    def difference(self) -> np.ndarray:
        return self.treatment - self.control

    @property
    def lift(self) -> np.ndarray:
        """treatment / control - 1."""
        return divide(self.treatment, self.control) - 1

    @property
    def standard_error(self) -> np.ndarray:
        """Of the difference."""
        return self._error(np.array(1.0))

    @property
    def spread(self) -> np.ndarray:
        """Standard deviation of a user's share in the metric, over the metric: what power is planned with."""
        return divide(self.standard_error / np.sqrt(1 / self.n_treatment + 1 / self.n_control), self.control)

    def _error(self, times: np.ndarray) -> np.ndarray:
        """Standard error of treatment - times * control."""
        c = self.covariance
        return np.sqrt(np.maximum(c[..., 0, 0] - 2 * times * c[..., 0, 1] + times**2 * c[..., 1, 1], 0))

    def non_inferiority(self, margin: float) -> np.ndarray:
        """p of "treatment is below (1 - margin) * control", one-sided: small where the metric surely holds."""
        kept = np.array(1 - margin)
        return special.ndtr(-divide(self.treatment - kept * self.control, self._error(kept)))


def estimate(treatment: Moments, control: Moments) -> Estimate:
    """The ratio of the first value's sum to the second's in each arm, adjusted by the other values.

    The ratio's variance is that of users' (numerator - ratio * denominator) / mean denominator (delta method: Deng,
    Knoblich & Lu, KDD 2018). The other values are covariates from before the experiment (CUPED: Deng, Xu, Kohavi &
    Walker, WSDM 2013): the difference loses what their chance difference between the arms explains, with the
    coefficients that make its variance least, and each arm its part of it.
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
    """Least squares coefficients [..., k - 1] of the first value on the others, of which some may say the same."""
    among, with_first = covariance[..., 1:, 1:], covariance[..., 1:, 0]
    scale = np.sqrt(np.diagonal(among, axis1=-2, axis2=-1))
    scale = np.where(scale > 0, scale, 1)
    inverse = np.linalg.pinv(among / (scale[..., :, None] * scale[..., None, :]), rcond=1e-9, hermitian=True)
    return np.einsum("...ij,...j->...i", inverse, with_first / scale) / scale


def _linear(arm: Moments) -> tuple[np.ndarray, np.ndarray]:
    """An arm's ratio [...], and the covariance of ratio and covariates' means [..., k - 1, k - 1]."""
    ratio = divide(arm.mean[..., 0], arm.mean[..., 1])
    k = arm.mean.shape[-1]
    gradient = np.zeros((*arm.mean.shape[:-1], k - 1, k))
    gradient[..., 0, 0] = divide(np.array(1.0), arm.mean[..., 1])
    gradient[..., 0, 1] = -ratio * gradient[..., 0, 0]
    gradient[..., 1:, 2:] = np.eye(k - 2)
    return ratio, gradient @ arm.covariance @ np.swapaxes(gradient, -1, -2) / np.asarray(arm.n)[..., None, None]


@dataclass(frozen=True)
class Finding:
    """An interval of the difference and of the lift [...], and p of "no effect"; the lift's holds 0 if the other does.

    The lift's interval is Fieller's (1954), and infinite where the control's figure may be 0.
    """

    low: np.ndarray
    high: np.ndarray
    lift_low: np.ndarray
    lift_high: np.ndarray
    p: np.ndarray


def fixed(found: Estimate, level: float = LEVEL) -> Finding:
    """For one look, at a number of users that was set beforehand."""
    z = np.abs(divide(found.difference, found.standard_error))
    return _finding(found, np.array(special.ndtri((1 + level) / 2)), 2 * special.ndtr(-z))


def sequential(found: Estimate, planned_lift: float, level: float = LEVEL) -> Finding:
    """For any number of looks at any time, stopping when one likes: an asymptotic confidence sequence.

    Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central limit theory and asymptotic confidence
    sequences", Annals of Statistics 2024, the Gaussian mixture: after t observations of standard deviation s,

        mean +- s sqrt( 2 (t rho^2 + 1) / (t^2 rho^2) * log( sqrt(t rho^2 + 1) / alpha ) ).

    s^2 / t is here the squared standard error, and rho = planned lift * control / s: t rho^2 counts what is known,
    not users, since users come back. It is narrowest about where a fixed test finds the planned lift with a power
    of 80 %. The p is the least alpha at which the sequence leaves out 0. The guarantee holds in the limit, for
    estimates whose steps are independent, as when every user counts once and whole: begin to look at some hundred
    users an arm.
    """
    error = found.standard_error
    known = divide(planned_lift * found.control, error) ** 2
    z = divide(found.difference, error)
    p = np.minimum(1, np.sqrt(1 + known) * np.exp(-(z**2) * known / (2 * (1 + known))))
    return _finding(found, _times(known, level), p)


def _times(known: np.ndarray, level: float) -> np.ndarray:
    """Standard errors to either side, for t rho^2 = `known`."""
    return np.sqrt(divide(known + 1, known) * (np.log1p(known) - 2 * np.log(1 - level)))


def _finding(found: Estimate, times: np.ndarray, p: np.ndarray) -> Finding:
    """Intervals of so many standard errors; with Fieller's, the lift whose contrast is so many errors from 0."""
    half = times * found.standard_error
    a, b, c = found.treatment, found.control, found.covariance
    square = b**2 - times**2 * c[..., 1, 1]
    middle = a * b - times**2 * c[..., 0, 1]
    last = a**2 - times**2 * c[..., 0, 0]
    root = np.sqrt(np.maximum(middle**2 - square * last, 0))
    bounded = (square > 0) & (b > 0)
    low = np.where(bounded, divide(middle - root, square) - 1, -np.inf)
    high = np.where(bounded, divide(middle + root, square) - 1, np.inf)
    return Finding(found.difference - half, found.difference + half, low, high, p)


@dataclass(frozen=True)
class SampleRatio:
    """Users counted and expected by arm [..., arms], and p of "they were assigned with these shares" [...]."""

    counted: np.ndarray
    expected: np.ndarray
    p: np.ndarray

    def alarm(self, threshold: float = 1e-3) -> np.ndarray:
        """Whether the experiment is broken: no effect is to be believed where assignment or logging loses users."""
        return self.p < threshold


def sample_ratio(counted: np.ndarray, shares: np.ndarray) -> SampleRatio:
    """Chi-square test of users by arm [..., arms] against their shares [arms] (any scale).

    An arm of share 0 that has users has p 0. Raises ShoplensError if no arm has a share or no arm has a user.
    """
    counted, shares = np.asarray(counted, np.float64), np.asarray(shares, np.float64)
    total = counted.sum(axis=-1, keepdims=True)
    if not shares.sum() > 0 or (shares < 0).any() or not (total > 0).all():
        raise ShoplensError("a sample ratio needs users, and shares of which one is positive and none negative")
    expected = total * shares / shares.sum()
    chi2 = np.divide((counted - expected) ** 2, expected, out=np.zeros_like(counted), where=expected > 0).sum(axis=-1)
    chi2 = np.where(((expected == 0) & (counted > 0)).any(axis=-1), np.inf, chi2)
    return SampleRatio(counted, expected, stats.chi2.sf(chi2, max(1, int((shares > 0).sum()) - 1)))


def power(
    users: float, lift: float, spread: float, *, share: float = 0.5, level: float = LEVEL, looks: Looks = "one"
) -> float:
    """How likely a look at `users`, of both arms together, finds a lift, either way.

    spread   `Estimate.spread`; the treatment's variance is taken to grow with its figure, as that of counts does
    share    the treatment's share of the users
    looks    "one": with the fixed interval; "any": with the sequential one, planned for this lift. Looks before
             that find some of it sooner, and a little more in all

    Raises ShoplensError if that cannot be planned.
    """
    _check_plan(lift, spread, share, level)
    return _found(abs(lift) / (spread * np.sqrt(_per_user(lift, share) / users)), level, looks)


def users_needed(
    lift: float,
    spread: float,
    probability: float = 0.8,
    *,
    share: float = 0.5,
    level: float = LEVEL,
    looks: Looks = "one",
) -> int:
    """Users of both arms together at which `power` is `probability`."""
    _check_plan(lift, spread, share, level)
    if not (1 - level) < probability < 1 - 1e-9:
        raise ShoplensError(f"a power of {probability} cannot be planned: it lies between {1 - level:.3g} and 1")
    z = optimize.brentq(lambda z: _found(z, level, looks) - probability, 1e-3, 50)
    return int(np.ceil((z * spread / lift) ** 2 * _per_user(lift, share)))


def _found(z: float, level: float, looks: Looks) -> float:
    """Probability that an effect of z standard errors is found."""
    q = special.ndtri((1 + level) / 2) if looks == "one" else _times(np.array(z**2), level)
    return float(special.ndtr(z - q) + special.ndtr(-z - q))


def _per_user(lift: float, share: float) -> float:
    """Squared error of the lift for one user and a spread of 1."""
    return 1 / (1 - share) + (1 + lift) / share


def _check_plan(lift: float, spread: float, share: float, level: float) -> None:
    if not (lift > -1 and lift != 0 and spread > 0 and 0 < share < 1 and 0 < level < 1):
        raise ShoplensError(
            f"cannot plan for a lift of {lift}, a spread of {spread}, a share of {share} and a level of {level}: "
            "the lift is above -1 and not 0, the spread positive, share and level between 0 and 1"
        )

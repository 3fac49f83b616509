"""Confidence intervals by the cluster bootstrap (Davison & Hinkley 1997, section 3.8).

Photos of one product succeed and fail together, so whole groups are drawn with replacement, not single
queries; an interval over single queries would be too narrow.
"""

from __future__ import annotations

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
_DRAWS_AT_ONCE = 1 << 22


def interval(
    outcomes: np.ndarray, groups: np.ndarray, seed: int = 0, *, resamples: int = RESAMPLES, level: float = LEVEL
) -> tuple[float, float]:
    """Percentile interval of the mean of `outcomes` [n], drawn by `groups` [n] (any integers).

    A single group says nothing about how groups differ: the interval is then (nan, nan).
    """
    means = _resampled_means(_columns(outcomes), np.asarray(groups), seed, resamples)[:, 0]
    return _percentiles(means, level)


def paired_difference(
    a: np.ndarray,
    b: np.ndarray,
    groups: np.ndarray,
    seed: int = 0,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> tuple[float, float, float]:
    """mean(a) - mean(b) over the same queries, with its percentile interval: (difference, low, high)."""
    difference = _columns(a) - _columns(b)
    means = _resampled_means(difference, np.asarray(groups), seed, resamples)[:, 0]
    return (float(difference.mean()), *_percentiles(means, level))


def _columns(outcomes: np.ndarray) -> np.ndarray:
    return np.asarray(outcomes, dtype=np.float64).reshape(-1, 1)


def _resampled_means(outcomes: np.ndarray, groups: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Means of the columns of `outcomes` [n, m] under `resamples` draws of the groups, [resamples, m]."""
    if groups.shape != outcomes.shape[:1]:
        raise ValueError(f"{len(outcomes)} outcomes, but groups of shape {groups.shape}")
    if not len(outcomes):
        raise ValueError("no outcome to resample")
    codes = np.unique(groups, return_inverse=True)[1]
    n_groups = int(codes.max()) + 1
    if n_groups == 1:
        return np.full((resamples, outcomes.shape[1]), np.nan)
    sums = np.zeros((n_groups, outcomes.shape[1]))
    np.add.at(sums, codes, outcomes)
    sizes = np.bincount(codes).astype(np.float64)
    rng = np.random.default_rng(seed)
    means = np.empty((resamples, outcomes.shape[1]))
    step = max(1, _DRAWS_AT_ONCE // n_groups)
    for start in range(0, resamples, step):
        drawn = rng.integers(n_groups, size=(min(step, resamples - start), n_groups))
        means[start : start + step] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)[:, None]
    return means


def _percentiles(means: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

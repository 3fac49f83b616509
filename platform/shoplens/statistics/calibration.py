"""Calibration of probabilities: temperature scaling, thresholds at a precision, calibration error."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from shoplens.statistics.bootstrap import Statistic, divide, totals

BINS = 15
NEVER = 2.0
"""A threshold above every probability."""


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """The temperature T of least log loss of softmax(logits / T) (Guo et al. 2017); 1 without rows.

    logits   [n, k]
    truth    int64 [n] right columns

    log T is bounded to -3 .. 3: rows that are all right would otherwise push T to 0.
    """
    if not len(truth):
        return 1.0
    row = np.arange(len(truth))

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(logits / np.exp(log_temperature), axis=1)[row, truth].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def threshold_at_precision(score: np.ndarray, right: np.ndarray, precision: float) -> float:
    """The lowest threshold at which at least `precision` of the rows [n] are right; `NEVER` if there is none.

    A row passes the threshold if its `score` is at least the threshold.
    """
    order = np.argsort(-score, kind="stable")
    scores = score[order]
    share = np.cumsum(right[order]) / np.arange(1, len(scores) + 1)
    whole = np.append(scores[:-1] > scores[1:], True)[: len(scores)]
    reached = np.flatnonzero(whole & (share >= precision - 1e-12))
    return float(scores[reached[-1]]) if len(reached) else NEVER


def calibration_error(
    confidence: np.ndarray, right: np.ndarray, unit_group: np.ndarray, group: np.ndarray
) -> Statistic:
    """ECE over `BINS` bins of equal width: |share right - mean confidence|, weighted by rows (Naeini et al. 2015)."""
    n_groups = int(group.max()) + 1
    code = unit_group * BINS + _bin(confidence)
    gap = totals(np.asarray(right, np.float64) - confidence, code, n_groups * BINS).reshape(n_groups, BINS)
    rows = totals(np.ones(len(code)), unit_group, n_groups)

    def under(drawn: np.ndarray) -> np.ndarray:
        return divide(np.abs(drawn @ gap).sum(axis=1), drawn @ rows)

    return Statistic(float(under(np.ones((1, n_groups)))[0]), len(code), group, under)


def reliability(confidence: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
    """The non-empty bins of the calibration error: mean confidence, share right, number of rows."""
    place = _bin(confidence)
    return [
        {
            "confidence": float(confidence[place == one].mean()),
            "right": float(np.asarray(right, np.float64)[place == one].mean()),
            "n": int((place == one).sum()),
        }
        for one in np.unique(place)
    ]


def _bin(confidence: np.ndarray) -> np.ndarray:
    return np.minimum((np.asarray(confidence) * BINS).astype(np.int64), BINS - 1)

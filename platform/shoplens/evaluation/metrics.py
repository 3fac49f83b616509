"""Retrieval metrics from scores, and their expected values for a random order.

A tie counts against the model: at equal score, every wrong item ranks before every right item. Scores closer than
`TIE` count as equal, because float32 products of the same two vectors differ by that much between matrix shapes. So a
model that maps everything to one vector scores 0, not 1.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

TIE = 1e-6


def wrong_before(right: np.ndarray, wrong: np.ndarray, tie: float = TIE) -> np.ndarray:
    """Number of `wrong` scores that rank before each of the `right` scores, best right score first, int64 [r].

    `wrong` must be ascending. Its -inf entries never count. Scores closer than `tie` count as equal.
    """
    ordered = -np.sort(-np.asarray(right))
    return len(wrong) - np.searchsorted(wrong, ordered - np.asarray(tie, ordered.dtype), side="left")


def recall_at(k: int, first: np.ndarray) -> np.ndarray:
    """1.0 where a right item is in the top-k. `first` [m]: number of wrong items before the first right item."""
    return (np.asarray(first) < k).astype(np.float64)


def average_precision(before: np.ndarray) -> float:
    """AP of one query: the mean over its right items of the precision at their rank (Manning et al. 2008, 8.4).

    `before` [r]: number of wrong items before each right item, best first (see `wrong_before`).
    """
    place = np.arange(1, len(before) + 1)
    return float((place / (place + before)).mean())


def map_at_r(before: np.ndarray) -> float:
    """AP@R of one query, where R is its number of right items (Musgrave et al. 2020, "mAP@R").

    It is the sum of the precisions at the right items in the top R, divided by R. `before`: as in
    `average_precision`.
    """
    place = np.arange(1, len(before) + 1)
    rank = place + before
    return float((place / rank)[rank <= len(before)].sum() / len(before))


def chance_recall(k: int, n_right: np.ndarray, n_gallery: np.ndarray) -> np.ndarray:
    """Expected recall@k of a random order: 1 - the hypergeometric probability of no right item in k draws."""
    return np.asarray(stats.hypergeom.sf(0, n_gallery, n_right, np.minimum(k, n_gallery)))


def chance_average_precision(n_right: np.ndarray, n_gallery: np.ndarray) -> np.ndarray:
    """Expected AP of a random order, exactly: (H_n + (r-1)/(n-1) (n - H_n)) / n (Bestgen 2015)."""
    n = np.asarray(n_gallery, dtype=np.float64)
    r = np.asarray(n_right, dtype=np.float64)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int(n.max(initial=1)) + 1))])[n.astype(np.int64)]
    return (harmonic + (r - 1) / np.maximum(n - 1, 1) * (n - harmonic)) / n


def chance_map_at_r(n_right: np.ndarray, n_gallery: np.ndarray) -> np.ndarray:
    """Expected mAP@R of a random order, exactly: (H_r + (r-1)/(n-1) (r - H_r)) / n."""
    n = np.asarray(n_gallery, dtype=np.float64)
    r = np.asarray(n_right, dtype=np.int64)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, int(r.max(initial=1)) + 1))])[r]
    return (harmonic + (r - 1) / np.maximum(n - 1, 1) * (r - harmonic)) / n

"""Retrieval metrics from scores, and what random scores would reach.

A tie never favours the model: at equal score every wrong item stands before every right one, and scores
closer than `TIE` count as equal, since float32 products of the same two vectors differ by that much from
one matrix shape to another. A model that gives one vector for everything scores 0, not 1.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

TIE = 1e-6


def wrong_before(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """How many `wrong` scores stand before each of the `right` scores, best right one first, int64 [r].

    `wrong` must be ascending; -inf in it never counts.
    """
    ordered = -np.sort(-np.asarray(right))
    return len(wrong) - np.searchsorted(wrong, ordered - np.asarray(TIE, ordered.dtype), side="left")


def recall_at(k: int, first: np.ndarray) -> np.ndarray:
    """1.0 where a right item is among the k best; `first` [m] counts the wrong items before the first right one."""
    return (np.asarray(first) < k).astype(np.float64)


def average_precision(before: np.ndarray) -> float:
    """AP of one query: the mean over its right items of the precision at their rank (Manning et al. 2008, 8.4).

    `before` [r]: the wrong items before each right one, best first, as of `wrong_before`.
    """
    place = np.arange(1, len(before) + 1)
    return float((place / (place + before)).mean())


def map_at_r(before: np.ndarray) -> float:
    """AP of one query over its first R places, R its number of right items (Musgrave et al. 2020, "mAP@R").

    The sum of the precisions at the right items among the first R, over R; `before` as in `average_precision`.
    """
    place = np.arange(1, len(before) + 1)
    rank = place + before
    return float((place / rank)[rank <= len(before)].sum() / len(before))


def chance_recall(k: int, n_right: np.ndarray, n_gallery: np.ndarray) -> np.ndarray:
    """Expected recall@k of a random order: one minus the hypergeometric chance of no right item in k draws."""
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

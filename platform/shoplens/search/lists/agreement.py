"""Agreement of two systems' lists: match rate and rank-biased overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shoplens.errors import ShoplensError
from shoplens.evaluation.results import Findings
from shoplens.search.lists.item_codes import AT, check_lists

PERSISTENCE = 0.9


def agreement(
    lists: np.ndarray, others: np.ndarray, n_items: int, *, at: Sequence[int] = AT, persistence: float = PERSISTENCE
) -> Findings:
    """`agreement/match@K, rbo` of two systems' lists for the same rows, with a bootstrap over lists.

    match   number of common items among the first K of both, over K
    rbo     extrapolated rank-biased overlap with `persistence`; rows where both lists are empty are left out

    Raises ShoplensError if the systems have different numbers of lists, or as `item_codes.check_lists`.
    """
    if len(lists) != len(others):
        raise ShoplensError(
            f"{len(lists)} lists against {len(others)}: give both systems' for the same seeds in one order"
        )
    check_lists(lists, n_items, at)
    check_lists(others, n_items, at)
    findings = Findings()
    common = overlap(lists, others)
    rows = np.arange(len(lists))
    length, other_length = ((one >= 0).sum(axis=1) for one in (lists, others))
    for k in at:
        by_chance = np.minimum(length, k) * np.minimum(other_length, k) / (n_items * k)
        findings.add(f"agreement/match@{k}", common[:, k - 1] / k, rows, float(by_chance.mean()) if len(rows) else None)
    overlaps = rank_biased_overlap(lists, others, persistence)
    defined = ~np.isnan(overlaps)
    findings.add("agreement/rbo", overlaps[defined], rows[defined])
    findings.about["rbo"] = {"persistence": persistence, "both_empty": int((~defined).sum())}
    return findings


def overlap(lists: np.ndarray, others: np.ndarray) -> np.ndarray:
    """int64 [rows, max(K, K')]: the number of different items among the first d of both lists, in column d - 1."""
    n_items = int(max(lists.max(initial=0), others.max(initial=0))) + 1
    key, place = _first_places(lists, n_items)
    other_key, other_place = _first_places(others, n_items)
    both, ours, theirs = np.intersect1d(key, other_key, assume_unique=True, return_indices=True)
    width = max(lists.shape[1], others.shape[1])
    depth = np.maximum(place[ours], other_place[theirs])
    met = np.bincount(both // n_items * width + depth, minlength=len(lists) * width).reshape(len(lists), width)
    return np.cumsum(met, axis=1)


def rank_biased_overlap(lists: np.ndarray, others: np.ndarray, persistence: float = PERSISTENCE) -> np.ndarray:
    """RBO_EXT of each pair of lists, float64 [rows]: 1 for equal lists, 0 if one is empty, NaN if both are.

    RBO_EXT extrapolates the agreement at the end of the lists (Webber, Moffat & Zobel 2010, eq. 32, for lists of unequal
    length). A truncated sum would give equal lists less than 1. With persistence 0.9 the first 3 places have half the
    weight, the first 20 places 97 %. A repeated item counts at its first place. Raises ShoplensError if `persistence` is
    not between 0 and 1.
    """
    if not 0 < persistence < 1:
        raise ShoplensError(f"persistence is {persistence}: it must lie between 0 and 1")
    common = overlap(lists, others).astype(np.float64)
    lengths = np.stack([(one >= 0).sum(axis=1) for one in (lists, others)])
    short, long = lengths.min(axis=0), lengths.max(axis=0)
    at_ends = np.concatenate([np.zeros((len(common), 1)), common], axis=1)
    rows = np.arange(len(common))
    at_short, at_long = at_ends[rows, short], at_ends[rows, long]
    depth = np.arange(1, common.shape[1] + 1)
    divisor = np.maximum(short, 1)
    unseen = at_short[:, None] * np.clip(depth - short[:, None], 0, None) / divisor[:, None]
    weight = np.where(depth <= long[:, None], persistence**depth / depth, 0.0)
    seen = ((common + unseen) * weight).sum(axis=1) * (1 - persistence) / persistence
    end = ((at_long - at_short) / np.maximum(long, 1) + at_short / divisor) * persistence**long
    return np.where(long > 0, seen + end, np.nan)


def _first_places(lists: np.ndarray, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Each row's different items as row * n_items + item, ascending, and the first column of each."""
    row, column = np.nonzero(lists >= 0)
    key, first = np.unique(row * n_items + lists[row, column], return_index=True)
    return key, column[first]

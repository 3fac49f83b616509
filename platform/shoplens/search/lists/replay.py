"""Replay of logged clicks against lists: hit rate and mean reciprocal rank.

Clicks were logged under the lists that were served then. An item that nobody saw cannot have been clicked, so a new model
scores lower here than it would online. `off_policy` or an A/B test estimate its true value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from shoplens.errors import ShoplensError
from shoplens.evaluation.results import Findings
from shoplens.search.lists.item_codes import AT, check_lists
from shoplens.statistics.bootstrap import Statistic

SPLIT = "lists"
"""The "split" under which evaluations of lists are stored, and the prefix of their metrics."""
POPULARITY_BUCKETS = 4
_CELLS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Clicks:
    """Clicks on recommendations, one entry an event [e].

    seed      int64 from 0: the seed on whose page the click was
    clicked   int64: the clicked item's code
    user      any integers, the groups of the bootstrap
    row       int64: the row of the lists that was valid then, -1 if none was; default: row s belongs to seed s

    Raises ShoplensError for arrays of unequal length, and for codes below 0.
    """

    seed: np.ndarray
    clicked: np.ndarray
    user: np.ndarray
    row: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, array in vars(self).items():
            if array is not None and (np.shape(array) != np.shape(self.seed) or array.ndim != 1):
                raise ShoplensError(
                    f"{name} is of shape {np.shape(array)}, seed of {np.shape(self.seed)}: give one of each an event"
                )
        for name, array in (("seed", self.seed), ("clicked", self.clicked)):
            if len(array) and (array.dtype.kind not in "iu" or array.min() < 0):
                raise ShoplensError(f"{name} must be integer codes from 0: leave out events of unknown products")


def rows_valid_at(seed: np.ndarray, time: np.ndarray, list_seed: np.ndarray, list_time: np.ndarray) -> np.ndarray:
    """int64 [e]: the row of lists valid at each event, the latest one of its seed up to that time; -1 for none.

    seed, time [e] of the events; list_seed, list_time [rows] of the lists. Times are of one sortable type.
    """
    moments, code = np.unique(np.concatenate([list_time, time]), return_inverse=True)
    listed, at_event = np.split(
        np.concatenate([list_seed, seed]).astype(np.int64) * len(moments) + code, [len(list_seed)]
    )
    if not len(listed):
        return np.full(len(seed), -1, np.int64)
    order = np.argsort(listed, kind="stable")
    latest = np.searchsorted(listed[order], at_event, side="right") - 1
    row = order[np.maximum(latest, 0)]
    return np.where((latest >= 0) & (list_seed[row] == seed), row, -1)


def places_of(clicks: Clicks, lists: np.ndarray) -> np.ndarray:
    """int64 [e]: the first place, from 1, of the clicked item in the event's list; 0 if it is not in the list.

    Raises ShoplensError if an event's row is not among the lists.
    """
    row = clicks.seed if clicks.row is None else clicks.row
    if len(row) and row.max() >= len(lists):
        raise ShoplensError(f"a click names list {row.max()}, but there are {len(lists)}: give a list for every seed")
    place = np.zeros(len(row), np.int64)
    for at in reversed(range(lists.shape[1])):
        place[(lists[row, at] == clicks.clicked) & (row >= 0)] = at + 1
    return place


def replay(
    clicks: Clicks,
    lists: np.ndarray,
    n_items: int,
    *,
    at: Sequence[int] = AT,
    popularity: np.ndarray | None = None,
    buckets: int = POPULARITY_BUCKETS,
) -> Findings:
    """`clicks/hit@K, mrr@K, hit@K_by_seed` and `clicks/popularity_B/hit@K`, with a bootstrap over users.

    hit           the clicked item is among the first K of its seed's list; mean over events
    mrr           1 / its place, 0 if it is not among the first K; mean over events
    hit_by_seed   mean over seeds of each seed's hit rate (macro average), so that busy pages do not dominate
    popularity_B  hit rate of the seeds in the B-th bucket by `popularity` [seeds], the rarest first; default: by their
                  events here. Seeds of equal popularity share a bucket, so buckets may differ in size or be missing.

    Chance is the hit rate of as many different items drawn from the `n_items` of the catalog. An event without a valid
    list is a miss. Raises ShoplensError if lists are not in the form of `item_codes`, or if a K exceeds their width.
    """
    check_lists(lists, n_items, at)
    findings = Findings()
    if not len(clicks.seed):
        return findings
    place = places_of(clicks, lists)
    row = clicks.seed if clicks.row is None else clicks.row
    length = np.where(row >= 0, (lists >= 0).sum(axis=1)[row], 0)
    seed = np.unique(clicks.seed, return_inverse=True)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, lists.shape[1] + 1))])
    bucket = _buckets(clicks, popularity, buckets)
    for k in at:
        hit = ((place > 0) & (place <= k)).astype(np.float64)
        by_chance = np.minimum(length, k) / n_items
        findings.add(f"clicks/hit@{k}", hit, clicks.user, float(by_chance.mean()))
        reciprocal = hit / np.maximum(place, 1)
        findings.add(
            f"clicks/mrr@{k}", reciprocal, clicks.user, float(harmonic[np.minimum(length, k)].mean() / n_items)
        )
        macro = mean_over_seeds(hit, seed[1], clicks.user)
        findings.add_statistic(f"clicks/hit@{k}_by_seed", macro, _mean_by(by_chance, seed[1]))
        for number in np.unique(bucket):
            inside = bucket == number
            name = f"clicks/popularity_{number + 1}/hit@{k}"
            findings.add(name, hit[inside], clicks.user[inside], float(by_chance[inside].mean()))
    findings.about["clicks"] = {"events": len(place), "seeds": len(seed[0]), "without_list": int((row < 0).sum())}
    findings.about["popularity"] = {
        f"popularity_{number + 1}": {
            "seeds": len(np.unique(clicks.seed[bucket == number])),
            "events": int((bucket == number).sum()),
        }
        for number in np.unique(bucket)
    }
    return findings


def mean_over_seeds(outcomes: np.ndarray, seed: np.ndarray, user: np.ndarray) -> Statistic:
    """The mean over seeds of each seed's mean outcome; outcomes, seed codes and users are [e], the bootstrap draws users.

    In a draw a seed counts with its drawn events; a seed without drawn events does not count.
    """
    group = np.unique(user, return_inverse=True)[1]
    n_seeds = int(seed.max()) + 1
    shape = (int(group.max()) + 1, n_seeds)
    events, sums = (sparse.csr_array((part, (group, seed)), shape=shape) for part in (np.ones(len(seed)), outcomes))

    def redrawn(drawn: np.ndarray) -> np.ndarray:
        step = max(1, _CELLS_AT_ONCE // n_seeds)
        return np.concatenate([means(drawn[start : start + step]) for start in range(0, len(drawn), step)])

    def means(drawn: np.ndarray) -> np.ndarray:
        n = drawn @ events
        return (drawn @ sums / np.maximum(n, 1)).sum(axis=1) / (n > 0).sum(axis=1)

    return Statistic(_mean_by(outcomes, seed), n_seeds, group, redrawn)


def _buckets(clicks: Clicks, popularity: np.ndarray | None, buckets: int) -> np.ndarray:
    """int64 [e]: the bucket of each event's seed. Buckets are quantiles of the clicked seeds by popularity."""
    if buckets < 1:
        raise ShoplensError(f"{buckets} parts by popularity: give 1 or more")
    if popularity is None:
        popularity = np.bincount(clicks.seed)
    elif clicks.seed.max() >= len(popularity):
        raise ShoplensError(
            f"popularity is known of {len(popularity)} seeds, but seed {clicks.seed.max()} was clicked on: give the popularity of every seed"
        )
    cuts = np.quantile(popularity[np.unique(clicks.seed)], np.arange(1, buckets) / buckets, method="inverted_cdf")
    return np.searchsorted(cuts, popularity[clicks.seed], side="left")


def _mean_by(values: np.ndarray, code: np.ndarray) -> float:
    """The mean over codes of the mean value of each code."""
    return float((np.bincount(code, values) / np.bincount(code)).mean())

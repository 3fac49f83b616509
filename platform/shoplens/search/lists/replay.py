"""Lists of recommendations judged by logged clicks, by what they hold, and against another system's lists.

`lists` are int64 [rows, K]: item codes from 0, best first, -1 from where a list ends. A row is the list of one seed,
the product on whose page it is served, or of a seed in one snapshot of the model (`rows_valid_at`).

Clicks were logged under the lists that were served then: an item that nobody was shown cannot have been clicked, so
a new model scores lower here than it would online. What it would earn is for `off_policy` or an A/B to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from shoplens.errors import ShoplensError
from shoplens.evaluation.results import Findings
from shoplens.statistics.bootstrap import Statistic

SPLIT = "lists"
"""What stands for a split where evaluations of lists are kept, and before the names of their figures."""
AT = (5, 10, 20)
MOST = (10, 100)
POPULARITY_BUCKETS = 4
PERSISTENCE = 0.9
_CELLS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Clicks:
    """Clicks on recommendations, an entry an event [e]: the seed on whose page, the item, and who.

    seed      int64, from 0
    clicked   int64 item codes
    user      any integers, the groups of the bootstrap
    row       int64: the row of the lists that was valid then, -1 where none was; without it row s is seed s

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
    """The row of lists that was valid for each event, int64 [e]: its seed's latest from then or before; -1 for none.

    seed, time [e] of the events; list_seed, list_time [rows]; times of any one kind that sorts.
    """
    moments, code = np.unique(np.concatenate([list_time, time]), return_inverse=True)
    listed, asked = np.split(np.concatenate([list_seed, seed]).astype(np.int64) * len(moments) + code, [len(list_seed)])
    if not len(listed):
        return np.full(len(seed), -1, np.int64)
    order = np.argsort(listed, kind="stable")
    latest = np.searchsorted(listed[order], asked, side="right") - 1
    row = order[np.maximum(latest, 0)]
    return np.where((latest >= 0) & (list_seed[row] == seed), row, -1)


def places_of(clicks: Clicks, lists: np.ndarray) -> np.ndarray:
    """The place, from 1, at which each event's list holds the clicked item first, int64 [e]; 0 where it does not.

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
    """`clicks/hit@K, mrr@K, hit@K_by_seed` and `clicks/popularity_B/hit@K`, drawn anew by user.

    hit           the clicked item is among the first K of its seed's list: the mean over events
    mrr           1 / its place, 0 where it is not among them
    hit_by_seed   the mean over seeds of the hits of each one's events (macro), so that a few busy pages do not decide
    popularity_B  hits of the seeds in the B-th part by `popularity` [seeds], from the rarest; without it by their
                  events here. Seeds equally popular are in one part, so parts may be of unequal size, or missing.

    Chance is that of as many different items drawn from the `n_items` of the catalog. An event without a valid list
    is a miss. Raises ShoplensError for lists that are not as this module has them, and for K beyond their width.
    """
    _check(lists, n_items, at)
    found = Findings()
    if not len(clicks.seed):
        return found
    place = places_of(clicks, lists)
    row = clicks.seed if clicks.row is None else clicks.row
    length = np.where(row >= 0, (lists >= 0).sum(axis=1)[row], 0)
    seed = np.unique(clicks.seed, return_inverse=True)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, lists.shape[1] + 1))])
    parts = _parts(clicks, popularity, buckets)
    for k in at:
        hit = ((place > 0) & (place <= k)).astype(np.float64)
        by_chance = np.minimum(length, k) / n_items
        found.add(f"clicks/hit@{k}", hit, clicks.user, float(by_chance.mean()))
        reciprocal = hit / np.maximum(place, 1)
        found.add(f"clicks/mrr@{k}", reciprocal, clicks.user, float(harmonic[np.minimum(length, k)].mean() / n_items))
        macro = mean_over_seeds(hit, seed[1], clicks.user)
        found.add_statistic(f"clicks/hit@{k}_by_seed", macro, _mean_by(by_chance, seed[1]))
        for part in np.unique(parts):
            inside = parts == part
            name = f"clicks/popularity_{part + 1}/hit@{k}"
            found.add(name, hit[inside], clicks.user[inside], float(by_chance[inside].mean()))
    found.about["clicks"] = {"events": len(place), "seeds": len(seed[0]), "without_list": int((row < 0).sum())}
    found.about["popularity"] = {
        f"popularity_{part + 1}": {
            "seeds": len(np.unique(clicks.seed[parts == part])),
            "events": int((parts == part).sum()),
        }
        for part in np.unique(parts)
    }
    return found


def mean_over_seeds(outcomes: np.ndarray, seed: np.ndarray, user: np.ndarray) -> Statistic:
    """The mean over seeds of the mean of each one's events: outcomes [e] of seed codes [e], drawn by users [e].

    Under a draw a seed is the mean of the events drawn, and out of it where none was.
    """
    group = np.unique(user, return_inverse=True)[1]
    n_seeds = int(seed.max()) + 1
    shape = (int(group.max()) + 1, n_seeds)
    events, sums = (sparse.csr_array((part, (group, seed)), shape=shape) for part in (np.ones(len(seed)), outcomes))

    def under(drawn: np.ndarray) -> np.ndarray:
        step = max(1, _CELLS_AT_ONCE // n_seeds)
        return np.concatenate([_of(drawn[start : start + step]) for start in range(0, len(drawn), step)])

    def _of(drawn: np.ndarray) -> np.ndarray:
        n = drawn @ events
        return (drawn @ sums / np.maximum(n, 1)).sum(axis=1) / (n > 0).sum(axis=1)

    return Statistic(_mean_by(outcomes, seed), n_seeds, group, under)


def contents(
    lists: np.ndarray,
    n_items: int,
    *,
    seed_item: np.ndarray | None = None,
    categories: Mapping[str, np.ndarray] | None = None,
    products: Mapping[str, np.ndarray] | None = None,
    at: Sequence[int] = AT,
    most: Sequence[int] = MOST,
) -> Findings:
    """What the lists hold among their first K, whatever was clicked:

    lists/full@K              the share of lists with K items or more (coverage)
    lists/duplicates@K        the share of a list's places that repeat an item which stands before
    lists/duplicates_NAME@K   the share that repeat a product of `products` which stands before
    lists/itself@K, lists/itself_NAME@K   the share of its places that hold the seed's own item, or product
    lists/leakage_NAME@K      the share of its places outside the seed's category of `categories`; unknown ones (below 0)
                              are not judged
    catalog/centrality@K_topM the share of all places that the M most recommended items take; M / n_items is its floor
    catalog/gini@K            how unequally places are spread over the catalog: 0 evenly, near 1 all on one item
    catalog/coverage@K        the share of the catalog that is in a list

    seed_item    int64 [rows]: the item that each list is for, for `itself` and `leakage`
    categories   by name, such as that of a level of the tree: int64 [n_items] codes
    products     by what makes items one product (catalog, duplicate component): int64 [n_items], items of one code are one

    Means are over lists, those without an item left out but for `full`, and drawn anew by list. What is said of the
    catalog is counted on all pages, not estimated from a draw of them: those figures have no interval.
    """
    _check(lists, n_items, at)
    categories, products = categories or {}, products or {}
    for name, codes, size in (
        *((name, codes, n_items) for name, codes in (*categories.items(), *products.items())),
        ("seed_item", seed_item, len(lists)),
    ):
        if codes is not None and np.shape(codes) != (size,):
            raise ShoplensError(f"{name} is of shape {np.shape(codes)}, where {size} codes are needed")
    if seed_item is not None and len(seed_item) and not 0 <= seed_item.min() <= seed_item.max() < n_items:
        raise ShoplensError(f"seed_item names items outside the {n_items} of the catalog: give the code of each seed")
    if categories and seed_item is None:
        raise ShoplensError("leakage needs to know which item each list is for: give seed_item")
    one = {"": np.arange(n_items)}
    one |= {f"_{name}": np.unique(codes, return_inverse=True)[1] for name, codes in products.items()}
    found = Findings()
    rows = np.arange(len(lists))
    for k in at:
        first = lists[:, :k]
        here = first >= 0
        found.add(f"lists/full@{k}", (here.sum(axis=1) == k).astype(np.float64), rows)
        for name, product in one.items():
            of_product = np.where(here, product[first], -1)
            share_of_places(found, f"lists/duplicates{name}@{k}", _repeats(of_product), here.sum(axis=1))
            if seed_item is not None:
                itself = here & (of_product == product[seed_item][:, None])
                share_of_places(found, f"lists/itself{name}@{k}", itself.sum(axis=1), here.sum(axis=1))
        for name, category in categories.items():
            assert seed_item is not None
            wanted, held = category[seed_item][:, None], category[first]
            judged = here & (wanted >= 0) & (held >= 0)
            outside = (judged & (wanted != held)).sum(axis=1)
            share_of_places(found, f"lists/leakage_{name}@{k}", outside, judged.sum(axis=1))
        _spread(found, np.bincount(first[here], minlength=n_items), k, len(lists), most)
    return found


def share_of_places(
    found: Findings, name: str, part: np.ndarray, whole: np.ndarray, *, lower_is_better: bool = True
) -> None:
    """Adds the mean over lists of `part` over `whole`, numbers of places [rows] both; lists of no place are left out."""
    rows = np.flatnonzero(whole)
    found.add(name, part[rows] / whole[rows], rows)
    if lower_is_better:
        found.lower_is_better.add(name)


def centrality_ratio(counts: np.ndarray, k: int) -> float:
    """The share of all recommendations that goes to the k most recommended items; `counts` [items]; nan for none."""
    k = min(k, len(counts))
    return (
        float(np.partition(counts, len(counts) - k)[len(counts) - k :].sum() / counts.sum()) if counts.any() else np.nan
    )


def gini(counts: np.ndarray) -> float:
    """Gini's coefficient of recommendations over the whole catalog, `counts` [items] with its zeros; nan for none.

    Half the mean absolute difference of two items' counts, relative to the mean count.
    """
    n = len(counts)
    return float((2 * np.arange(1, n + 1) - n - 1) @ np.sort(counts) / (n * counts.sum())) if counts.any() else np.nan


def agreement(
    lists: np.ndarray, others: np.ndarray, n_items: int, *, at: Sequence[int] = AT, persistence: float = PERSISTENCE
) -> Findings:
    """`agreement/match@K, rbo` of two systems' lists for the same rows, drawn anew by list.

    match   the number of items that both have among their first K, over K
    rbo     extrapolated rank-biased overlap with `persistence`; lists that are both empty are left out
    """
    if len(lists) != len(others):
        raise ShoplensError(
            f"{len(lists)} lists against {len(others)}: give both systems' for the same seeds in one order"
        )
    _check(lists, n_items, at)
    _check(others, n_items, at)
    found = Findings()
    common = overlap(lists, others)
    rows = np.arange(len(lists))
    length, other_length = ((one >= 0).sum(axis=1) for one in (lists, others))
    for k in at:
        by_chance = np.minimum(length, k) * np.minimum(other_length, k) / (n_items * k)
        found.add(f"agreement/match@{k}", common[:, k - 1] / k, rows, float(by_chance.mean()) if len(rows) else None)
    overlaps = rank_biased_overlap(lists, others, persistence)
    defined = ~np.isnan(overlaps)
    found.add("agreement/rbo", overlaps[defined], rows[defined])
    found.about["rbo"] = {"persistence": persistence, "both_empty": int((~defined).sum())}
    return found


def overlap(lists: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many different items are among the first d of both lists, int64 [rows, max(K, K')], column d - 1 for d."""
    n_items = int(max(lists.max(initial=0), others.max(initial=0))) + 1
    key, place = _first_places(lists, n_items)
    other_key, other_place = _first_places(others, n_items)
    both, ours, theirs = np.intersect1d(key, other_key, assume_unique=True, return_indices=True)
    width = max(lists.shape[1], others.shape[1])
    depth = np.maximum(place[ours], other_place[theirs])
    met = np.bincount(both // n_items * width + depth, minlength=len(lists) * width).reshape(len(lists), width)
    return np.cumsum(met, axis=1)


def rank_biased_overlap(lists: np.ndarray, others: np.ndarray, persistence: float = PERSISTENCE) -> np.ndarray:
    """RBO_EXT of each pair of lists, float64 [rows], 1 for equal ones; nan where both are empty, 0 where one is.

    Extrapolated: the agreement at the end of the lists is taken to go on (Webber, Moffat & Zobel 2010, eq. 32, for lists
    of unequal length). A truncated sum would give equal lists less than 1. With persistence 0.9 the first 3 places
    have half the weight, the first 20 all but 3 %. An item that stands twice counts at its first place.
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


def _check(lists: np.ndarray, n_items: int, at: Sequence[int]) -> None:
    if lists.ndim != 2 or lists.dtype.kind not in "iu":
        raise ShoplensError(
            f"lists are {lists.dtype} {lists.shape}: give integer item codes [rows, K], -1 after the last"
        )
    if lists.size and not -1 <= lists.min() <= lists.max() < n_items:
        raise ShoplensError(
            f"lists hold codes {lists.min()} to {lists.max()}: items are 0 to {n_items - 1}, and -1 ends a list"
        )
    if ((lists[:, :-1] < 0) & (lists[:, 1:] >= 0)).any():
        raise ShoplensError("a list goes on after -1: move its items to the front")
    if not at or min(at) < 1 or max(at) > lists.shape[1]:
        raise ShoplensError(
            f"K of {list(at)} asked of lists of {lists.shape[1]} places: choose from 1 to {lists.shape[1]}"
        )


def _parts(clicks: Clicks, popularity: np.ndarray | None, buckets: int) -> np.ndarray:
    """The part of each event's seed, int64 [e]: parts are cut where they hold equally many of the seeds clicked on."""
    if buckets < 1:
        raise ShoplensError(f"{buckets} parts by popularity: give 1 or more")
    if popularity is None:
        popularity = np.bincount(clicks.seed)
    elif clicks.seed.max() >= len(popularity):
        raise ShoplensError(
            f"popularity is known of {len(popularity)} seeds, but seed {clicks.seed.max()} was clicked on"
        )
    cuts = np.quantile(popularity[np.unique(clicks.seed)], np.arange(1, buckets) / buckets, method="inverted_cdf")
    return np.searchsorted(cuts, popularity[clicks.seed], side="left")


def _mean_by(values: np.ndarray, code: np.ndarray) -> float:
    """The mean over codes of the mean of each one's values."""
    return float((np.bincount(code, values) / np.bincount(code)).mean())


def _repeats(codes: np.ndarray) -> np.ndarray:
    """How many entries of each row repeat one before, int64 [rows]; those below 0 do not count."""
    ordered = np.sort(codes, axis=1)
    return ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).sum(axis=1)


def _spread(found: Findings, counts: np.ndarray, k: int, n_lists: int, most: Sequence[int]) -> None:
    places = int(counts.sum())
    figures = {f"centrality@{k}_top{top}": centrality_ratio(counts, top) for top in most if top <= len(counts)}
    figures[f"gini@{k}"] = gini(counts)
    found.lower_is_better |= {f"catalog/{name}" for name in figures}
    figures[f"coverage@{k}"] = float((counts > 0).mean()) if len(counts) else np.nan
    for name, value in figures.items():
        found.add_statistic(f"catalog/{name}", counted(value, places))
    found.about.setdefault("centrality", {}).update(
        {
            f"centrality@{k}_top{top}": {
                "k": top, "K": k, "seeds": n_lists, "places": places, "catalog": len(counts), "floor": top / len(counts)
            }
            for top in most if top <= len(counts)
        }
    )  # fmt: skip


def counted(value: float, n: int) -> Statistic:
    """A figure counted over all n units, not estimated from a draw of them: it has no interval."""
    return Statistic(value, n, np.zeros(1, np.int64), _undrawn)


def _undrawn(drawn: np.ndarray) -> np.ndarray:
    return np.full(len(drawn), np.nan)


def _first_places(lists: np.ndarray, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Each row's different items as row * n_items + item, ascending, and the column at which each stands first."""
    row, column = np.nonzero(lists >= 0)
    key, first = np.unique(row * n_items + lists[row, column], return_index=True)
    return key, column[first]

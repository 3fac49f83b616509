"""Product matching: find the other listings of a product, and decide whether two items are one product."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from shoplens.evaluation.embedded import MODALITIES, EmbeddedSplit, Modality
from shoplens.evaluation.metrics import (
    TIE,
    average_precision,
    chance_average_precision,
    chance_map_at_r,
    chance_recall,
    recall_at,
    wrong_before,
)
from shoplens.evaluation.ranking import Retrieval, members, rank
from shoplens.evaluation.results import Findings, MetricInfo
from shoplens.statistics.bootstrap import Statistic, between_scale, divide, totals

RECALLS = (1, 5, 10)
ITEMS_AT_MOST = 4000
"""All pairs of at most this many items are judged. Of a larger split, whole catalogs are drawn at random."""
_RUNS = 128
TITLE = "Product matching"
TITLES: dict[Modality, str] = {
    "image": "Product matching by photo",
    "text": "Product matching by text",
    "fused": "Product matching by photo and text",
}
METRIC_TITLES = {
    "map": "mAP",
    "map@r": "mAP@R",
    "hard_recall@1": "recall@1 within the category",
    "pair_ap": "AP of pairs",
    "hard_pair_ap": "AP of pairs within a category",
    "pair_f1": "F1 of pairs",
}
HEADLINE = "matching/image/recall@1"


def match(split: EmbeddedSplit, development: EmbeddedSplit | None = None) -> Findings:
    """`matching/{image,text,fused}/` recall@k, map, map@r, hard_recall@1, pair_ap, hard_pair_ap and pair_f1.

    `hard_` keeps only wrong items of the query's own category. `pair_` judges all pairs of items: same catalog or
    not. pair_f1 uses the threshold that is best on `development`; without `development` it is left out.
    """
    found = Findings()
    without_answer: dict[str, int] = {}
    for modality in MODALITIES:
        name, task = f"matching/{modality}", matching(split, modality)
        found.titles[name] = TITLES[modality]
        without_answer[name] = task.n_without_answer
        if not len(task):
            continue
        ranks = rank(task)
        for k in RECALLS:
            by_chance = chance_recall(k, ranks.n_right, ranks.n_gallery)
            _add(found, modality, f"recall@{k}", recall_at(k, ranks.first), task.group, by_chance)
        by_chance = chance_average_precision(ranks.n_right, ranks.n_gallery)
        _add(found, modality, "map", ranks.average_precision, task.group, by_chance)
        by_chance = chance_map_at_r(ranks.n_right, ranks.n_gallery)
        _add(found, modality, "map@r", ranks.map_at_r, task.group, by_chance)
        _hard(found, split, modality, task)
        _pairs(found, split, development, modality)
    found.about["queries_without_answer"] = without_answer
    return found


def _add(
    found: Findings, modality: Modality, metric: str, outcomes: np.ndarray, group: np.ndarray, by_chance: np.ndarray
) -> None:
    found.add(f"matching/{modality}/{metric}", outcomes, group, float(by_chance.mean()), _info(modality, metric))


def _info(modality: Modality, metric: str) -> MetricInfo:
    return MetricInfo(
        title=METRIC_TITLES.get(metric, metric),
        task_title=TITLE,
        modality=modality,
        headline=f"matching/{modality}/{metric}" == HEADLINE,
    )


@dataclass(frozen=True)
class Items:
    """Items to match: unit vectors [m, d], their product rows, catalogs and owners [m].

    Items of one `owner` are never matched with each other.
    """

    vectors: np.ndarray
    row: np.ndarray
    catalog: np.ndarray
    owner: np.ndarray


def items(split: EmbeddedSplit, modality: Modality) -> Items:
    """Photos (image, fused) or listings (text).

    `image`: in a catalog of several listings, each listing owns its photos, so photos match across sellers. In a
    catalog of one listing, each photo is its own owner, so the photos of that listing match. `fused`: a listing
    always owns its photos, because they share its text and would match by that text.
    """
    row = split.rows(modality)
    catalog = split.catalog_of_product
    owner = row
    if modality == "image":
        listings = np.bincount(catalog[np.unique(split.product)], minlength=int(catalog.max()) + 1)
        owner = np.where(listings[catalog[row]] == 1, len(split.texts) + np.arange(len(row)), row)
    return Items(split.vectors(modality), row, catalog[row], np.unique(owner, return_inverse=True)[1])


def matching(split: EmbeddedSplit, modality: Modality) -> Retrieval:
    """Each item is a query for the items of its catalog. Query and gallery item always have different owners."""
    ours = items(split, modality)
    mates = np.bincount(ours.catalog)[ours.catalog] - np.bincount(ours.owner)[ours.owner]
    asked = np.flatnonzero(mates > 0)
    return Retrieval(
        queries=ours.vectors[asked],
        query_row=asked,
        query_key=ours.catalog[asked],
        group=ours.catalog[asked],
        gallery=ours.vectors,
        gallery_row=np.arange(len(ours.vectors)),
        right=members(ours.catalog, int(ours.catalog.max()) + 1),
        query_owner=ours.owner[asked],
        left_out=members(ours.owner, int(ours.owner.max()) + 1),
        n_without_answer=len(ours.vectors) - len(asked),
    )


def _hard(found: Findings, split: EmbeddedSplit, modality: Modality, task: Retrieval) -> None:
    if split.category is None:
        return
    category = split.category[split.rows(modality)]
    asked = category[task.query_row]
    ranks = rank(replace(task, query_category=asked, gallery_category=category))
    hard = (asked >= 0) & (ranks.n_gallery > ranks.n_right)
    if hard.any():
        by_chance = chance_recall(1, ranks.n_right[hard], ranks.n_gallery[hard])
        _add(found, modality, "hard_recall@1", recall_at(1, ranks.first[hard]), task.group[hard], by_chance)


@dataclass(frozen=True)
class Pairs:
    """Pairs of items of different owners, each array [m].

    `score` is the inner product, `same` whether both are of one catalog, `a` and `b` the two catalogs,
    `same_category` whether both are of one category.
    """

    score: np.ndarray
    same: np.ndarray
    a: np.ndarray
    b: np.ndarray
    same_category: np.ndarray

    def of_one_category(self) -> Pairs:
        kept = self.same_category
        return Pairs(self.score[kept], self.same[kept], self.a[kept], self.b[kept], self.same_category[kept])


def pairs(split: EmbeddedSplit, modality: Modality) -> Pairs:
    """All pairs among at most `ITEMS_AT_MOST` items."""
    ours = items(split, modality)
    kept = np.flatnonzero(draw_catalogs(ours.catalog, ITEMS_AT_MOST))
    vectors, catalog, owner = ours.vectors[kept], ours.catalog[kept], ours.owner[kept]
    category = np.full(len(kept), -1) if split.category is None else split.category[ours.row[kept]]
    a, b = np.triu_indices(len(kept), k=1)
    apart = owner[a] != owner[b]
    a, b = a[apart], b[apart]
    return Pairs(
        score=(vectors @ vectors.T)[a, b],
        same=catalog[a] == catalog[b],
        a=catalog[a],
        b=catalog[b],
        same_category=(category[a] == category[b]) & (category[a] >= 0),
    )


def draw_catalogs(catalog: np.ndarray, at_most: int, seed: int = 0) -> np.ndarray:
    """bool [n]: items of whole catalogs, drawn at random until they would hold more than `at_most` items."""
    sizes = np.bincount(catalog)
    order = np.random.default_rng(seed).permutation(len(sizes))
    fits = order[np.cumsum(sizes[order]) <= at_most]
    return np.isin(catalog, fits if len(fits) else order[:1])


def best_threshold(score: np.ndarray, same: np.ndarray) -> float:
    """The threshold with the highest F1: pairs of at least this score count as the same. nan if no pair is the same.

    The threshold lies halfway to the next lower score, so that it does not depend on the last pair alone.
    """
    if not same.any():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    scores, hits = score[order], np.cumsum(same[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1])
    last_of_equal = np.append(scores[:-1] > scores[1:], True)
    best = int(np.argmax(np.where(last_of_equal, f1, -1)))
    return float(scores[best] + scores[min(best + 1, len(scores) - 1)]) / 2


def _pairs(found: Findings, split: EmbeddedSplit, development: EmbeddedSplit | None, modality: Modality) -> None:
    name = f"matching/{modality}"
    group = split.catalog_of_product
    ours = pairs(split, modality)
    for kind, some in (("pair_ap", ours), ("hard_pair_ap", ours.of_one_category())):
        n_same = int(some.same.sum())
        if 0 < n_same < len(some.same):
            by_chance = chance_average_precision(np.array([n_same]), np.array([len(some.same)]))[0]
            statistic = pair_average_precision(some, group)
            found.add_statistic(f"{name}/{kind}", statistic, float(by_chance), _info(modality, kind))
    if development is None:
        return
    theirs = pairs(development, modality)
    threshold = best_threshold(theirs.score, theirs.same)
    if not np.isnan(threshold) and ours.same.any():
        share = float(ours.same.mean())
        statistic = pair_f1(ours, threshold, group)
        found.add_statistic(f"{name}/pair_f1", statistic, 2 * share / (1 + share), _info(modality, "pair_f1"))
        found.about.setdefault("thresholds", {})[f"{name}/pair_f1"] = threshold


def pair_f1(pairs: Pairs, threshold: float, group: np.ndarray) -> Statistic:
    """F1 when pairs of at least `threshold` count as the same."""
    n_groups = int(group.max()) + 1
    said = pairs.score >= threshold
    right = totals(said & pairs.same, pairs.a, n_groups)
    same = totals(pairs.same, pairs.a, n_groups)
    wrong = _between(pairs, said & ~pairs.same, n_groups)

    def under(drawn: np.ndarray) -> np.ndarray:
        return divide(2 * drawn @ right, drawn @ right + _quadratic(wrong, drawn) + drawn @ same)

    return Statistic(float(under(np.ones((1, n_groups)))[0]), len(said), group, under)


def pair_average_precision(pairs: Pairs, group: np.ndarray) -> Statistic:
    """AP of all pairs by score. A tie counts against the model.

    Under a draw, a pair within a catalog has the weight of that catalog (how often it was drawn). A pair between two
    catalogs has the product of both weights. Right pairs are grouped into up to `_RUNS` runs of neighbouring
    scores; the wrong pairs of one run are weighted together.
    """
    n_groups = int(group.max()) + 1
    order = np.argsort(-pairs.score[pairs.same], kind="stable")
    right = pairs.score[pairs.same][order]
    n_runs = min(len(right), _RUNS)
    run_of_right = np.arange(len(right)) * n_runs // len(right)
    right_by_group = np.stack(
        [totals(run_of_right == run, pairs.a[pairs.same][order], n_groups) for run in range(n_runs)], axis=1
    )
    wrong = np.flatnonzero(~pairs.same)
    bars = (right - np.asarray(TIE, right.dtype))[::-1]
    first = len(right) - np.searchsorted(bars, pairs.score[wrong], side="right")
    wrong, first = wrong[first < len(right)], first[first < len(right)]
    run_of_wrong = run_of_right[first]
    ends = np.searchsorted(run_of_right, np.arange(n_runs), side="right")
    inside = (ends[run_of_wrong] - first) / np.bincount(run_of_right)[run_of_wrong]
    inside_run = divide(np.bincount(run_of_wrong, inside, n_runs), np.bincount(run_of_wrong, minlength=n_runs))
    between = [_between(pairs, wrong[run_of_wrong == run], n_groups) for run in range(n_runs)]

    def under(drawn: np.ndarray) -> np.ndarray:
        hits = drawn @ right_by_group
        misses = np.stack([_quadratic(one, drawn) for one in between], axis=1)
        place = np.cumsum(hits, axis=1) - hits + (hits + 1) / 2
        before = np.cumsum(misses, axis=1) - misses + np.nan_to_num(inside_run) * misses
        return divide((hits * place / (place + before)).sum(axis=1), hits.sum(axis=1))

    value = average_precision(wrong_before(right, np.sort(pairs.score[~pairs.same])))
    return Statistic(value, len(pairs.score), group, under)


def _between(pairs: Pairs, which: np.ndarray, n_groups: int) -> sparse.csr_array:
    """[n_groups, n_groups]: counts of the pairs `which` by their two catalogs."""
    a, b = pairs.a[which], pairs.b[which]
    return sparse.csr_array((np.ones(len(a), np.float32), (a, b)), shape=(n_groups, n_groups))


def _quadratic(between: sparse.csr_array, drawn: np.ndarray) -> np.ndarray:
    """Weighted number of pairs under each draw, [r]."""
    if not between.nnz:
        return np.zeros(len(drawn))
    rows = np.flatnonzero(np.diff(between.indptr))
    return np.einsum("ra,ar->r", drawn[:, rows], between[rows] @ drawn.T) * between_scale(drawn)

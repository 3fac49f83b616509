"""Metrics of the content of lists: duplicates, leakage between categories, concentration on few items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from shoplens.errors import ShoplensError
from shoplens.evaluation.results import Findings
from shoplens.search.lists.item_codes import AT, check_lists
from shoplens.statistics.bootstrap import Statistic

MOST = (10, 100)


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
    """Metrics of the first K places of the lists; clicks do not matter.

    lists/full@K              share of lists with K items or more (coverage)
    lists/duplicates@K        share of a list's places that repeat an earlier item
    lists/duplicates_NAME@K   share that repeat an earlier product of the grouping NAME in `products`
    lists/itself@K, lists/itself_NAME@K   share of a list's places that hold the seed's own item, or product
    lists/leakage_NAME@K      share of a list's places outside the seed's category of `categories`; places of unknown
                              category (below 0) do not count
    catalog/centrality@K_topM share of all places that the M most recommended items take; its floor is M / n_items
    catalog/gini@K            inequality of the items' places: 0 if equal, near 1 if one item takes all
    catalog/coverage@K        share of the items that are in a list

    seed_item    int64 [rows]: the item of each list's seed, needed for `itself` and `leakage`
    categories   by name, such as a level of the tree: int64 [n_items] codes
    products     by the name of a grouping (catalog, photo group): int64 [n_items], items of one code are one product

    Metrics `lists/...` are means over lists, with a bootstrap over lists; empty lists count for `full` only. Metrics
    `catalog/...` are counts over all pages, not estimates from a sample, so they have no interval.
    """
    check_lists(lists, n_items, at)
    categories, products = categories or {}, products or {}
    for name, codes, size in (
        *((name, codes, n_items) for name, codes in (*categories.items(), *products.items())),
        ("seed_item", seed_item, len(lists)),
    ):
        if codes is not None and np.shape(codes) != (size,):
            raise ShoplensError(f"{name} is of shape {np.shape(codes)}, where {size} codes are needed: give one each")
    if seed_item is not None and len(seed_item) and not 0 <= seed_item.min() <= seed_item.max() < n_items:
        raise ShoplensError(f"seed_item names items outside the {n_items} of the catalog: give the code of each seed")
    if categories and seed_item is None:
        raise ShoplensError("leakage needs to know which item each list is for: give seed_item")
    groupings = {"": np.arange(n_items)}
    groupings |= {f"_{name}": np.unique(codes, return_inverse=True)[1] for name, codes in products.items()}
    findings = Findings()
    rows = np.arange(len(lists))
    for k in at:
        first = lists[:, :k]
        here = first >= 0
        findings.add(f"lists/full@{k}", (here.sum(axis=1) == k).astype(np.float64), rows)
        for name, product in groupings.items():
            of_product = np.where(here, product[first], -1)
            share_of_places(findings, f"lists/duplicates{name}@{k}", _repeats(of_product), here.sum(axis=1))
            if seed_item is not None:
                itself = here & (of_product == product[seed_item][:, None])
                share_of_places(findings, f"lists/itself{name}@{k}", itself.sum(axis=1), here.sum(axis=1))
        for name, category in categories.items():
            assert seed_item is not None
            wanted, held = category[seed_item][:, None], category[first]
            judged = here & (wanted >= 0) & (held >= 0)
            outside = (judged & (wanted != held)).sum(axis=1)
            share_of_places(findings, f"lists/leakage_{name}@{k}", outside, judged.sum(axis=1))
        _concentration(findings, np.bincount(first[here], minlength=n_items), k, len(lists), most)
    return findings


def share_of_places(
    findings: Findings, name: str, part: np.ndarray, whole: np.ndarray, *, lower_is_better: bool = True
) -> None:
    """Adds the mean over lists of `part` / `whole`, both numbers of places [rows]; lists with `whole` 0 are left out."""
    rows = np.flatnonzero(whole)
    findings.add(name, part[rows] / whole[rows], rows)
    if lower_is_better:
        findings.lower_is_better.add(name)


def centrality_ratio(counts: np.ndarray, k: int) -> float:
    """The share of all recommendations that the k most recommended items get; `counts` [items]; NaN without any."""
    k = min(k, len(counts))
    return (
        float(np.partition(counts, len(counts) - k)[len(counts) - k :].sum() / counts.sum()) if counts.any() else np.nan
    )


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of recommendations over all items, `counts` [items] with zeros; NaN without any.

    It is half the mean absolute difference of two items' counts, relative to the mean count.
    """
    n = len(counts)
    return float((2 * np.arange(1, n + 1) - n - 1) @ np.sort(counts) / (n * counts.sum())) if counts.any() else np.nan


def _repeats(codes: np.ndarray) -> np.ndarray:
    """int64 [rows]: number of entries that repeat an earlier entry of their row; entries below 0 do not count."""
    ordered = np.sort(codes, axis=1)
    return ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).sum(axis=1)


def _concentration(findings: Findings, counts: np.ndarray, k: int, n_lists: int, most: Sequence[int]) -> None:
    places = int(counts.sum())
    values = {f"centrality@{k}_top{top}": centrality_ratio(counts, top) for top in most if top <= len(counts)}
    values[f"gini@{k}"] = gini(counts)
    findings.lower_is_better |= {f"catalog/{name}" for name in values}
    values[f"coverage@{k}"] = float((counts > 0).mean()) if len(counts) else np.nan
    for name, value in values.items():
        findings.add_statistic(f"catalog/{name}", counted(value, places))
    findings.about.setdefault("centrality", {}).update(
        {
            f"centrality@{k}_top{top}": {
                "k": top, "K": k, "seeds": n_lists, "places": places, "catalog": len(counts), "floor": top / len(counts)
            }
            for top in most if top <= len(counts)
        }
    )  # fmt: skip


def counted(value: float, n: int) -> Statistic:
    """A value counted over all n units. It is no estimate from a sample, so it has no interval."""
    return Statistic(value, n, np.zeros(1, np.int64), _undrawn)


def _undrawn(drawn: np.ndarray) -> np.ndarray:
    return np.full(len(drawn), np.nan)

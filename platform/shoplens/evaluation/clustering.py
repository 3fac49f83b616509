"""Product clustering: put every offer of a split into a cluster, so that one cluster is one catalog.

There are two ways. Both cut at one cosine similarity, which is chosen on another split: connected components of the
graph of all pairs above the cut (single linkage), and agglomeration by average similarity. Offers that are alone in
their catalog take part, because a good clustering keeps them alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.metrics.cluster import expected_mutual_information

from shoplens.evaluation.embedded import MODALITIES, MODALITY_TITLES, EmbeddedSplit, Modality, fuse
from shoplens.evaluation.matching import ITEMS_AT_MOST, draw_catalogs
from shoplens.evaluation.results import Findings, MetricInfo
from shoplens.statistics.bootstrap import Statistic, between_scale, divide

LINKAGES = {"components": "single", "agglomerative": "average"}
CUTS = 200
"""Merges of the development split that are tried as the cut."""
TITLE = "Product clustering"
METRIC_TITLES = {"pairwise_f1": "pairwise F1", "b_cubed_f1": "B-cubed F1", "ari": "ARI", "ami": "AMI"}


@dataclass(frozen=True)
class Offers:
    """Offers to cluster: unit vectors [m, d] and the true catalog codes [m]. `unit` is "photos" or "listings"."""

    vectors: np.ndarray
    catalog: np.ndarray
    unit: str


def cluster(split: EmbeddedSplit, development: EmbeddedSplit) -> Findings:
    """`clustering/{image,text,fused}/{components,agglomerative}_` pairwise_f1, b_cubed_f1, ari and ami.

    A modality is left out if `development` has no two offers of one catalog: no cut can be chosen then.
    """
    found = Findings()
    group = split.catalog_of_product
    for modality in MODALITIES:
        ours, theirs = offers(split, modality), offers(development, modality)
        if ours is None or theirs is None or not _has_pairs(ours) or not _has_pairs(theirs):
            continue
        for way, method in LINKAGES.items():
            cut = best_cut(theirs, method)
            name = f"clustering/{modality}/{way}"
            labels = fcluster(_tree(ours.vectors, method), 1 - cut, "distance") - 1
            for metric, (statistic, by_chance) in _scores(ours.catalog, labels, group).items():
                info = MetricInfo(title=f"{METRIC_TITLES[metric]}, {way}", task_title=TITLE, modality=modality)
                found.add_statistic(f"{name}_{metric}", statistic, by_chance, info)
            found.titles[name] = f"{TITLE}, {MODALITY_TITLES[modality]}, {way}"
            found.about.setdefault("thresholds", {})[name] = cut
            sizes = np.bincount(labels)
            found.about.setdefault("clusters", {})[name] = {
                "unit": ours.unit,
                "items": len(labels),
                "clusters": len(sizes),
                "alone": int((sizes == 1).sum()),
                "catalogs": len(np.unique(ours.catalog)),
                "alone_in_catalog": int((np.bincount(ours.catalog) == 1).sum()),
            }
    return found


def offers(split: EmbeddedSplit, modality: Modality) -> Offers | None:
    """One vector for each listing; a listing's photo vector is the normalised sum of its photos.

    If no catalog has several listings, the offers are single photos. Photos of one listing share its text, so there is
    nothing to cluster by text or fused then: the result is None.
    """
    catalog = split.catalog_of_product
    if np.bincount(catalog).max() == 1:
        if modality != "image":
            return None
        vectors, catalog, unit = split.images, catalog[split.product], "photos"
    else:
        photos = np.zeros_like(split.text_vectors)
        np.add.at(photos, split.product, split.images)
        photos = fuse(photos, np.zeros_like(photos))
        vectors = {"image": photos, "text": split.text_vectors, "fused": fuse(photos, split.text_vectors)}[modality]
        unit = "listings"
    kept = draw_catalogs(catalog, ITEMS_AT_MOST)
    return Offers(vectors[kept], catalog[kept], unit)


def best_cut(offers: Offers, method: str) -> float:
    """The cosine similarity whose cut has the highest B-cubed F1. It lies halfway between two merges."""
    tree = _tree(offers.vectors, method)
    heights = np.unique(tree[:, 2])
    middles = np.concatenate([[heights[0] / 2], (heights[:-1] + heights[1:]) / 2, [heights[-1] + 1e-6]])
    tried = middles[np.unique(np.linspace(0, len(middles) - 1, CUTS).astype(int))]
    f1 = [b_cubed_f1(offers.catalog, fcluster(tree, cut, "distance") - 1) for cut in tried]
    return float(1 - tried[int(np.argmax(f1))])


def b_cubed_f1(catalog: np.ndarray, labels: np.ndarray) -> float:
    """Harmonic mean of B-cubed precision and recall (Bagga & Baldwin 1998; Amigó et al. 2009)."""
    counts = _contingency(catalog, labels, int(catalog.max()) + 1)
    return float(_b_cubed(counts)(np.ones((1, counts.shape[0])))[0])


def _has_pairs(offers: Offers) -> bool:
    return bool(np.bincount(offers.catalog).max() > 1)


def _tree(vectors: np.ndarray, method: str) -> np.ndarray:
    distance = np.clip(1 - vectors.astype(np.float64) @ vectors.T, 0, 2)
    np.fill_diagonal(distance, 0)
    return linkage(squareform(distance, checks=False), method)


def _contingency(catalog: np.ndarray, labels: np.ndarray, n_catalogs: int) -> sparse.csr_array:
    """[n_catalogs, clusters]: number of offers of each catalog in each cluster."""
    ones = np.ones(len(labels))
    counts = sparse.csr_array((ones, (catalog, labels)), shape=(n_catalogs, int(labels.max()) + 1))
    counts.sum_duplicates()
    return counts


def _scores(catalog: np.ndarray, labels: np.ndarray, group: np.ndarray) -> dict[str, tuple[Statistic, float]]:
    """Metric name -> (statistic, chance).

    Chance is one cluster for all offers (pairwise F1), every offer alone (B-cubed), and 0 for the adjusted scores.
    """
    counts = _contingency(catalog, labels, int(group.max()) + 1)
    pair_f1, rand = _pair_scores(counts)
    in_one = _contingency(catalog, np.zeros_like(labels), counts.shape[0])
    one = np.ones((1, counts.shape[0]))

    def statistic(under: Callable[[np.ndarray], np.ndarray]) -> Statistic:
        return Statistic(float(under(one)[0]), len(labels), group, under)

    return {
        "pairwise_f1": (statistic(pair_f1), float(_pair_scores(in_one)[0](one)[0])),
        "b_cubed_f1": (statistic(_b_cubed(counts)), b_cubed_f1(catalog, np.arange(len(catalog)))),
        "ari": (statistic(rand), 0.0),
        "ami": (statistic(_adjusted_mutual_information(counts)), 0.0),
    }


Under = Callable[[np.ndarray], np.ndarray]
"""Maps how often each catalog was drawn [r, n_catalogs] to the figure [r]."""


def _pair_scores(counts: sparse.csr_array) -> tuple[Under, Under]:
    """Pairwise F1 and the adjusted Rand index, both from counts of pairs.

    A catalog drawn twice stands for two different products. Pairs between the two are not judged.
    """
    sizes = counts.sum(axis=1)
    squares = counts.power(2)

    def pairs(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        both = drawn @ (squares.sum(axis=1) - sizes) / 2
        true = drawn @ (sizes * (sizes - 1)) / 2
        scale = between_scale(drawn) / 2
        between = scale * ((drawn @ counts) ** 2 - drawn**2 @ squares).sum(axis=1)
        every = true + scale * ((drawn @ sizes) ** 2 - drawn**2 @ sizes**2)
        return both, true, both + between, every

    def f1(drawn: np.ndarray) -> np.ndarray:
        both, true, said, _ = pairs(drawn)
        return divide(2 * both, true + said)

    def rand(drawn: np.ndarray) -> np.ndarray:
        both, true, said, every = pairs(drawn)
        by_chance = divide(true * said, every)
        return divide(both - by_chance, (true + said) / 2 - by_chance)

    return f1, rand


def _b_cubed(counts: sparse.csr_array) -> Under:
    catalog, label = counts.nonzero()
    here, sizes = counts.data, counts.sum(axis=1)

    def under(drawn: np.ndarray) -> np.ndarray:
        weight, n = drawn[:, catalog], drawn @ sizes
        precision = divide((weight * here**2 / _cluster_sizes(counts, drawn)).sum(axis=1), n)
        recall = divide(weight @ (here**2 / sizes[catalog]), n)
        return divide(2 * precision * recall, precision + recall)

    return under


def _adjusted_mutual_information(counts: sparse.csr_array) -> Under:
    """AMI with the arithmetic mean of the entropies (Vinh et al. 2010). Each term is a mean over offers.

    The expected information by chance is not drawn anew, because a catalog drawn twice is not a larger catalog.
    """
    catalog, label = counts.nonzero()
    here, sizes, n = counts.data, counts.sum(axis=1), counts.sum()
    present = sparse.csr_matrix(counts[sizes > 0].astype(np.int64))
    expected = expected_mutual_information(present, int(n))

    def under(drawn: np.ndarray) -> np.ndarray:
        share = drawn[:, catalog] * here / (drawn @ sizes)[:, None]
        log_cluster = np.log(_cluster_sizes(counts, drawn) / n)
        log_catalog = np.log(sizes[catalog] / n)
        information = (share * (np.log(here / n) - log_catalog - log_cluster)).sum(axis=1)
        entropy = -(share * (log_catalog + log_cluster)).sum(axis=1) / 2
        return divide(information - expected, entropy - expected)

    return under


def _cluster_sizes(counts: sparse.csr_array, drawn: np.ndarray) -> np.ndarray:
    """Size of the cluster around the offers of each nonzero of `counts`, [r, nonzeros].

    The offers' own catalog counts once, even if it was drawn several times: its draws are different products.
    """
    catalog, label = counts.nonzero()
    others = (drawn @ counts)[:, label] - drawn[:, catalog] * counts.data
    return others * between_scale(drawn)[:, None] + counts.data

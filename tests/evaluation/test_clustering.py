from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, f1_score

from shoplens.evaluation import clustering
from shoplens.evaluation.clustering import b_cubed_f1, best_cut, cluster, offers
from shoplens.evaluation.embedded import EmbeddedSplit
from shoplens.evaluation.matching import best_threshold, match, pair_average_precision, pair_f1, pairs
from shoplens.statistics.bootstrap import Statistic, draw, interval_of_draws
from tests.evaluation.splits import random_split, unit

grouped = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=25)


def _dense(codes: np.ndarray) -> np.ndarray:
    return np.unique(codes, return_inverse=True)[1]


def _b_cubed_by_definition(catalog: np.ndarray, labels: np.ndarray) -> float:
    """Bagga & Baldwin: each item's precision and recall over its own cluster and class, itself among them."""
    precision = np.mean([np.mean(catalog[labels == labels[i]] == catalog[i]) for i in range(len(labels))])
    recall = np.mean([np.mean(labels[catalog == catalog[i]] == labels[i]) for i in range(len(labels))])
    return float(2 * precision * recall / (precision + recall))


@settings(max_examples=40, deadline=None)
@given(grouped=grouped)
def test_the_scores_are_their_definitions(grouped: list[tuple[int, int]]) -> None:
    catalog, labels = (_dense(np.array(part)) for part in zip(*grouped, strict=True))
    scores = {name: one.value for name, (one, _) in clustering._scores(catalog, labels, catalog).items()}
    together = [(catalog[i] == catalog[j], labels[i] == labels[j]) for i, j in combinations(range(len(catalog)), 2)]
    true, said = (np.array(part) for part in zip(*together, strict=True))
    if true.any() or said.any():
        assert scores["pairwise_f1"] == pytest.approx(f1_score(true, said))
    else:
        assert np.isnan(scores["pairwise_f1"])
    assert scores["b_cubed_f1"] == pytest.approx(_b_cubed_by_definition(catalog, labels))
    if not np.isnan(scores["ari"]):
        assert scores["ari"] == pytest.approx(adjusted_rand_score(catalog, labels))
    if np.isfinite(scores["ami"]):
        assert scores["ami"] == pytest.approx(adjusted_mutual_info_score(catalog, labels), abs=1e-6)


def test_b_cubed_of_the_textbook() -> None:
    """Amigó et al. 2009: putting what is left into one rag bag beats spoiling a clean cluster."""
    catalog = np.array([0, 0, 0, 0, 1, 2, 3, 4])
    clean_spoilt = b_cubed_f1(catalog, np.array([0, 0, 0, 0, 0, 1, 1, 1]))
    bag_grown = b_cubed_f1(catalog, np.array([0, 0, 0, 0, 1, 1, 1, 1]))
    assert bag_grown > clean_spoilt
    assert bag_grown == pytest.approx(2 * 0.625 / 1.625)


def test_perfect_clusters_stay_perfect_under_every_draw() -> None:
    catalog = np.repeat(np.arange(20), np.arange(20) % 4 + 1)
    for name, (one, _) in clustering._scores(catalog, catalog, catalog).items():
        assert one.value == pytest.approx(1), name
        np.testing.assert_allclose(draw(one, resamples=50), 1, atol=1e-9, err_msg=name)


def test_components_are_the_threshold_graph_and_agglomeration_is_sklearns() -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(60, 4)))
    cosine = vectors.astype(np.float64) @ vectors.T
    for cut in (0.5, 0.8, 0.95):
        single = fcluster(clustering._tree(vectors, "single"), 1 - cut, "distance")
        graph = connected_components(cosine >= cut)[1]
        assert adjusted_rand_score(single, graph) == 1
        average = fcluster(clustering._tree(vectors, "average"), 1 - cut, "distance")
        model = AgglomerativeClustering(
            n_clusters=None, metric="precomputed", linkage="average", distance_threshold=1 - cut
        )
        assert adjusted_rand_score(average, model.fit_predict(np.clip(1 - cosine, 0, 2))) == 1


def _shop(seed: int, n_catalogs: int, noise: float) -> EmbeddedSplit:
    """Catalogs of 1, 2, 3 or 6 listings, some easier than others."""
    rng = np.random.default_rng(seed)
    sizes = rng.choice([1, 2, 3, 6], n_catalogs, p=[0.3, 0.3, 0.3, 0.1])
    catalog, ease = np.repeat(np.arange(n_catalogs), sizes), rng.uniform(0.3, 1, n_catalogs)
    center = rng.normal(size=(n_catalogs, 8))[catalog]
    vectors = unit(center + noise * ease[catalog][:, None] * rng.normal(size=(len(catalog), 8)))
    rows = np.arange(len(catalog))
    return EmbeddedSplit(
        images=vectors,
        samples=rows,
        product=rows,
        texts=[str(row) for row in rows],
        text_vectors=vectors,
        catalog=catalog,
    )


def test_what_is_easy_is_solved_with_a_cut_from_elsewhere() -> None:
    found = cluster(_shop(1, 40, 0.05), _shop(2, 40, 0.05))
    for way in ("components", "agglomerative"):
        for metric in ("pairwise_f1", "b_cubed_f1", "ari", "ami"):
            assert found.statistics[f"clustering/fused/{way}_{metric}"].value == pytest.approx(1)
    told = found.about["clusters"]["clustering/text/components"]
    assert told["clusters"] == told["catalogs"] == 40
    assert told["alone"] == told["alone_in_catalog"] > 5, "those that are alone are kept"


def test_random_vectors_are_at_chance() -> None:
    rng = np.random.default_rng(3)
    split, other = (
        replace(shop, text_vectors=unit(rng.normal(size=shop.images.shape)))
        for shop in (_shop(5, 40, 1), _shop(6, 40, 1))
    )
    evaluation = cluster(split, other).evaluation()
    for way in ("components", "agglomerative"):
        for metric in ("ari", "ami"):
            assert evaluation.metrics[f"clustering/text/{way}_{metric}"].value == pytest.approx(0, abs=0.08)


@pytest.mark.parametrize("method", ["single", "average"])
def test_the_best_cut_is_the_best_of_all(method: str) -> None:
    split = _shop(8, 25, 0.8)
    ours = offers(split, "text")
    assert ours is not None
    tree = clustering._tree(ours.vectors, method)
    every = [b_cubed_f1(ours.catalog, fcluster(tree, cut, "distance") - 1) for cut in [0, *(tree[:, 2] + 1e-9)]]
    cut = best_cut(ours, method)
    assert b_cubed_f1(ours.catalog, fcluster(tree, 1 - cut, "distance") - 1) == pytest.approx(max(every))


def test_cuts_and_thresholds_come_from_the_other_split() -> None:
    judged, other = _shop(11, 25, 0.4), _shop(12, 25, 0.9)
    cuts = cluster(judged, other).about["thresholds"]
    ours, theirs = offers(judged, "text"), offers(other, "text")
    assert ours is not None and theirs is not None
    for way, method in clustering.LINKAGES.items():
        assert cuts[f"clustering/text/{way}"] == best_cut(theirs, method) != best_cut(ours, method)
    thresholds = match(judged, other).about["thresholds"]
    of_pairs = pairs(other, "text")
    assert thresholds["matching/text/pair_f1"] == best_threshold(of_pairs.score, of_pairs.same)


def test_without_pairs_there_is_nothing_to_judge_or_to_choose_by() -> None:
    alone = replace(_shop(1, 12, 0.5), catalog=np.arange(len(_shop(1, 12, 0.5).texts)))
    assert not cluster(alone, _shop(2, 12, 0.5)).statistics
    assert not cluster(_shop(2, 12, 0.5), alone).statistics


def test_photos_are_clustered_where_every_catalog_is_one_listing() -> None:
    split = random_split(0, 10, 40, 5)
    split = replace(split, catalog=np.arange(10))
    ours = offers(split, "image")
    assert ours is not None and ours.unit == "photos" and len(ours.vectors) == 40
    assert offers(split, "text") is None and offers(split, "fused") is None


def test_a_listing_is_the_mean_of_its_photos() -> None:
    split = random_split(2, 6, 20, 2)
    split = replace(split, catalog=np.array([0, 0, 1, 1, 2, 2]))
    ours = offers(split, "image")
    assert ours is not None and ours.unit == "listings"
    for row in np.unique(split.product):
        total = split.images[split.product == row].sum(axis=0)
        np.testing.assert_allclose(ours.vectors[row], total / np.linalg.norm(total), atol=1e-6)


def test_one_catalog_gives_figures_without_intervals() -> None:
    split = replace(_shop(1, 30, 0.5), catalog=np.zeros(len(_shop(1, 30, 0.5).texts), int))
    evaluation = cluster(split, _shop(2, 30, 0.5)).evaluation()
    metric = evaluation.metrics["clustering/text/components_b_cubed_f1"]
    assert 0 < metric.value <= 1 and np.isnan(metric.low)


def test_intervals_hold_what_other_shops_give_as_often_as_they_say() -> None:
    """Figures of many shops of one make scatter around their mean; each shop's interval should hold that mean."""
    runs, seen = 100, {}  # type: ignore[var-annotated]
    for seed in range(runs):
        split = _shop(seed, 60, 0.9)
        group = split.catalog_of_product
        labels = fcluster(clustering._tree(split.text_vectors, "average"), 0.35, "distance") - 1
        statistics: dict[str, Statistic] = {k: one for k, (one, _) in clustering._scores(group, labels, group).items()}
        statistics["pair_f1"] = pair_f1(pairs(split, "text"), 0.75, group)
        if seed < 60:
            statistics["pair_ap"] = pair_average_precision(pairs(split, "text"), group)
        for name, one in statistics.items():
            seen.setdefault(name, []).append((one.value, *interval_of_draws(draw(one, seed, resamples=200), 60)))
    for name, rows in seen.items():
        value, low, high = np.array(rows).T
        covered = ((low <= value.mean()) & (value.mean() <= high)).mean()
        assert 0.88 <= covered <= 1, (name, covered)
        assert 0.7 < (high - low).mean() / (4 * value.std()) < 1.5, name

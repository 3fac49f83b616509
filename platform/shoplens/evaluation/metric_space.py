"""Retrieval in a learnt metric space: by class, at several widths, reduced by principal components, and in the ball."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.decomposition import PCA

from shoplens.datasets.format import Dataset
from shoplens.evaluation.class_retrieval import class_retrieval
from shoplens.evaluation.metrics import chance_recall, recall_at
from shoplens.evaluation.ranking import Answers, Retrieval, nearest, rank
from shoplens.evaluation.report import Card, Case, Showcase, thumbnail
from shoplens.evaluation.results import Evaluation, Findings, MetricInfo
from shoplens.objectives import hyperbolic
from shoplens.objectives.metric_learning import MetricConfig

RECALLS = (1, 10)


def judge(
    rows: np.ndarray,
    label: np.ndarray,
    objective: MetricConfig,
    widths: Sequence[int],
    served: int,
    others: np.ndarray,
) -> Findings:
    """Recall@1 and @10 of the head's rows [n, d] by class int64 [n] (negative: no class), for each ranking:

    similar            by cosine at the `served` width, as index and endpoints rank
    similar/first_64   by cosine of the first 64 numbers, for each of the other `widths`
    similar/pca_64     by cosine of 64 principal components, fitted on `others` [m, d]
    similar/ball       by distance in the ball at the served width, if the objective is hyperbolic

    The intervals resample whole classes. `about` holds the distance of the rows from a tree
    (`hyperbolic.relative_delta`) and the share of rows that the clip radius shortens.
    """
    found, full = Findings(), unit_rows(rows)
    tasks = {"similar": class_retrieval(unit_rows(rows[:, :served]), label)}
    for width in widths:
        if width != served:
            tasks[f"similar/first_{width}"] = class_retrieval(unit_rows(rows[:, :width]), label)
        if width < rows.shape[1] and width <= len(others):
            components = PCA(width, svd_solver="full").fit(unit_rows(others))
            tasks[f"similar/pca_{width}"] = class_retrieval(unit_rows(components.transform(full)), label)
    if objective.kind == "hyperbolic":
        tangent = torch.tensor(rows[:, :served], dtype=torch.float64)
        points = hyperbolic.to_ball(tangent, objective.curvature, objective.clip_radius)
        lifted = [
            lift(points, objective.curvature).numpy() for lift in (hyperbolic.lift_queries, hyperbolic.lift_items)
        ]
        tasks["similar/ball"] = class_retrieval(lifted[0], label, lifted[1])
        clipped = hyperbolic.clipped_share(tangent, objective.curvature, objective.clip_radius)
        found.about["clipped_share"] = round(float(clipped), 4)
    found.about["relative_delta"] = round(hyperbolic.relative_delta(torch.tensor(rows[:, :served])), 4)
    found.about["queries_without_answer"] = {"similar": tasks["similar"].n_without_answer}
    found.titles["similar"] = _title("similar")
    for name, task in tasks.items():
        ranks = rank(task)
        for k in RECALLS:
            chance = float(chance_recall(k, ranks.n_right, ranks.n_gallery).mean())
            info = MetricInfo(title=f"recall@{k}", task_title=_title(name), headline=name == "similar")
            found.add(f"{name}/recall@{k}", recall_at(k, ranks.first), task.group, chance, info)
    return found


def _title(name: str) -> str:
    """`similar/first_64` -> `Similar photos, first 64 numbers`."""
    kind, _, width = name.partition("/")[2].partition("_")
    more = {
        "first": f", first {width} numbers",
        "pca": f", {width} principal components",
        "ball": ", by distance in the ball",
    }
    return f"Similar photos{more.get(kind, ', as served')}"


def shown(task: Retrieval, evaluation: Evaluation, photos: np.ndarray, dataset: Dataset, n: int = 4) -> Showcase:
    """Query photos of different classes with their nearest photos: `n` hits, then `n` misses."""
    titles = dataset.products["title"].to_pylist()

    def card(place: int, right: bool | None = None, score: float | None = None) -> Card:
        sample = int(photos[place])
        title = titles[int(dataset.product_row[sample])]
        return Card(title, thumbnail(dataset.read_image(sample)), right, score)

    def case(found: Answers) -> Case:
        answers = zip(found.items, found.right, found.scores, strict=True)
        cards = [card(int(item), bool(right), float(score)) for item, right, score in answers]
        missed = card(found.best_right, True) if found.best_right_rank > len(cards) else None
        return Case(card(int(task.query_row[found.query])), cards, missed, found.best_right_rank)

    first = evaluation.outcomes["similar/recall@1"]
    order = np.random.default_rng(0).permutation(len(first))
    cases = []
    for hit in (1.0, 0.0):
        asked = order[first[order] == hit]
        asked = asked[np.sort(np.unique(task.group[asked], return_index=True)[1])][:n]
        cases.append([case(found) for found in nearest(task, asked, 6)])
    return Showcase("Similar photos", "A photo, and the photos nearest to it among all others of the split.", *cases)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """float32 rows [n, d] at unit length; 0 stays 0."""
    wide = rows.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.maximum(length, 1e-12), dtype=np.float32)

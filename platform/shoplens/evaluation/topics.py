"""Ranking of photos for topics, and retrieval between topics and photos.

Items of equal score are in random order, and so are products that were liked equally. Each figure is the expectation
over both orders. So a model that scores all items alike has exactly the figure of chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from shoplens.errors import ShoplensError
from shoplens.evaluation.metrics import TIE, chance_recall, recall_at
from shoplens.evaluation.ranking import Retrieval, rank
from shoplens.evaluation.results import Findings, MetricInfo

TOPS = (1, 3, 5)
NDCG_AT = (5, 10)
RECALLS = (1, 5, 10)
TITLES = {
    "ranking": "Photos ranked for a topic",
    "topic_to_image": "Topic finds photos",
    "image_to_topic": "Photo finds topics",
}
METRIC_TITLES = {
    "mrr": "MRR",
    **{f"top{top}_top1": f"Top{top}-Top1" for top in TOPS},
    **{f"best_in_{top}": f"best liked photo in the top-{top}" for top in TOPS},
    **{f"ndcg@{k}": f"NDCG@{k}" for k in NDCG_AT},
}
HEADLINES = ("ranking/ndcg@10", "topic_to_image/mrr")


@dataclass(frozen=True)
class CandidateList:
    """The candidates of one topic: its row `topic`, places in the gallery of photos `items` [n], and how much shoppers
    liked each item `liked` [n]."""

    topic: int
    items: np.ndarray
    liked: np.ndarray


def ranking_figures(scores: np.ndarray, liked: np.ndarray) -> dict[str, float]:
    """The figures of one list [n]. Raises ShoplensError if a score is not finite. Its *best* item is the one that shoppers liked most.

    mrr         1 / (rank of the best item by score)
    topN_top1   the first item by score is among the N most liked (CLIK's Topn-Top1)
    best_in_N   the best item is among the first N by score
    ndcg@k      gain is `liked`, discounted by rank (Järvelin & Kekäläinen 2002; ties: McSherry & Najork 2008)
    """
    n = len(scores)
    if not np.isfinite(scores).all():
        raise ShoplensError("the model gives scores that are not finite: its training diverged")
    ahead, tied = _places(scores, TIE)
    better, equal = _places(liked, 0.0)
    best = better == 0
    first = ahead == 0
    found = {"mrr": float(np.mean([_mean_reciprocal(a, t) for a, t in zip(ahead[best], tied[best], strict=True)]))}
    for top in TOPS:
        found[f"top{top}_top1"] = float(np.clip((top - better[first]) / equal[first], 0, 1).mean())
        found[f"best_in_{top}"] = float(np.clip((top - ahead[best]) / tied[best], 0, 1).mean())
    discount = 1 / np.log2(np.arange(n) + 2)
    gain = liked - min(0.0, float(liked.min()))
    for k in NDCG_AT:
        until = np.concatenate([[0.0], np.cumsum(np.where(np.arange(n) < k, discount, 0))])
        ideal = float(np.sort(gain)[::-1][:k] @ discount[:k])
        expected = (until[ahead + tied] - until[ahead]) / tied
        found[f"ndcg@{k}"] = float(gain @ expected) / ideal if ideal > 0 else 1.0
    return found


def rank_candidates(scores: Sequence[np.ndarray], lists: Sequence[CandidateList], category: Sequence[str]) -> Findings:
    """`ranking/...`: the mean figures over lists. Each list is its own bootstrap group.

    `about` holds mrr and ndcg@10 by the `category` of each list.
    """
    found = Findings()
    figures = [ranking_figures(s, one.liked) for s, one in zip(scores, lists, strict=True)]
    by_chance = [ranking_figures(np.zeros(len(one.liked)), one.liked) for one in lists]
    group = np.array([one.topic for one in lists], dtype=np.int64)
    for name in figures[0] if figures else ():
        values = np.array([each[name] for each in figures])
        found.add(
            f"ranking/{name}", values, group, float(np.mean([each[name] for each in by_chance])), _info("ranking", name)
        )
    found.titles["ranking_by_category"] = "Ranking by category of the topic"
    found.about["ranking_by_category"] = {
        name: {
            "topics": category.count(name),
            **{
                key: float(np.mean([f[key] for f, c in zip(figures, category, strict=True) if c == name]))
                for key in ("mrr", "ndcg@10")
            },
        }
        for name in sorted(set(category))
    }
    return found


def match_topics(topics: np.ndarray, photos: np.ndarray, lists: Sequence[CandidateList]) -> Findings:
    """`topic_to_image/` recall@k and mrr: each topic is a query for its photos. `image_to_topic/...`: the reverse.

    topics   unit rows [t, d] in the order of `lists`; the items of a list are the right answers of its topic
    photos   unit rows [n, d]

    A photo without a topic stays in the gallery but is no query. The same holds for a topic without a photo.
    """
    found = Findings()
    pairs = [(row, int(item)) for row, one in enumerate(lists) for item in one.items]
    topic, photo = (
        (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
        if pairs
        else (np.zeros(0, np.int64),) * 2
    )
    belongs = sparse.csr_array((np.ones(len(topic), np.int32), (topic, photo)), shape=(len(topics), len(photos)))
    of_photo = belongs.T.tocsr()
    asked, asking = (np.flatnonzero(np.diff(sparse_rows.indptr)) for sparse_rows in (of_photo, belongs))
    group = np.array([one.topic for one in lists], dtype=np.int64)
    ways = {
        "topic_to_image": Retrieval(
            queries=topics[asking], query_row=asking, query_key=asking, group=group[asking],
            gallery=photos, gallery_row=np.arange(len(photos)), right=belongs,
        ),
        "image_to_topic": Retrieval(
            queries=photos[asked], query_row=asked, query_key=asked, group=group[of_photo.indices[of_photo.indptr[asked]]],
            gallery=topics, gallery_row=np.arange(len(topics)), right=of_photo,
        ),
    }  # fmt: skip
    for name, task in ways.items():
        if not len(task):
            continue
        ranks = rank(task)
        found.add(f"{name}/mrr", 1 / (1 + ranks.first), task.group, info=_info(name, "mrr"))
        for k in RECALLS:
            by_chance = chance_recall(k, ranks.n_right, ranks.n_gallery)
            recall, info = recall_at(k, ranks.first), _info(name, f"recall@{k}")
            found.add(f"{name}/recall@{k}", recall, task.group, float(by_chance.mean()), info)
    return found


def _info(task: str, metric: str) -> MetricInfo:
    return MetricInfo(
        title=METRIC_TITLES.get(metric, metric), task_title=TITLES[task], headline=f"{task}/{metric}" in HEADLINES
    )


def _places(values: np.ndarray, tie: float) -> tuple[np.ndarray, np.ndarray]:
    """For each value [n]: how many values are larger, and how many are equal up to `tie`, itself included."""
    order = np.argsort(-values, kind="stable")
    step = np.concatenate([[True], -np.diff(values[order]) > tie]) if len(values) else np.zeros(0, bool)
    code = np.cumsum(step) - 1
    start = np.flatnonzero(step)
    size = np.diff(np.append(start, len(values)))
    ahead, tied = np.empty((2, len(values)), np.int64)
    ahead[order], tied[order] = start[code], size[code]
    return ahead, tied


def _mean_reciprocal(ahead: int, tied: int) -> float:
    """Mean of 1 / place over the places ahead + 1 to ahead + tied."""
    return float((1 / np.arange(ahead + 1, ahead + tied + 1)).mean())
